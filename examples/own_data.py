"""Your own data, tried out: the embedded model learns a shape it has never seen, by a word it has never read.

    python examples/own_data.py make crescent --out crescents
    molmopoint finetune crescents/train.jsonl --model nano --out learned --replay synthetic
    python examples/own_data.py score crescents --model learned/model

`make` draws 300 training pictures with their labels (train.jsonl), 100 test pictures with other grounds and
places (test.jsonl) and the visible pixels of every target (test/*_masks.png), and sheets to look at. `score`
asks a model for them. `compare` draws what the model answered before and after.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from new_shapes.drawing import NEW_SHAPES
from new_shapes.pictures import PARTS, Picture, draw_picture
from new_shapes.scoring import compare, mask_name, score
from PIL import Image
from rich.progress import track

from molmopoint.data.contact_sheet import contact_sheet
from molmopoint.data.records import Record, RecordPoint, write_records

NUM_PICTURES = {"train": 300, "test": 100}


def make(shape: str, folder: Path, numbers: dict[str, int]) -> None:
    """Draws the pictures of a shape and writes their labels.

    Args:
        shape: one of NEW_SHAPES.
        folder: for pictures, labels and contact sheets.
        numbers: pictures of each part ("train", "test").
    """
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
        records = list(_draw_part(shape, part, folder, numbers[part]))
        write_records(folder / f"{part}.jsonl", records)
        contact_sheet(records, folder).save(folder / f"{part}_sheet.png")
        num_targets = sum(len(record.points or ()) for record in records)
        print(f"{folder / part}.jsonl  {len(records)} pictures, {num_targets} {NEW_SHAPES[shape]}")


def _draw_part(shape: str, part: str, folder: Path, number: int) -> Iterator[Record]:
    for index in track(range(number), f"drawing {part}"):
        picture = draw_picture(shape, part, index)
        name = f"{part}/{index:03}.png"
        picture.image.save(folder / name)
        if part == "test":
            _masks(picture).save(folder / mask_name(name))
        record = Record(index + 1, images=(name,), label=NEW_SHAPES[shape], no_points=not picture.targets)
        points = tuple(RecordPoint(target.x, target.y) for target in picture.targets)
        yield replace(record, points=points, coords="pixel") if points else record


def _masks(picture: Picture) -> Image.Image:
    levels = np.zeros(picture.image.size[::-1], dtype=np.uint8)
    for level, target in enumerate(picture.targets, start=1):
        levels[target.mask] = level
    return Image.fromarray(levels)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="draw pictures and write labels")
    making.add_argument("shape", choices=NEW_SHAPES)
    making.add_argument("--out", type=Path, required=True, help="folder for pictures and labels")
    for part, number in NUM_PICTURES.items():
        making.add_argument(f"--{part}", type=int, default=number, help=f"pictures of the {part} part")
    scoring = commands.add_parser("score", help="ask a model for the shapes of the test pictures")
    scoring.add_argument("folder", type=Path, help="what `make` wrote")
    scoring.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    scoring.add_argument("--batch-size", type=int, default=25)
    comparing = commands.add_parser("compare", help="draw answers before and after")
    comparing.add_argument(
        "learned", nargs="+", help="FOLDER=MODEL, what `make` wrote and the model that learned it"
    )
    comparing.add_argument("--before", default="nano", help="the model they started from")
    comparing.add_argument(
        "--picture", type=int, default=0, help="which of the test pictures with two or more targets"
    )
    comparing.add_argument("--out", type=Path, default=Path("own_data.png"))
    return parser


def main() -> None:
    """Command line."""
    arguments = _parser().parse_args()
    if arguments.command == "make":
        make(arguments.shape, arguments.out, {part: getattr(arguments, part) for part in NUM_PICTURES})
    elif arguments.command == "compare":
        learned = {
            Path(folder): model for folder, model in (pair.split("=", 1) for pair in arguments.learned)
        }
        compare(learned, arguments.before, arguments.picture).quantize(128).save(arguments.out, optimize=True)
        print(arguments.out)
    else:
        start = time.perf_counter()
        scores = score(arguments.folder, arguments.model, arguments.batch_size)
        rounded = {name: round(value, 3) for name, value in scores.items()}
        print(
            json.dumps({"model": arguments.model, **rounded, "seconds": round(time.perf_counter() - start)})
        )


if __name__ == "__main__":
    main()
