"""Asks about every picture of a folder with `datasets.map`: `pip install "molmopoint[train]"`, then

    python examples/datasets_folder.py PICTURES "the red circles" --out points.jsonl

For work that goes on in a program that has its data as a `datasets.Dataset` anyway. Several machines or GPUs are
what examples/ray_folder.py is for.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

import molmopoint
from molmopoint.files import PICTURE_SUFFIXES

# Named, because a first batch without points would leave it open what the points of later ones are.
POINT = {"x": Value("float32"), "y": Value("float32"), "score": Value("float32")}
COLUMNS = Features(
    {"file": Value("string"), "text": Value("string"), "points": List(POINT), "error": Value("string")}
)


def ask(pointer: molmopoint.Pointer, phrase: str, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns with the answers for a batch of files; a file that cannot be read has the reason in `error`."""
    files = batch["file"]
    texts: list[str | None] = []
    points: list[list[dict[str, float]]] = []
    errors: list[str | None] = []
    for answer in pointer.point_batch(files, phrase, batch_size=len(files), on_error="yield"):
        failed = isinstance(answer, Exception)
        places = [] if failed else answer.points
        texts.append(None if failed else answer.text)
        points.append([{"x": place.x, "y": place.y, "score": place.score} for place in places])
        errors.append(str(answer) if failed else None)
    return {"file": files, "text": texts, "points": points, "error": errors}


def main() -> None:
    """Writes one line of JSON per picture."""
    parser = argparse.ArgumentParser(description="Asks about every picture of a folder with `datasets.map`.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("phrase", help="what to point at")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures that the model sees at once")
    parser.add_argument("--out", type=Path, default=Path("points.jsonl"))
    arguments = parser.parse_args()

    files = sorted(file for file in arguments.folder.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
    answers = Dataset.from_dict({"file": [str(file) for file in files]}).map(
        partial(ask, molmopoint.load(arguments.model), arguments.phrase),
        batched=True,
        batch_size=arguments.batch_size,
        features=COLUMNS,
        # Without a name for this step, all weights would be read once more to make one.
        new_fingerprint=Hasher.hash((files, arguments.model, arguments.phrase)),
    )
    answers.to_json(arguments.out)
    rows = answers.to_list()
    broken = [row for row in rows if row["error"] is not None]
    num_points = sum(len(row["points"]) for row in rows)
    print(f"{num_points} points in {len(rows) - len(broken)} pictures, in {arguments.out}")
    for row in broken:
        print(f"{row['file']}: {row['error']}")


if __name__ == "__main__":
    main()
