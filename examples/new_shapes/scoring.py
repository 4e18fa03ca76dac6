"""The score on the test pictures, and a picture of what a model answers before and after it has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import track

import molmopoint
from molmopoint.data.records import Record, read_records
from molmopoint.files import open_picture
from molmopoint.metrics import MatchScores, match_points

_SIDE, _GAP, _CAPTION = 300, 10, 24


def score(folder: Path, model: str, batch_size: int = 25) -> dict[str, float]:
    """Mean F1 and the share of exact numbers on the test pictures of `folder`.

    A point is right in the visible mask of a target of its own. Where nothing is to be found an empty answer
    counts 1, another 0.

    Args:
        folder: what `own_data.py make` wrote.
        model: zoo name, hub id or folder.
        batch_size: pictures asked about at once.
    """
    pointer = molmopoint.load(model)
    records = list(read_records(folder / "test.jsonl"))
    results: list[MatchScores] = []
    for start in track(range(0, len(records), batch_size), "pointing"):
        asked = records[start : start + batch_size]
        answers = ask(pointer, folder, asked, batch_size)
        for answer, record in zip(answers, asked, strict=True):
            results.append(match_points(answer.points.xy, masks_of(folder, record)))
    f1 = np.array([result.f1 for result in results])
    exact = np.array([result.exact_count for result in results])
    is_present = np.array([result.num_targets > 0 for result in results])
    return {
        "pictures": len(results),
        "f1": float(f1.mean()),
        "exact_count": float(exact.mean()),
        "f1_where_present": float(f1[is_present].mean()) if is_present.any() else float("nan"),
    }


def ask(pointer: Any, folder: Path, records: list[Record], batch_size: int = 25) -> list[Any]:
    """Answers of a model to the label of each row, about its picture."""
    pictures = [picture_of(folder, record) for record in records]
    requests = [f"the {record.label}" for record in records]
    return pointer.point_batch(pictures, requests, batch_size=batch_size, max_new_tokens=200)


def picture_of(folder: Path, record: Record) -> Image.Image:
    """The picture of a row."""
    return open_picture(folder / str(record.images[0])).convert("RGB")


def masks_of(folder: Path, record: Record) -> list[np.ndarray]:
    """(height, width) bool, the visible pixels of each target of a test picture."""
    levels = np.asarray(open_picture(folder / mask_name(str(record.images[0]))))
    return [levels == level for level in range(1, len(record.points or ()) + 1)]


def mask_name(picture: str) -> str:
    """File of the masks of a test picture: the number of the target at each pixel, 0 elsewhere."""
    return picture.removesuffix(".png") + "_masks.png"


def compare(learned: dict[Path, str], before: str, index: int) -> Image.Image:
    """Answers side by side: above those of the model as it came, below those of the ones that have learned.

    Args:
        learned: model by folder of data, a column each.
        before: the model they started from.
        index: which of the test pictures with two or more targets to show.
    """
    width = len(learned) * (_SIDE + _GAP) + _GAP
    height = 2 * (_SIDE + _CAPTION + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), (250, 250, 250))
    pen = ImageDraw.Draw(sheet)
    for column, (folder, model) in enumerate(learned.items()):
        several = [record for record in read_records(folder / "test.jsonl") if len(record.points or ()) > 1]
        record = several[index]
        picture = picture_of(folder, record).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        left = _GAP + column * (_SIDE + _GAP)
        for row, (when, name) in enumerate((("before", before), ("after", model))):
            top = _GAP + row * (_SIDE + _CAPTION + _GAP)
            answer = molmopoint.load(name).point(picture, f"the {record.label}", max_new_tokens=200)
            sheet.paste(cast(Image.Image, answer.draw()), (left, top + _CAPTION))
            pen.text((left, top), f'"the {record.label}", {when}', fill=(30, 30, 30), font_size=16)
    return sheet
