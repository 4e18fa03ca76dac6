"""Rows for training a reward model: a request, perhaps a picture or a clip, and answers of which some are better than others.

    preferences = read_preferences("data.jsonl")
    preferences.records[0].responses, preferences.records[0].rankings

A row is a line of a JSONL file or a row of a data set with the same columns; `docs/reward_training.md` shows the three ways to write
one and `preference.schema.json` is the schema. As in `records`, nothing is guessed and unknown columns are refused. What cannot teach
anything is left out and counted: blank answers with their ranks, rows with one answer, and rows whose answers are all as good.

From the columns of a row to checked preferences, and back: three ways to write them, one record.

What a row of preferences is once it is checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.embedded import EmbeddedPicture
from molmopoint.data.record_parsing import media_columns, number_value, refuse_unknown, row_error, shown, text_value
from molmopoint.data.records import Source, iterate_rows
from molmopoint.errors import ProcessingError
from molmopoint.files import PICTURE_SUFFIXES, is_file, is_folder

PREFERENCE_COLUMNS = (
    "image", "images", "video", "sampling_interval", "prompt", "question", "responses", "rankings", "scores", "chosen", "rejected",
    "id", "models", "source",
)  # fmt: skip
"""Everything a row may have."""

FORMS = (("responses", "rankings"), ("chosen", "rejected"), ("responses", "scores"))
"""Columns that say which answers are better, one pair per row."""


@dataclass(frozen=True)
class PreferenceRecord:
    """A request, answers to it, and how good each is among them.

    Attributes:
        row: number of the row, from 1; of a file the line.
        prompt: what the user asks.
        responses: the answers, none of them blank.
        rankings: of the answers, 1 is best; ties share a rank.
        images: files of the pictures, as written, or pictures that lie in the data set; empty without pictures.
        video: file of the clip, or folder of its frames, as written.
        models: what wrote each answer; empty where it is not known.
        id: name of the item.
        source: name of the data set.
        sampling_interval: seconds between the frames of a folder; None for what the reward model takes them to be.
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
        """Names of the pictures and of the clip, of text rows the prompt: rows that share one must not be trained on and scored."""
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


_FORMS = "responses and rankings, chosen and rejected, or responses and scores"


def parse_preferences(fields: Mapping[str, Any], row: int) -> PreferenceRecord:
    """A checked record from the columns of one row; a column that is None counts as absent, and so does a blank picture or clip.

    Blank answers are dropped with their ranks and counted, so a record may have fewer than two answers.

    Args:
        fields: the columns.
        row: number of the row, for messages.

    Raises:
        ProcessingError: something is missing, too much, or of the wrong kind; the message names row, field and remedy.
    """
    if not isinstance(fields, Mapping):
        raise row_error(row, None, "an object with columns", shown(fields), "write one JSON object per line")
    refuse_unknown(fields, PREFERENCE_COLUMNS, row, "")
    given = {name: value for name, value in fields.items() if value is not None and not _says_nothing(name, value)}
    images, video = media_columns(given, row)
    responses, rankings = _answers(given, row)
    models = _texts(given.get("models", ()), row, "models")
    if models and len(models) != len(responses):
        raise row_error(row, "models", f"{len(responses)} names, one per answer", str(len(models)), "name what wrote each answer")
    kept = [i for i, response in enumerate(responses) if response.strip()]
    return PreferenceRecord(
        row,
        _prompt(given, row),
        tuple(responses[i] for i in kept),
        tuple(rankings[i] for i in kept),
        images,
        video,
        tuple(models[i] for i in kept) if models else (),
        text_value(str(given["id"]), row, "id") if "id" in given else None,
        text_value(given["source"], row, "source") if "source" in given else None,
        _sampling_interval(given, row),
        dropped=len(responses) - len(kept),
    )


def preference_fields(record: PreferenceRecord) -> dict[str, Any]:
    """The columns of a record as JSON values, as responses and rankings; `parse_preferences` reads them back.

    Raises:
        ProcessingError: a picture of the record is embedded in a data set, and JSON has no place for it.
    """
    if any(isinstance(image, EmbeddedPicture) for image in record.images):
        raise row_error(record.row, "image", "the path of a file", "an embedded picture", "save the picture and write its path")
    columns: dict[str, Any] = {"image": record.images[0]} if len(record.images) == 1 else {}
    if len(record.images) > 1:
        columns["images"] = list(record.images)
    columns |= {"video": record.video, "prompt": record.prompt, "responses": list(record.responses), "rankings": list(record.rankings)}
    columns |= {"models": list(record.models) or None, "id": record.id, "source": record.source}
    columns["sampling_interval"] = record.sampling_interval
    return {name: value for name, value in columns.items() if value is not None}


def _says_nothing(name: str, value: Any) -> bool:
    """Whether this is a picture or clip that is not there, as some data sets write it."""
    return (name in ("image", "video") and isinstance(value, str) and not value.strip()) or (name == "images" and value in ([], ()))


