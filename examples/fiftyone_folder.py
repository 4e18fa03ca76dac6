"""A folder of pictures with points as a FiftyOne dataset: `pip install fiftyone`, then

    python examples/fiftyone_folder.py PICTURES "the red circles" --app

Every picture becomes a sample with its points (a label that the app shows), how many there are, and the score of
the least sure one, by which the app sorts: `dataset.sort_by("least_score")` has the doubtful ones first. A file that
cannot be read has the tag "broken".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo

import molmopoint
from molmopoint.files import PICTURE_SUFFIXES


def samples(
    pointer: molmopoint.Pointer, folder: Path, phrase: str, batch_size: int = 8
) -> Iterator[fo.Sample]:
    """One sample per picture, in the order of their names."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
    answers = pointer.point_batch(files, phrase, batch_size=batch_size, on_error="yield")
    for file, answer in zip(files, answers, strict=True):
        sample = fo.Sample(filepath=str(file.resolve()))
        if isinstance(answer, Exception):
            sample.tags.append("broken")
            sample["error"] = str(answer)
        else:
            sample["points"] = answer.to_fiftyone(phrase)
            sample["count"] = len(answer.points)
            if len(answer.points):
                sample["least_score"] = float(answer.points.score.min())
        yield sample


def main() -> None:
    """Makes the dataset, and shows it in the app where that is asked for."""
    parser = argparse.ArgumentParser(description="A folder of pictures with points as a FiftyOne dataset.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("phrase", help="what to point at")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--name", default="points", help="of the dataset; one of this name is written anew")
    parser.add_argument("--app", action="store_true", help="show it in the browser, until the tab is closed")
    arguments = parser.parse_args()

    dataset = fo.Dataset(arguments.name, persistent=True, overwrite=True)
    dataset.add_samples(samples(molmopoint.load(arguments.model), arguments.folder, arguments.phrase))
    print(dataset)
    print(f"{dataset.sum('count')} points in {len(dataset)} pictures")
    if arguments.app:
        fo.launch_app(dataset.sort_by("least_score")).wait()


if __name__ == "__main__":
    main()
