"""Trains the model of screens from nothing, on one processor core: `python examples/train_screens.py STAGE
--folder runs/screens`.

Stages, in this order; every stage resumes from its checkpoint:

    fetch       UI kits and icons from the npm registry, into --cache, with their licences
    draw        pages in Chromium, as shards (can run beside the others; later shards are picked up as they appear)
    vit         the vision transformer, with dense labels
    point       the whole model, with questions
    release     writes weights, tokenizer and processor files to --target

`evaluate_screens.py` scores the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from screens.settings import ScreenSettings

SIZES = {
    "small": (336, 336),
    "boards": (336, 336),
    "square": (672, 672),
    "desktop": (1280, 800),
    "phone": (390, 844),
}
"""Sizes of pages, by the name of their folder."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("fetch", "draw", "vit", "point", "release"))
    parser.add_argument(
        "--folder", type=Path, required=True, help="checkpoints, logs and drawn pages live here"
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/npm"), help="where kits and icons are kept")
    parser.add_argument("--steps", type=int, default=20_000, help="optimiser steps of the stage")
    parser.add_argument(
        "--shards", type=int, nargs=2, default=(0, 60), help="first shard to draw, and the one to stop before"
    )
    parser.add_argument("--size", choices=SIZES, default="small", help="of the pages to draw")
    parser.add_argument("--pages", type=int, default=400, help="pages of a shard")
    parser.add_argument(
        "--target", type=Path, default=Path("runs/nano-screens"), help="where `release` writes"
    )
    arguments = parser.parse_args()
    run = {"fetch": fetch, "draw": draw, "vit": train_vit, "point": train_point, "release": write}
    run[arguments.stage](arguments)


def fetch(arguments: argparse.Namespace) -> None:
    """Kits and icons."""
    from screens.fetch import fetch_packages

    for name, licence in fetch_packages(arguments.cache).items():
        print(f"{name}: {licence}")


def draw(arguments: argparse.Namespace) -> None:
    """Pages."""
    from screens.drawing import draw_shard

    for index in range(*arguments.shards):
        path = draw_shard(
            arguments.folder / arguments.size,
            index,
            arguments.cache / "node_modules",
            SIZES[arguments.size],
            arguments.pages,
            arguments.size == "boards",
        )
        print(path, flush=True)


def train_vit(arguments: argparse.Namespace) -> None:
    """The first stage."""
    from screens.dense import train_dense

    train_dense(arguments.folder, ScreenSettings(), arguments.steps)


def train_point(arguments: argparse.Namespace) -> None:
    """The second stage."""
    from screens.pointing import train_pointing

    train_pointing(arguments.folder, ScreenSettings(), arguments.steps)


def write(arguments: argparse.Namespace) -> None:
    """The files."""
    from screens.release import release

    release(arguments.folder, arguments.target, ScreenSettings())


if __name__ == "__main__":
    main()
