"""Asks about several pictures, one by one in batches and all at once: `python examples/several_images.py`.

One of the files is broken on purpose: a batch names it and goes on. The embedded model was trained on single
pictures; what it says about several at once shows the form of such an answer, not its quality.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import molmopoint
from molmopoint.data.synthetic import sample_scene


def write_pictures(folder: Path) -> list[Path]:
    """Three synthetic pictures and a file that is none."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("first.png", "second.png", "broken.png", "third.png")]
    for seed, path in enumerate(paths):
        sample_scene(np.random.default_rng([2, seed])).image.save(path)
    paths[2].write_bytes(b"not a picture")
    return paths


def main() -> None:
    """Prints one line per picture, then one answer about all good pictures together."""
    parser = argparse.ArgumentParser(description="Asks about several pictures, one by one and all at once.")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--phrase", default="the circles")
    parser.add_argument("--out", type=Path, default=Path("several"), help="folder for pictures and drawings")
    arguments = parser.parse_args()

    paths = write_pictures(arguments.out)
    pointer = molmopoint.load(arguments.model)

    print(f"one request per picture: {arguments.phrase!r}")
    answers = pointer.point_batch(paths, arguments.phrase, batch_size=4, on_error="yield", max_new_tokens=256)
    good = []
    for path, answer in zip(paths, answers, strict=True):
        if isinstance(answer, Exception):
            print(f"  {path.name}: {answer}")
            continue
        good.append(path)
        answer.draw().save(arguments.out / f"{path.stem}_points.png")
        print(f"  {path.name}: {[(round(p.x), round(p.y)) for p in answer.points]}")

    print(f"one request about {len(good)} pictures")
    together = pointer.point(good, arguments.phrase, max_new_tokens=256)
    for point in together.points:
        print(f"  {good[int(point.group)].name}: object {point.object_id} at ({point.x:.0f}, {point.y:.0f})")
    drawings = list(together.draw())  # type: ignore[arg-type]  # of several pictures it is a list
    for path, drawing in zip(good, drawings, strict=True):
        drawing.save(arguments.out / f"{path.stem}_together.png")
    print(f"pictures and drawings are in {arguments.out}")


if __name__ == "__main__":
    main()
