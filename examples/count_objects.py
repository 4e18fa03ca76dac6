"""Counts things in a picture and compares with the truth: `python examples/count_objects.py`.

The picture is synthetic, so the true numbers are known. It is looked at once and asked several times.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

import molmopoint
from molmopoint.data.questions import PLURALS
from molmopoint.data.synthetic import sample_scene


def main() -> None:
    """Prints counted and true numbers, and draws the points behind the counts."""
    parser = argparse.ArgumentParser(description="Counts things in a picture and compares with the truth.")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--seed", type=int, default=7, help="names the picture")
    parser.add_argument("--out", type=Path, default=Path("counts"), help="folder for the drawings")
    arguments = parser.parse_args()

    scene = sample_scene(np.random.default_rng([1, arguments.seed]))
    truth = Counter(f"{item.colour} {PLURALS[item.shape]}" for item in scene.objects)
    truth["pink hearts"] += 0  # most pictures have none, and saying so is part of counting

    pointer = molmopoint.load(arguments.model)
    encoded = pointer.encode(scene.image)
    arguments.out.mkdir(parents=True, exist_ok=True)
    right = 0
    for things, number in truth.items():
        counted = pointer.count(encoded, things, max_new_tokens=256)
        right += counted == number
        print(
            f"{things:20s} counted {counted:2d}, there are {number:2d}  "
            f"{'' if counted == number else '<- wrong'}"
        )
        path = arguments.out / f"{things.replace(' ', '_')}.png"
        pointer.point(encoded, things, max_new_tokens=256).draw().save(path)
    print(f"{right} of {len(truth)} right; drawings in {arguments.out}")


if __name__ == "__main__":
    main()
