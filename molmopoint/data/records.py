"""The rows a user writes: one visual input, one request, and what the model should answer.

A row is a line of a JSONL file or a row of a data set with the same columns; `docs/data_format.md` shows one of each kind and
`record.schema.json` is the schema. Nothing is guessed: the space of the coordinates is written in every row with points, and
a column that is not known is refused, so that a misspelt one does not silently do nothing.

Rows are counted from 1; of a file that is the line, so an editor finds it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from molmopoint.data.record_checks import file_value, integer_value, number_value, refuse_unknown, row_error, text_value
from molmopoint.errors import ProcessingError

Coords = Literal["pixel", "percent", "norm1", "norm1000"]
"""Space of x and y: pixels of the displayed picture, 0 to 100, 0 to 1, or 0 to 1000 across it."""

POINT_STYLES = ("pointing", "point_count", "count_then_point", "count", "track")
"""Styles of rows with points; of other rows the style is free text, written in front of the prompt."""

FULL_SCALE: dict[str, float] = {"percent": 100.0, "norm1": 1.0, "norm1000": 1000.0}
"""Value at the right and lower edge in each space that does not depend on the size of the picture."""


@dataclass(frozen=True)
class RecordPoint:
    """A place in a picture or clip.

    Attributes:
        x: across, from the left edge, in the row's space.
        y: down, from the upper edge, in the row's space.
        image: which of the row's pictures, from 0.
        t: seconds from the beginning of the clip; None for pictures.
        object_id: number of the object, the same wherever it appears; None where nobody counted.
        label: what this point shows; requests of a row without prompt and label are made of these.
    """

    x: float
    y: float
    image: int = 0
    t: float | None = None
    object_id: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Record:
    """One row, checked.

    Attributes:
        row: number of the row, from 1; of a file the line.
        images: files of the pictures, as written; empty without pictures.
        video: file of the clip, as written.
        prompt: what the user asks, sent as it is.
        label: noun phrase to point at; put into a prompt template where there is no prompt.
        points: the places; None in rows that do not point.
        coords: space of the points; None without points.
        no_points: nothing to point at.
        answer: text to answer a question with.
        caption: text that describes the visual input.
        style: one of `POINT_STYLES`, or of a text row what is written in front of the prompt; None lets it be drawn.
        source: name of the data set, for loss weights and losses per source.
        weight: factor of the row's loss; None is 1.
    """

    row: int
    images: tuple[str, ...] = ()
    video: str | None = None
    prompt: str | None = None
    label: str | None = None
    points: tuple[RecordPoint, ...] | None = None
    coords: Coords | None = None
    no_points: bool = False
    answer: str | None = None
    caption: str | None = None
    style: str | None = None
    source: str | None = None
    weight: float | None = None

    @property
    def visual(self) -> tuple[tuple[str, ...], str | None]:
        """What rows on the same pictures or clip have in common."""
        return self.images, self.video

    @property
    def is_pointing(self) -> bool:
        """Whether the answer points, or says that there is nothing to point at."""
        return self.no_points or self.points is not None


_TEXT_FIELDS = ("prompt", "label", "answer", "caption", "style", "source")
COLUMNS = ("image", "images", "video", "prompt", "label", "points", "coords", "no_points", *_TEXT_FIELDS[2:], "weight")
"""Columns of a row."""

POINT_COLUMNS = ("x", "y", "image", "t", "object_id", "id", "label")
"""Columns of a point; `id` is another name of `object_id`."""


def parse_record(fields: Mapping[str, Any], row: int) -> Record:
    """A checked record from the columns of one row; a column that is None counts as absent.

    Args:
        fields: the columns.
        row: number of the row, for messages.

    Raises:
        ProcessingError: something is missing, too much, or of the wrong kind; the message names row, field and remedy.
    """
    if not isinstance(fields, Mapping):
        raise row_error(row, None, "an object with columns", repr(fields), "write one JSON object per line")
    refuse_unknown(fields, COLUMNS, row, "")
    given = {name: value for name, value in fields.items() if value is not None}
    texts = {name: text_value(given[name], row, name) for name in _TEXT_FIELDS if name in given}
    images, video = _visual(given, row)
    no_points = given.get("no_points", False)
    if not isinstance(no_points, bool):
        raise row_error(row, "no_points", "true or false", repr(no_points), "write true where there is nothing to point at")
    points = _points(given["points"], row, len(images), video) if "points" in given else None
    if points == () and ("answer" in texts or "caption" in texts):
        points = None  # data sets with one schema for all rows write an empty list where a row has no points
    weight = None
    if "weight" in given:
        weight = number_value(given["weight"], row, "weight")
        if weight <= 0:
            raise row_error(row, "weight", "a factor above 0", f"{weight:g}", "leave rows out that should not count")
    record = Record(row, images, video, points=points, coords=_coords(given, row), no_points=no_points, weight=weight, **texts)
    _check_target(record)
    return record


def record_fields(record: Record) -> dict[str, Any]:
    """The columns of a record as JSON values, what is absent left out; `parse_record` reads them back."""
    columns: dict[str, Any] = {"image": record.images[0]} if len(record.images) == 1 else {}
    if len(record.images) > 1:
        columns["images"] = list(record.images)
    for name in ("video", "prompt", "label"):
        columns[name] = getattr(record, name)
    if record.points is not None:
        columns["points"] = [_without_defaults(point) for point in record.points]
    columns |= {"coords": record.coords, "no_points": record.no_points or None}
    columns |= {name: getattr(record, name) for name in ("answer", "caption", "style", "source", "weight")}
    return {name: value for name, value in columns.items() if value is not None}


def iterate_rows(source: str | os.PathLike[str] | Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Any]]:
    """Number and unchecked columns of each row of a JSONL file or of an iterable such as a Hugging Face data set.

    Empty lines are passed over but counted. A line that is no JSON is given as the `ProcessingError` it means, so that a
    checker can go on; `read_records` raises it.

    Raises:
        ProcessingError: there is no such file.
    """
    if not isinstance(source, str | os.PathLike):
        yield from enumerate(source, start=1)
        return
    path = Path(source)
    if not path.is_file():
        raise ProcessingError(f"expected a JSONL file with one row per line, got no file {path}; check the path")
    with path.open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if line.strip():
                yield row, _json_line(line, row)


def read_records(source: str | os.PathLike[str] | Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """Checked records, one after the other, of a JSONL file or of an iterable of columns such as a Hugging Face data set.

    Raises:
        ProcessingError: the file or a row is faulty, or there are no rows.
    """
    empty = True
    for row, columns in iterate_rows(source):
        empty = False
        if isinstance(columns, ProcessingError):
            raise columns
        yield parse_record(columns, row)
    if empty:
        name = source if isinstance(source, str | os.PathLike) else "the data set"
        raise ProcessingError(f"expected one or more rows, got none in {name}; check that it is the file you meant")


def write_records(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Writes a JSONL file beside `path` and renames it, so that a crash leaves the old file as it was.

    Returns:
        Number of rows written.
    """
    path, count = Path(path), 0
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record_fields(record), ensure_ascii=False, allow_nan=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return count


