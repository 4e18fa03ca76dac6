"""Points at something in one picture: `python examples/point_in_image.py [picture] [phrase]`.

Without arguments it asks the embedded model for the red circles of `examples/images/shapes.png`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import molmopoint

SHAPES = Path(__file__).parent / "images" / "shapes.png"


def main() -> None:
    """Prints the points of one answer and draws them."""
    parser = argparse.ArgumentParser(description="Points at something in one picture.")
    parser.add_argument("picture", nargs="?", default=str(SHAPES))
    parser.add_argument(
        "phrase", nargs="?", default="the red circles", help="a noun phrase, a request or a question"
    )
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--out", default="points.png", help="where to draw the points")
    arguments = parser.parse_args()

    pointer = molmopoint.load(arguments.model)
    result = pointer.point(arguments.picture, arguments.phrase, max_new_tokens=256)

    width, height = result.image_sizes[0]
    print(f"{arguments.picture}, {width} x {height} pixels: {result.prompt!r} -> {result.text!r}")
    for point in result.points:
        print(f"  {point.object_id:3d}  x {point.x:7.1f}  y {point.y:7.1f}  score {point.score:.2f}")
    if not result.points:
        print("  no points; that is an answer, too")
    if result.truncated:
        print("  the token limit cut the answer")

    result.draw().save(arguments.out)
    print(f"drawn to {arguments.out}: look whether every marker sits on what was asked for")


if __name__ == "__main__":
    main()
