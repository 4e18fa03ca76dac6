"""Further data sets of pictures that Molmo and its successors were trained on, as they are on the hub.

PixMo-Count (allenai/pixmo-count) and CoSyn-Point (allenai/CoSyn-point) point, PixMo-Cap (allenai/pixmo-cap)
describes. PixMo-Points is in `ai2`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.hub_rows import (
    NOT_THERE,
    NamedFiles,
    NoFile,
    answer_of,
    check_count,
    pairs,
    picture_of,
    points_of,
)
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN
from molmopoint.data.importers.reading import PathLike, read_rows
from molmopoint.data.importers.values import label_text, listed, required, whole_text
from molmopoint.errors import ProcessingError

Source = PathLike | Iterable[Mapping[str, Any]]
"""A JSONL or JSON file, or the loaded data set."""


def read_pixmo_count(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """Rows of PixMo-Count, asked for with points and their number; points are in pixels.

    Rows of its test and validation parts have a count and no points; they are left out, for there is nothing to
    point at in them.

    Args:
        source: rows with `image_sha256`, `label`, `count` and `points`.
        journal: hears which rows are left out.
        images: folder of the downloaded pictures, named by `image_sha256`, with any ending or none.

    Raises:
        ProcessingError: a file of another kind, or no folder.
    """
    files = NamedFiles(Path(images), "image_sha256")
    for position, row in read_rows(source, "image_sha256, label, count and points", journal):
        where = f"row {position} of the source"
        try:
            file = files.called(whole_text(required(row, "image_sha256", where), where), where)
            label = label_text(required(row, "label", where), f"{where}, label")
            points = points_of(row.get("points"), f"{where}, points")
            check_count(required(row, "count", where), len(points), where)
        except NoFile as error:
            journal.skip(NOT_THERE, str(error))
            continue
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        yield {"image": str(file), "label": label, "style": "point_count", **answer_of(points, "pixel")}


def read_cosyn_point(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """One row per question of CoSyn-Point, with the name of what it asks for as label; points are in percent.

    Args:
        source: rows with `id`, `questions`, `answer_points` and `names`.
        journal: hears which rows and questions are left out.
        images: folder of the pictures: a path in the column `image` starts there; where that column holds the
            picture itself, the file is `<id>.png`.

    Raises:
        ProcessingError: a file of another kind.
    """
    for position, row in read_rows(source, "id, image, questions, answer_points and names", journal):
        where = f"row {position} of the source"
        try:
            file = picture_of(row, Path(images), row.get("id"), f"{where}, id")
            questions = listed(required(row, "questions", where), f"{where}, questions")
            answers = listed(required(row, "answer_points", where), f"{where}, answer_points")
            names = listed(row.get("names"), f"{where}, names")
            asked = list(pairs(questions, answers, f"{where}, questions and answer_points"))
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        for index, question, answer in asked:
            place = f"{where}, question {index}"
            try:
                columns: dict[str, Any] = {"prompt": whole_text(question, place).strip()}
                if index < len(names) and names[index]:
                    columns["label"] = label_text(names[index], f"{place}, name").lower()
                points = points_of(answer, f"{place}, points")
            except ProcessingError as error:
                journal.skip(BROKEN, f"left out: {error}")
                continue
            yield {"image": str(file), **columns, "style": "pointing", **answer_of(points, "percent")}


def read_pixmo_cap(
    source: Source, journal: Journal, images: PathLike, transcripts: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows of PixMo-Cap: the description of a picture, and what its annotators said.

    Args:
        source: rows with `image_url`, `caption` and `transcripts`.
        journal: hears which rows are left out.
        images: folder of the downloaded pictures, with any ending or none, named by `image_sha256` where the row
            has it, else by the SHA-256 of the address in hexadecimal digits.
        transcripts: also a row for each transcript, in the style "transcript".

    Raises:
        ProcessingError: a file of another kind, or no folder.
    """
    files = NamedFiles(Path(images), "image_sha256, or the SHA-256 of image_url")
    for position, row in read_rows(source, "image_url, caption and transcripts", journal):
        where = f"row {position} of the source"
        try:
            file = files.called(_hash_of(row, where), where)
            texts = [(whole_text(required(row, "caption", where), f"{where}, caption"), "long_caption")]
            spoken = listed(row.get("transcripts"), f"{where}, transcripts") if transcripts else []
            texts += [(whole_text(text, f"{where}, transcripts"), "transcript") for text in spoken]
        except NoFile as error:
            journal.skip(NOT_THERE, str(error))
            continue
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        for text, style in texts:
            yield {"image": str(file), "caption": text.strip(), "style": style}


def _hash_of(row: Mapping[str, Any], where: str) -> str:
    """What the picture's file is called."""
    if row.get("image_sha256") is not None:
        return whole_text(row["image_sha256"], f"{where}, image_sha256")
    address = whole_text(required(row, "image_url", where), f"{where}, image_url")
    return hashlib.sha256(address.encode()).hexdigest()
