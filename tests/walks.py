"""What a value meets on its way, counted: `python tests/walks.py`.

Walks through the package are followed call by call: a picture from `Pointer.point` to the model's `generate`, a
clip from `Pointer.point_video` to it, six rows of a file to sources and then to training rows, and one item of a
benchmark to `generate` and to its score. Counted are the functions of ours that are entered, the files they lie
in, calls, and changes from one file to another; what runs in other threads is not. As in `readings.py`, the
numbers are no limits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import molmopoint
from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.training.prepare import ExamplePreparer
from molmopoint.training.rules import FormattingRules
from molmopoint.training.sampling import Draw
from molmopoint.training.sources import GroupSource, load_rows
from molmopoint.training.trees import group_records

ROOT = Path(molmopoint.__file__).resolve().parent
ROOMS = tuple(str((ROOT / name).resolve()) for name in ("", "eval", "heads", "checkpoints"))


class Arrived(Exception):
    """The walk is at its end."""


class Walk:
    """Counts calls of our functions while it is the profiler.

    Args:
        end: name of the function at which the walk ends; None for none.
    """

    def __init__(self, end: str | None = None) -> None:
        self.end = end
        self.functions: set[CodeType] = set()
        self.files: list[str] = []

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(ROOMS):
            return
        if frame.f_code.co_name == self.end:
            sys.setprofile(None)
            raise Arrived
        self.functions.add(frame.f_code)
        self.files.append(frame.f_code.co_filename)

    def follow(self, action: Callable[[], object]) -> str:
        """Runs an action and says what was met."""
        sys.setprofile(self)
        try:
            action()
        except Arrived:
            pass
        finally:
            sys.setprofile(None)
        changes = sum(before != after for before, after in zip(self.files, self.files[1:], strict=False))
        return f"{len(self.functions):5} functions {len(set(self.files)):4} files {len(self.files):6} calls {changes:6} changes of file"


def main() -> None:
    """Prints the walks."""
    pointer = molmopoint.load("nano", device_map="cpu")
    picture = Image.new("RGB", (160, 120), "white")
    ImageDraw.Draw(picture).ellipse((40, 30, 80, 70), fill="red")
    frames = np.zeros((4, 120, 160, 3), dtype=np.uint8)
    seconds = [0.0, 0.5, 1.0, 1.5]
    pointer.point(picture, "the red circle")  # what is read once and kept is not met again
    pointer.point_video(frames, "the red circle", timestamps=seconds)

    print("picture to generate  ", Walk("generate").follow(lambda: pointer.point(picture, "the red circle")))
    print(
        "clip to generate     ",
        Walk("generate").follow(lambda: pointer.point_video(frames, "the red circle", timestamps=seconds)),
    )
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder), picture)
        sources: list[GroupSource] = []
        print("six rows to a source ", Walk().follow(lambda: sources.append(read_source(data))))
        print("source to six rows   ", Walk().follow(lambda: make_rows(sources[0], pointer.processor)))

    def ask() -> object:
        return molmopoint.evaluate(pointer, "point_bench", data="fixture", limit=1)

    ask()  # the benchmark is found and read once
    print("benchmark to generate", Walk("generate").follow(ask))
    print("benchmark to a score ", Walk().follow(ask))


def write_rows(folder: Path, picture: Image.Image) -> Path:
    """A file of six rows about six pictures."""
    lines = []
    for number in range(6):
        picture.save(folder / f"{number}.png")
        row = {"image": f"{number}.png", "label": "circle", "coords": "pixel", "points": [{"x": 60, "y": 50}]}
        lines.append(json.dumps(row))
    data = folder / "data.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    return data


def read_source(data: Path) -> GroupSource:
    """The rows of a file, checked and grouped by picture."""
    records, folder = load_rows(data)
    return GroupSource("walk", group_records(records), folder)


def make_rows(source: GroupSource, processor: Any) -> None:
    """The training row of each example of a source."""
    prepare = ExamplePreparer([source], MolmoPointBackend(processor), FormattingRules(), 4096)
    for number in range(len(source)):
        prepare(Draw(number, 0, number, 0))


if __name__ == "__main__":
    main()