def to_pixels(record: Record, sizes: Sequence[tuple[int, int]], *, clip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Points of a record in pixels of the displayed pictures.

    Args:
        record: any; without points the result is empty.
        sizes: (width, height) of each picture as displayed, or one entry for a clip.
        clip: move points outside the picture to its edge instead of refusing them.

    Returns:
        group, (n,) int64 index of the picture or float64 seconds, and xy, (n, 2) float64 pixels.

    Raises:
        ProcessingError: sizes that do not fit the record, or a point outside its picture without `clip`.
    """
    expected = 1 if record.video is not None else len(record.images)
    if len(sizes) != expected:
        raise row_error(record.row, None, f"the size of {expected} pictures or clips", str(len(sizes)), "pass one (width, height) for each")
    points = record.points or ()
    is_video = record.video is not None
    canvas = np.array([point.image for point in points], dtype=np.int64)  # 0 for points of a clip
    group = np.array([point.t for point in points], dtype=np.float64) if is_video else canvas
    wh = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)[canvas]
    xy = np.array([(point.x, point.y) for point in points], dtype=np.float64).reshape(-1, 2)
    scale = wh if record.coords == "pixel" or not points else np.full_like(wh, FULL_SCALE[str(record.coords)])
    outside = np.flatnonzero(~((xy >= 0) & (xy <= scale)).all(axis=1))
    if outside.size and not clip:
        i = int(outside[0])
        raise row_error(
            record.row,
            f"points[{i}]",
            f"x in 0..{scale[i, 0]:g} and y in 0..{scale[i, 1]:g} for coords {record.coords!r}",
            f"({xy[i, 0]:g}, {xy[i, 1]:g})",
            "correct the point, or coords if it names the wrong space, or drop the point",
        )
    return group, np.clip(xy / scale, 0.0, 1.0) * wh


def resolve_media(record: Record, folder: str | os.PathLike[str]) -> tuple[tuple[Path, ...], Path | None]:
    """Files of the pictures and of the clip; a relative path starts at `folder`, that of the JSONL file."""
    return tuple(Path(folder) / image for image in record.images), None if record.video is None else Path(folder) / record.video


def _visual(given: Mapping[str, Any], row: int) -> tuple[tuple[str, ...], str | None]:
    """Files of the pictures and of the clip."""
    kinds = [name for name in ("image", "images", "video") if name in given]
    if len(kinds) > 1:
        raise row_error(row, kinds[1], "one of image, images and video", " and ".join(kinds), "write two rows, or use images")
    if not kinds:
        return (), None
    if kinds == ["images"]:
        images = given["images"]
        if isinstance(images, str) or not isinstance(images, Sequence) or not images:
            raise row_error(row, "images", "a list of one or more files", repr(images), "write one picture as image")
        return tuple(file_value(image, row, f"images[{i}]") for i, image in enumerate(images)), None
    file = file_value(given[kinds[0]], row, kinds[0])
    return ((file,), None) if kinds == ["image"] else ((), file)


def _points(value: Any, row: int, num_images: int, video: str | None) -> tuple[RecordPoint, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise row_error(row, "points", 'a list like [{"x": 10, "y": 20}]', repr(value), "write one object per point")
    return tuple(_point(point, row, f"points[{i}]", num_images, video) for i, point in enumerate(value))


def _point(value: Any, row: int, field: str, num_images: int, video: str | None) -> RecordPoint:
    if not isinstance(value, Mapping):
        raise row_error(row, field, 'an object like {"x": 10, "y": 20}', repr(value), "name the coordinates")
    refuse_unknown(value, POINT_COLUMNS, row, f"{field}.")
    given = {name: entry for name, entry in value.items() if entry is not None}
    for name in ("x", "y"):
        if name not in given:
            raise row_error(row, f"{field}.{name}", "a number", "nothing", "every point has x and y")
    if "id" in given and "object_id" in given:
        raise row_error(row, f"{field}.id", "id or object_id", "both", "they mean the same; keep object_id")
    object_id = given.get("object_id", given.get("id"))
    if object_id is not None:
        object_id = integer_value(object_id, row, f"{field}.object_id", "a number of the object, from 0")
    image = integer_value(given.get("image", 0), row, f"{field}.image", "the index of a picture, from 0")
    if image >= max(num_images, 1):
        last = f"the index of a picture, 0..{num_images - 1}" if num_images else "no picture index in a row without pictures"
        raise row_error(row, f"{field}.image", last, str(image), "pictures are counted from 0")
    if (video is None) == ("t" in given):
        expected, got = ("seconds", "nothing") if video is not None else ("no time in a row without a clip", repr(given["t"]))
        raise row_error(row, f"{field}.t", expected, got, "points of a clip have t, points of pictures have not")
    t = number_value(given["t"], row, f"{field}.t") if "t" in given else None
    if t is not None and t < 0:
        raise row_error(row, f"{field}.t", "seconds from the beginning of the clip", f"{t:g}", "count from 0")
    label = text_value(given["label"], row, f"{field}.label") if "label" in given else None
    return RecordPoint(number_value(given["x"], row, f"{field}.x"), number_value(given["y"], row, f"{field}.y"), image, t, object_id, label)


def _coords(given: Mapping[str, Any], row: int) -> Coords | None:
    """The space of the points; None only where there are none."""
    spaces = get_args(Coords)
    coords = given.get("coords")
    if coords is None and not given.get("points"):
        return None
    if coords not in spaces:
        got = "nothing" if coords is None else repr(coords)
        raise row_error(row, "coords", f"one of {', '.join(spaces)}", got, "say in which space x and y are; it is never guessed")
    return coords


def _check_target(record: Record) -> None:
    """One target per row, and what that target needs."""
    row, has_visual = record.row, bool(record.images) or record.video is not None
    targets = [name for name in ("answer", "caption") if getattr(record, name) is not None]
    targets += ["points"] if record.is_pointing else []
    if len(targets) != 1:
        got = " and ".join(targets) or "none of them"
        raise row_error(row, None, "one of points (or no_points), answer and caption", got, "write one row per target")
    if targets != ["answer"] and not has_visual:
        raise row_error(row, "image", f"image, images or video in a row with {targets[0]}", "nothing", "name the file")
    if targets == ["answer"] and record.prompt is None:
        raise row_error(row, "prompt", "the question of the answer", "nothing", "write what the user asks as prompt")
    if targets == ["points"]:
        _check_pointing(record)
    elif record.label is not None:
        raise row_error(row, "label", f"no label in a row with {targets[0]}", repr(record.label), "write it as prompt")


def _check_pointing(record: Record) -> None:
    """What a row with points, or without anything to point at, needs."""
    row, points = record.row, record.points or ()
    if not points and not record.no_points:
        raise row_error(row, "points", "one or more points", "an empty list", "write no_points: true if there is nothing to point at")
    if points and record.no_points:
        raise row_error(row, "no_points", "false in a row with points", "true", "drop no_points or the points")
    if record.prompt is None and record.label is None and (not points or any(point.label is None for point in points)):
        raise row_error(row, "label", "prompt, label, or a label on every point", "nothing", "say what is pointed at")
    if record.style is not None and record.style not in POINT_STYLES:
        raise row_error(row, "style", f"one of {', '.join(POINT_STYLES)}", repr(record.style), "leave it out to have it drawn")
    if record.style == "track" and record.video is None:
        raise row_error(row, "style", "a clip in a row of style 'track'", "pictures", "use video, or another style")
    if record.style == "track" and any(point.object_id is None for point in points):
        raise row_error(row, "points", "an object_id on every point of a track", "a point without", "number the objects")


def _json_line(line: bytes, row: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        got = f"{error.msg} at column {error.colno}"
    except (UnicodeDecodeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
    return row_error(row, None, "one JSON object per line", got, "write every row on a line of its own, in UTF-8")


def _without_defaults(point: RecordPoint) -> dict[str, Any]:
    return {field.name: value for field in dataclasses.fields(point) if (value := getattr(point, field.name)) != field.default}
