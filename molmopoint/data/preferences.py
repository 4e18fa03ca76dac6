"""Rows for training a reward model: a request, perhaps a picture or a clip, and answers of which some are better than others.

    preferences = read_preferences("data.jsonl")
    preferences.records[0].responses, preferences.records[0].rankings

A row is a line of a JSONL file or a row of a data set with the same columns; `docs/reward_training.md` shows the three ways to write
one and `preference.schema.json` is the schema. As in `records`, nothing is guessed and unknown columns are refused. What cannot teach
anything is left out and counted: blank answers with their ranks, rows with one answer, and rows whose answers are all as good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.embedded import EmbeddedPicture
from molmopoint.data.preference_parsing import parse_preferences, preference_fields, ranks_of_scores
from molmopoint.data.preference_types import FORMS, PREFERENCE_COLUMNS, PreferenceRecord
from molmopoint.data.record_checks import row_error
from molmopoint.data.record_files import Source, iterate_rows
from molmopoint.errors import ProcessingError
from molmopoint.files import PICTURE_SUFFIXES

__all__ = [
    "FORMS", "PREFERENCE_COLUMNS", "PreferenceRecord", "Preferences", "parse_preferences", "preference_fields", "ranks_of_scores",
    "read_preferences",
]  # fmt: skip


@dataclass(frozen=True)
class Preferences:
    """Checked rows, and what was left out.

    Attributes:
        records: with two or more answers each, of which one is better than another.
        folder: where relative paths begin.
        dropped: blank answers that were left out.
        single: rows left out because fewer than two answers remain.
        undecided: rows left out because all answers are as good.
    """

    records: tuple[PreferenceRecord, ...]
    folder: Path
    dropped: int = 0
    single: int = 0
    undecided: int = 0

    def describe(self) -> str:
        """What there is and what was left out, in words."""
        left_out = {"blank answers": self.dropped, "rows with one answer": self.single, "rows without a preference": self.undecided}
        notes = [f"{number} {what} left out" for what, number in left_out.items() if number]
        return "; ".join([f"{len(self.records)} rows", *notes])


def read_preferences(
    source: Source,
    *,
    split: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Preferences:
    """Checked rows of a file or data set; missing pictures and clips are found here, broken ones when they are used.

    Args:
        source: a JSONL file, a data set or its name, or rows.
        split: of a data set with several; by default "train", or the only one.
        folder: where relative paths begin; by default that of the file.
        watch: shows how far the reading is.

    Raises:
        ProcessingError: the file or a row is faulty, a picture or clip is missing, or no row is left.
    """
    is_path = isinstance(source, str | os.PathLike)
    start = Path(folder) if folder is not None else Path(source).parent if isinstance(source, str | os.PathLike) else Path()
    kept: list[PreferenceRecord] = []
    known: set[str] = set()
    dropped = single = undecided = 0
    for row, columns in watch(iterate_rows(source, split=split)):
        if isinstance(columns, ProcessingError):
            raise columns
        record = parse_preferences(columns, row)
        _check_media(record, start, known)
        dropped += record.dropped
        if len(record.responses) < 2:
            single += 1
        elif not record.says_something:
            undecided += 1
        else:
            kept.append(record)
    if not kept:
        name = str(source) if is_path else "the data set"
        counted = Preferences((), start, dropped, single, undecided).describe()
        raise ProcessingError(f"expected rows with two or more answers of different quality in {name}, got {counted}; check the file")
    return Preferences(tuple(kept), start, dropped, single, undecided)


def _check_media(record: PreferenceRecord, folder: Path, known: set[str]) -> None:
    """Refuses files that are not there: the answers would be judged without what they are about."""
    files: Sequence[str] = [image for image in record.images if not isinstance(image, EmbeddedPicture)]
    for file in [*files, *([record.video] if record.video is not None else [])]:
        if file in known:
            continue
        if not (folder / file).exists():
            field = "video" if file == record.video else "image"
            raise row_error(record.row, field, "a file that is there", f"no file {folder / file}", "correct the path, or leave the row out")
        if file == record.video and (folder / file).is_dir() and not _has_pictures(folder / file):
            found = f"the folder {folder / file} without any"
            raise row_error(record.row, "video", "a folder with pictures, the frames of a clip", found, "put its frames there")
        known.add(file)


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir())