def _sampling_interval(given: Mapping[str, Any], row: int) -> float | None:
    """Seconds between frames of a folder."""
    if "sampling_interval" not in given:
        return None
    seconds = number_value(given["sampling_interval"], row, "sampling_interval")
    if seconds <= 0:
        raise row_error(row, "sampling_interval", "seconds above 0", f"{seconds:g}", "write the seconds from one frame to the next")
    if "video" not in given:
        raise row_error(row, "sampling_interval", "a video beside it", "none", "leave the column out")
    return seconds


def ranks_of_scores(scores: Sequence[float]) -> tuple[int, ...]:
    """Ranks of scores, the highest first; ties share a rank and the next one counts them, as in 1, 1, 3, 4."""
    return tuple(1 + sum(other > score for other in scores) for score in scores)


def _answers(given: Mapping[str, Any], row: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Answers and ranks, whichever way they are written."""
    named = {name for form in FORMS for name in form if name in given}
    form = next((form for form in FORMS if named == set(form)), None)
    if form is None:
        got = " and ".join(sorted(named)) or "none of them"
        raise row_error(row, None, f"either {_FORMS}", got, "write one of the three forms, and nothing of another")
    if form[0] == "chosen":
        chosen, rejected = (_sides(given[name], row, name) for name in form)
        return chosen + rejected, (1,) * len(chosen) + (len(chosen) + 1,) * len(rejected)
    responses = _texts(given["responses"], row, "responses", conversational=True)
    if not responses:
        raise row_error(row, "responses", "two or more answers", "an empty list", "leave the row out")
    values = given[form[1]]
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise row_error(row, form[1], "a list of numbers, one per answer", shown(values), "write one number per answer")
    if len(values) != len(responses):
        raise row_error(
            row, form[1], f"{len(responses)} numbers, one per answer", str(len(values)), "give every answer one, in their order"
        )
    if form[1] == "scores":
        return responses, ranks_of_scores([number_value(value, row, f"scores[{i}]") for i, value in enumerate(values)])
    return responses, tuple(_rank(value, row, f"rankings[{i}]") for i, value in enumerate(values))


def _rank(value: Any, row: int, field: str) -> int:
    number = number_value(value, row, field)
    if number != int(number) or number < 1:
        raise row_error(
            row, field, "a whole number from 1, which is best", f"{number:g}", "count from 1; write what is better when larger as scores"
        )
    return int(number)


def _sides(value: Any, row: int, field: str) -> tuple[str, ...]:
    """One side of a comparison: an answer, a turn of chat, or a list of answers."""
    single = isinstance(value, str) or _is_chat(value)
    answers = _texts([value] if single else value, row, field, conversational=True)
    if not answers:
        raise row_error(row, field, "one or more answers", "an empty list", "leave the row out")
    return answers


def _texts(value: Any, row: int, field: str, *, conversational: bool = False) -> tuple[str, ...]:
    """A list of texts, which may be blank; of answers also as turns of chat."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise row_error(row, field, "a list of texts", shown(value), "write a list, also of one")
    places = [f"{field}[{i}]" for i in range(len(value))]
    texts: list[str] = []
    for entry, place in zip(value, places, strict=True):
        text = _turn(entry, row, place, "assistant") if conversational and _is_chat(entry) else entry
        if not isinstance(text, str):
            raise row_error(row, place, "text", shown(text), "write the answer as text")
        if text.strip():
            text_value(text, row, place)
        texts.append(text)
    return tuple(texts)


def _prompt(given: Mapping[str, Any], row: int) -> str:
    """What is asked, from either column, as text or as one turn of chat."""
    names = [name for name in ("prompt", "question") if name in given]
    if len(names) != 1:
        raise row_error(row, "prompt", "one prompt", " and ".join(names) or "none", "write what the user asks as prompt")
    value = given[names[0]]
    return text_value(_turn(value, row, names[0], "user") if _is_chat(value) else value, row, names[0])


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0 and all(isinstance(turn, Mapping) for turn in value)
    )


def _turn(turns: Sequence[Mapping[str, Any]], row: int, field: str, role: str) -> str:
    """The text of a chat of one turn; pictures are columns of their own."""
    if len(turns) != 1 or turns[0].get("role") != role:
        got = ", ".join(str(turn.get("role")) for turn in turns)
        raise row_error(
            row, field, f"text, or one turn of the {role}", f"turns of {got}", "several turns are not judged; write the last one"
        )
    content = turns[0].get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    words = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    if len(words) != 1 or not isinstance(words[0], str):
        raise row_error(row, field, "content with one text", shown(content), "write the text as content")
    return words[0]


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
        if not (is_file(folder / file) or is_folder(folder / file)):
            field = "video" if file == record.video else "image"
            raise row_error(record.row, field, "a file that is there", f"no file {folder / file}", "correct the path, or leave the row out")
        if file == record.video and (folder / file).is_dir() and not _has_pictures(folder / file):
            found = f"the folder {folder / file} without any"
            raise row_error(record.row, "video", "a folder with pictures, the frames of a clip", found, "put its frames there")
        known.add(file)


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir())
