"""Makes the pictures of the README again: `python examples/make_images.py [--model nano] [--out
examples/images]`.

Run it after the weights of `nano` have changed; `shapes.png` itself does not depend on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import molmopoint
from molmopoint.data.synthetic import sample_scene

SEED = (28069, 88)
"""A scene with two red circles, and with other red things and other circles beside them."""

ENLARGED = 3
"""Scenes are about 150 pixels wide, which is little for people; for the model smooth enlarging changes
nothing.
"""

PROMPT = "the red circles"


def draw_shapes() -> Image.Image:
    """The picture without points."""
    scene = sample_scene(np.random.default_rng(SEED)).image
    return scene.resize((scene.width * ENLARGED, scene.height * ENLARGED), Image.Resampling.BICUBIC)


def main() -> None:
    """Writes shapes.png, shapes_points.png and shapes_heatmap.png."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the README again.")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "images", help="folder for the pictures"
    )
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    picture = draw_shapes()
    result = molmopoint.load(arguments.model).point(picture, PROMPT, max_new_tokens=256)
    drawings = {
        "shapes": picture,
        "shapes_points": result.draw(),
        "shapes_heatmap": result.draw(heatmap=True),
    }
    for name, drawing in drawings.items():
        path = arguments.out / f"{name}.png"
        drawing.save(path, optimize=True)
        print(f"{path}  {drawing.width} x {drawing.height}")
    print(result)


if __name__ == "__main__":
    main()
