"""Rows for training a reward model: a request, perhaps a picture or a clip, and answers of which some are
better than others.

    preferences = read_preferences("data.jsonl")
    preferences.records[0].responses, preferences.records[0].rankings

A row is a line of a JSONL file or a row of a data set with the same columns; `docs/reward_training.md` shows
the three ways to write one and `preference.schema.json` is the schema. As in `records`, nothing is guessed
and unknown columns are refused. What cannot teach anything is left out and counted: blank answers with their
ranks, rows with one answer, and rows whose answers are all as good.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from molmopoint.data.embedded import EmbeddedPicture
from molmopoint.data.preference_columns import FORMS, PREFERENCE_COLUMNS, PreferenceColumns
from molmopoint.data.record_parsing import picture_columns
from molmopoint.data.records import RecordSource, iterate_rows
from molmopoint.data.row_model import check_columns, row_error
from molmopoint.errors import ProcessingError
from molmopoint.files import PICTURE_SUFFIXES, is_file, is_folder, remove_leftovers, written_whole

__all__ = [
    "FORMS", "PREFERENCE_COLUMNS", "PreferenceRecord", "Preferences", "check_first_preferences", "parse_preferences",
    "preference_fields", "ranks_of_scores", "read_preferences", "write_preferences",
]  # fmt: skip


_LOOKED_AT = 100
"""Rows that are looked at before anything is loaded."""


@dataclass(frozen=True)
class PreferenceRecord:
    """A request, answers to it, and how good each is among them.

    Attributes:
        row: number of the row, from 1; of a file the line.
        prompt: what the user asks.
        responses: the answers, none of them blank.
        rankings: of the answers, 1 is best; ties share a rank.
        images: files of the pictures, as written, or pictures that lie in the data set; empty without
            pictures.
        video: file of the clip, or folder of its frames, as written.
        models: what wrote each answer; empty where it is not known.
        id: name of the item.
        source: name of the data set.
        sampling_interval: seconds between the frames of a folder; None for what the reward model takes them
            to be.
        dropped: blank answers that were left out with their ranks.
    """

    row: int
    prompt: str
    responses: tuple[str, ...]
    rankings: tuple[int, ...]
    images: tuple[str | EmbeddedPicture, ...] = ()
    video: str | None = None
    models: tuple[str, ...] = ()
    id: str | None = None
    source: str | None = None
    sampling_interval: float | None = None
    dropped: int = 0

    @property
    def media(self) -> tuple[str, ...]:
        """Names of the pictures and of the clip, of text rows the prompt: rows that share one must not be
        trained on and scored.
        """
        names = tuple(image.digest if isinstance(image, EmbeddedPicture) else image for image in self.images)
        return (names if self.video is None else (*names, self.video)) or (self.prompt,)

    @property
    def best(self) -> tuple[int, ...]:
        """Places of the answers that share the best rank."""
        top = min(self.rankings, default=0)
        return tuple(i for i, rank in enumerate(self.rankings) if rank == top)

    @property
    def says_something(self) -> bool:
        """Whether one answer is better than another."""
        return len(set(self.rankings)) > 1


def parse_preferences(fields: Mapping[str, Any], row: int) -> PreferenceRecord:
    """A checked record from the columns of one row; a column that is None counts as absent, and so does a
    blank picture or clip.

    Blank answers are dropped with their ranks and counted, so a record may have fewer than two answers.

    Args:
        fields: the columns.
        row: number of the row, for messages.

    Raises:
        ProcessingError: something is missing, too much, or of the wrong kind; the message names row, field
            and remedy.
    """
    columns = check_columns(PreferenceColumns, fields, row)
    images, video = columns.visual(row)
    responses, rankings = _answers(columns, row)
    models = columns.models or []
    if models and len(models) != len(responses):
        raise row_error(
            row,
            "models",
            f"{len(responses)} names, one per answer",
            str(len(models)),
            "name what wrote each answer",
        )
    kept = [i for i, response in enumerate(responses) if response.strip()]
    return PreferenceRecord(
        row,
        _prompt(columns, row),
        responses=tuple(responses[i] for i in kept),
        rankings=tuple(rankings[i] for i in kept),
        images=images,
        video=video,
        models=tuple(models[i] for i in kept if models),
        id=columns.id,
        source=columns.source,
        sampling_interval=_sampling_interval(columns, row),
        dropped=len(responses) - len(kept),
    )


def preference_fields(record: PreferenceRecord) -> dict[str, Any]:
    """The columns of a record as JSON values, as responses and rankings; `parse_preferences` reads them back.

    Raises:
        ProcessingError: a picture of the record is embedded in a data set, and JSON has no place for it.
    """
    columns: dict[str, Any] = {
        **picture_columns(record.images, record.row),
        "video": record.video,
        "prompt": record.prompt,
    }
    columns |= {
        "responses": list(record.responses),
        "rankings": list(record.rankings),
        "models": list(record.models) or None,
    }
    columns |= {"id": record.id, "source": record.source, "sampling_interval": record.sampling_interval}
    return {name: value for name, value in columns.items() if value is not None}


def write_preferences(path: str | os.PathLike[str], records: Iterable[PreferenceRecord]) -> int:
    """Writes a JSONL file whole or not at all.

    Returns:
        Number of rows written.

    Raises:
        ProcessingError: a picture of a record is embedded in a data set.
    """
    count = 0
    remove_leftovers(Path(path).parent)
    with written_whole(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(preference_fields(record), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def ranks_of_scores(scores: Sequence[float]) -> tuple[int, ...]:
    """Ranks of scores, the highest first; ties share a rank and the next one counts them, as in 1, 1, 3, 4."""
    return tuple(1 + sum(other > score for other in scores) for score in scores)


def _answers(columns: PreferenceColumns, row: int) -> tuple[Sequence[str], tuple[int, ...]]:
    """Answers and ranks, whichever way they are written."""
    named = {name for form in FORMS for name in form if getattr(columns, name) is not None}
    if named not in [set(form) for form in FORMS]:
        forms = "responses and rankings, chosen and rejected, or responses and scores"
        got = " and ".join(sorted(named)) or "none of them"
        raise row_error(
            row, None, f"either {forms}", got, "write one of the three forms, and nothing of another"
        )
    if columns.chosen is not None:
        chosen, rejected = columns.chosen, columns.rejected or []
        return [*chosen, *rejected], (1,) * len(chosen) + (len(chosen) + 1,) * len(rejected)
    responses = columns.responses or []
    name = "scores" if columns.rankings is None else "rankings"
    values: Sequence[float] = getattr(columns, name)
    if len(values) != len(responses):
        expected = f"{len(responses)} numbers, one per answer"
        raise row_error(row, name, expected, str(len(values)), "give every answer one, in their order")
    if name == "scores":
        return responses, ranks_of_scores(values)
    return responses, tuple(_rank(value, row, f"rankings[{i}]") for i, value in enumerate(values))


def _rank(number: float, row: int, field: str) -> int:
    if number != int(number) or number < 1:
        remedy = "count from 1; write what is better when larger as scores"
        raise row_error(row, field, "a whole number from 1, which is best", f"{number:g}", remedy)
    return int(number)


def _prompt(columns: PreferenceColumns, row: int) -> str:
    """What is asked, from either column."""
    given = {name: value for name in ("prompt", "question") if (value := getattr(columns, name)) is not None}
    if len(given) != 1:
        raise row_error(
            row, "prompt", "one prompt", " and ".join(given) or "none", "write what the user asks as prompt"
        )
    [prompt] = given.values()
    return prompt


def _sampling_interval(columns: PreferenceColumns, row: int) -> float | None:
    """Seconds between frames of a folder."""
    seconds = columns.sampling_interval
    if seconds is None:
        return None
    if seconds <= 0:
        raise row_error(
            row,
            "sampling_interval",
            "seconds above 0",
            f"{seconds:g}",
            "write the seconds from one frame to the next",
        )
    if columns.video is None:
        raise row_error(row, "sampling_interval", "a video beside it", "none", "leave the column out")
    return seconds


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
        left_out = {
            "blank answers": self.dropped,
            "rows with one answer": self.single,
            "rows without a preference": self.undecided,
        }
        notes = [f"{number} {what} left out" for what, number in left_out.items() if number]
        return "; ".join([f"{len(self.records)} rows", *notes])


def read_preferences(
    source: RecordSource,
    *,
    split: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Preferences:
    """Checked rows of a file or data set; missing pictures and clips are found here, broken ones when they
    are used.

    Args:
        source: a JSONL file, a data set or its name, or rows.
        split: of a data set with several; by default "train", or the only one.
        folder: where relative paths begin; by default that of the file.
        on_progress: shows how far the reading is.

    Raises:
        ProcessingError: the file or a row is faulty, a picture or clip is missing, or no row is left.
    """
    start, name = Path(), "the data set"
    if isinstance(source, str | os.PathLike):
        start, name = Path(source).parent, os.fspath(source)
    if folder is not None:
        start = Path(folder)
    kept: list[PreferenceRecord] = []
    known: set[str] = set()
    dropped = single = undecided = 0
    for row, columns in on_progress(iterate_rows(source, split=split)):
        record = _checked_record(row, columns, start, known)
        dropped += record.dropped
        if len(record.responses) < 2:
            single += 1
        elif not record.says_something:
            undecided += 1
        else:
            kept.append(record)
    if not kept:
        counted = Preferences((), start, dropped, single, undecided).describe()
        raise ProcessingError(
            f"expected rows with two or more answers of different quality in {name}, got {counted}; check "
            "the file"
        )
    return Preferences(tuple(kept), start, dropped, single, undecided)


def check_first_preferences(path: str | os.PathLike[str]) -> None:
    """Looks through the first rows of a JSONL file: what is wrong with all of them is told before the libraries
    of models are loaded.

    Args:
        path: of the file.

    Raises:
        ProcessingError: a row is faulty, or a picture or clip is missing.
    """
    known: set[str] = set()
    for row, columns in islice(iterate_rows(path), _LOOKED_AT):
        _checked_record(row, columns, Path(path).parent, known)


def _checked_record(
    row: int, columns: Mapping[str, Any] | ProcessingError, folder: Path, known: set[str]
) -> PreferenceRecord:
    """A row as `iterate_rows` gives it, read, and its pictures and clip looked for.

    Raises:
        ProcessingError: it is faulty, or a file is missing.
    """
    if isinstance(columns, ProcessingError):
        raise columns
    record = parse_preferences(columns, row)
    _check_media(record, folder, known)
    return record


def _check_media(record: PreferenceRecord, folder: Path, known: set[str]) -> None:
    """Refuses files that are not there: the answers would be judged without what they are about."""
    named = [("image", image) for image in record.images if not isinstance(image, EmbeddedPicture)]
    if record.video is not None:
        named.append(("video", record.video))
    for field, name in named:
        if name in known:
            continue
        file = folder / name
        if not (is_file(file) or is_folder(file)):
            raise row_error(
                record.row,
                field,
                "a file that is there",
                f"no file {file}",
                "correct the path, or leave the row out",
            )
        if field == "video" and file.is_dir() and not _has_pictures(file):
            found = f"the folder {file} without any"
            raise row_error(
                record.row,
                "video",
                "a folder with pictures, the frames of a clip",
                found,
                "put its frames there",
            )
        known.add(name)


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir())
