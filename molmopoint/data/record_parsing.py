"""From the columns of a row to a checked record, and back.

Checks of single values in a row, and the one form of what is said about a faulty one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from molmopoint.data.embedded import EmbeddedPicture, embedded_picture
from molmopoint.data.record_types import (
    COLUMNS,
    POINT_COLUMNS,
    POINT_STYLES,
    TEXT_FIELDS,
    TRACK_STYLES,
    TURN_COLUMNS,
    Coords,
    Record,
    RecordPoint,
)
from molmopoint.errors import ProcessingError

_SHOWN = 200
"""Characters of a value in a message."""

_LARGEST = 2**63


def row_error(row: int, field: str | None, expected: str, got: str, remedy: str) -> ProcessingError:
    """What is wrong where, and what to do; `field` is None where it is the whole row."""
    place = f"row {row}" if field is None else f"row {row}, {field}"
    return ProcessingError(f"{place}: expected {expected}, got {got}; {remedy}")


def shown(value: Any) -> str:
    """A value in a message: short, and whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str], row: int, prefix: str) -> None:
    """Refuses columns that are not known: a misspelt one would silently do nothing."""
    if unknown := [name for name in given if name not in known]:
        raise row_error(row, f"{prefix}{unknown[0]}", f"one of the columns {', '.join(known)}", shown(unknown[0]), "rename or remove it")


def text_value(value: Any, row: int, field: str) -> str:
    """Text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise row_error(row, field, "text", shown(value), "leave the column out where there is none")
    _refuse_halves(value, row, field)
    return value


def _refuse_halves(value: str, row: int, field: str) -> None:
    """Half a character can stand in JSON, and in no file, no name and no model input."""
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise row_error(row, field, "whole characters", ascii(value)[:_SHOWN], "write emoji as UTF-8, not as half a surrogate pair")


def number_value(value: Any, row: int, field: str) -> float:
    """A finite number."""
    number = math.nan
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # JSON has integers beyond every float
            number = float(value)
    if not math.isfinite(number):
        raise row_error(row, field, "a finite number", shown(value), "write a plain number such as 12.5")
    return number


def integer_value(value: Any, row: int, field: str, expected: str) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < _LARGEST:
        raise row_error(row, field, expected, shown(value), "write a whole number")
    return int(value)


def picture_value(value: Any, row: int, field: str) -> str | EmbeddedPicture:
    """A picture: the path of a file, or what a data set embeds."""
    if isinstance(value, EmbeddedPicture):
        return value
    return embedded_picture(value) or file_value(value, row, field)


def file_value(value: Any, row: int, field: str) -> str:
    """A path as text; also of a data set's undecoded picture column, which keeps it as {"path": ..., "bytes": None}."""
    if isinstance(value, Mapping) and value.get("path") and value.get("bytes") is None:
        value = value["path"]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        kind = shown(value) if isinstance(value, str) else type(value).__name__
        raise row_error(row, field, "the path of a file", kind, "save the picture or clip and write its path")
    _refuse_halves(value, row, field)
    if "\0" in value:
        raise row_error(row, field, "the path of a file", shown(value), "write it without null characters")
    return value


def media_columns(given: Mapping[str, Any], row: int) -> tuple[tuple[str | EmbeddedPicture, ...], str | None]:
    """The pictures and the file of the clip."""
    kinds = [name for name in ("image", "images", "video") if name in given]
    if len(kinds) > 1:
        raise row_error(row, kinds[1], "one of image, images and video", " and ".join(kinds), "write two rows, or use images")
    if not kinds:
        return (), None
    if kinds == ["images"]:
        images = given["images"]
        if isinstance(images, str) or not isinstance(images, Sequence) or not images:
            raise row_error(row, "images", "a list of one or more files", shown(images), "write one picture as image")
        return tuple(picture_value(image, row, f"images[{i}]") for i, image in enumerate(images)), None
    if kinds == ["image"]:
        return (picture_value(given["image"], row, "image"),), None
    return (), file_value(given["video"], row, "video")


def parse_record(fields: Mapping[str, Any], row: int) -> Record:
    """A checked record from the columns of one row; a column that is None counts as absent.

    Args:
        fields: the columns.
        row: number of the row, for messages.

    Raises:
        ProcessingError: something is missing, too much, or of the wrong kind; the message names row, field and remedy.
    """
    if not isinstance(fields, Mapping):
        raise row_error(row, None, "an object with columns", shown(fields), "write one JSON object per line")
    refuse_unknown(fields, COLUMNS, row, "")
    given = {name: value for name, value in fields.items() if value is not None}
    texts: dict[str, Any] = {name: text_value(given[name], row, name) for name in TEXT_FIELDS if name in given}
    images, video = media_columns(given, row)
    if "turns" in given and given["turns"] != []:  # data sets with one schema for all rows write an empty list
        return _conversation(given, row, Record(row, images, video, source=texts.get("source"), weight=_weight(given, row)))
    no_points = given.get("no_points", False)
    if not isinstance(no_points, bool):
        raise row_error(row, "no_points", "true or false", shown(no_points), "write true where there is nothing to point at")
    points = _points(given["points"], row, len(images), video) if "points" in given else None
    if points == () and ("answer" in texts or "caption" in texts):
        points = None  # data sets with one schema for all rows write an empty list where a row has no points
    texts["prompts"] = _prompts(given, row)
    target = {"points": points, "coords": _coords(given, row), "no_points": no_points}
    record = Record(row, images, video, weight=_weight(given, row), **target, **texts)
    _check_target(record)
    return record


def record_fields(record: Record) -> dict[str, Any]:
    """The columns of a record as JSON values, what is absent left out; `parse_record` reads them back.

    Raises:
        ProcessingError: a picture of the record is embedded in a data set, and JSON has no place for it.
    """
    if any(isinstance(image, EmbeddedPicture) for image in record.images):
        raise row_error(record.row, "image", "the path of a file", "an embedded picture", "save the picture and write its path")
    columns: dict[str, Any] = {"image": record.images[0]} if len(record.images) == 1 else {}
    if len(record.images) > 1:
        columns["images"] = list(record.images)
    for name in ("video", "prompt", "label"):
        columns[name] = getattr(record, name)
    if record.prompts:
        columns["prompts"] = list(record.prompts)
    if record.turns:
        columns["turns"] = [record_fields(dataclasses.replace(turn, images=(), video=None)) for turn in record.turns]
    if record.points is not None:
        columns["points"] = [_without_defaults(point) for point in record.points]
    columns |= {"coords": record.coords, "no_points": record.no_points or None}
    columns |= {name: getattr(record, name) for name in ("answer", "caption", "style", "source", "weight")}
    return {name: value for name, value in columns.items() if value is not None}


def _weight(given: Mapping[str, Any], row: int) -> float | None:
    """Factor of the loss."""
    if "weight" not in given:
        return None
    weight = number_value(given["weight"], row, "weight")
    if weight <= 0:
        raise row_error(row, "weight", "a factor above 0", f"{weight:g}", "leave rows out that should not count")
    return weight


def _prompts(given: Mapping[str, Any], row: int) -> tuple[str, ...]:
    """Wordings of one request."""
    value = given.get("prompts", ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise row_error(row, "prompts", "a list of requests", shown(value), "write a single one as prompt")
    if value and "prompt" in given:
        raise row_error(row, "prompts", "prompt or prompts", "both", "put all wordings into prompts")
    return tuple(text_value(prompt, row, f"prompts[{i}]") for i, prompt in enumerate(value))


def _conversation(given: Mapping[str, Any], row: int, record: Record) -> Record:
    """A row of several turns; each is read as a row on the same pictures."""
    turns = given["turns"]
    if isinstance(turns, str | Mapping) or not isinstance(turns, Sequence):
        raise row_error(row, "turns", "a list of turns", shown(turns), "write one object with a request and its answer per turn")
    misplaced = [name for name in TURN_COLUMNS if given.get(name) not in (None, False, [], ())]
    if misplaced:
        raise row_error(row, misplaced[0], "no request beside turns", shown(given[misplaced[0]]), "move it into a turn")
    media: dict[str, Any] = {"images": record.images} if record.images else {"video": record.video}
    parsed: list[Record] = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise row_error(row, f"turns[{i}]", "an object like a row without pictures", shown(turn), "name its columns")
        refuse_unknown(turn, TURN_COLUMNS, row, f"turns[{i}].")
        try:
            parsed.append(parse_record({**media, **turn}, row))
        except ProcessingError as error:
            raise ProcessingError(str(error).replace(f"row {row}", f"row {row}, turns[{i}]", 1)) from error
        _check_turn(parsed[-1], i)
    return dataclasses.replace(record, turns=tuple(parsed))


def _check_turn(turn: Record, i: int) -> None:
    """What a row may have and a turn may not."""
    if turn.style in TRACK_STYLES:
        raise row_error(turn.row, f"turns[{i}].style", "points or text in a turn", shown(turn.style), "write tracks as rows of their own")
    if turn.is_pointing and not (turn.prompt or turn.prompts or turn.label):
        raise row_error(turn.row, f"turns[{i}].label", "a prompt or label in a turn", "labels of points", "write one turn per label")


def _points(value: Any, row: int, num_images: int, video: str | None) -> tuple[RecordPoint, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise row_error(row, "points", 'a list like [{"x": 10, "y": 20}]', shown(value), "write one object per point")
    return tuple(_point(point, row, f"points[{i}]", num_images, video) for i, point in enumerate(value))


def _point(value: Any, row: int, field: str, num_images: int, video: str | None) -> RecordPoint:
    if not isinstance(value, Mapping):
        raise row_error(row, field, 'an object like {"x": 10, "y": 20}', shown(value), "name the coordinates")
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
        expected, got = ("seconds", "nothing") if video is not None else ("no time in a row without a clip", shown(given["t"]))
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
        got = "nothing" if coords is None else shown(coords)
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
    if targets == ["answer"] and record.prompt is None and not record.prompts:
        raise row_error(row, "prompt", "the question of the answer", "nothing", "write what the user asks as prompt")
    if targets == ["points"]:
        _check_pointing(record)
    elif record.label is not None:
        raise row_error(row, "label", f"no label in a row with {targets[0]}", shown(record.label), "write it as prompt")


def _check_pointing(record: Record) -> None:
    """What a row with points, or without anything to point at, needs."""
    row, points = record.row, record.points or ()
    if not points and not record.no_points:
        raise row_error(row, "points", "one or more points", "an empty list", "write no_points: true if there is nothing to point at")
    if points and record.no_points:
        raise row_error(row, "no_points", "false in a row with points", "true", "drop no_points or the points")
    asked = record.prompt or record.prompts or record.label
    if not asked and (not points or any(point.label is None for point in points)):
        raise row_error(row, "label", "prompt, label, or a label on every point", "nothing", "say what is pointed at")
    if record.style is not None and record.style not in POINT_STYLES:
        raise row_error(row, "style", f"one of {', '.join(POINT_STYLES)}", shown(record.style), "leave it out to have it drawn")
    if record.style not in TRACK_STYLES:
        return
    if record.video is None:
        raise row_error(row, "style", f"a clip in a row of style {record.style!r}", "pictures", "use video, or another style")
    if any(point.object_id is None for point in points):
        raise row_error(row, "points", "an object_id on every point of a track", "a point without", "number the objects")
    if record.style == "track_from_point" and record.label is None:
        raise row_error(row, "label", "a label in a row of style 'track_from_point'", "none", "the request is made of it and a first point")


def _without_defaults(point: RecordPoint) -> dict[str, Any]:
    return {field.name: value for field in dataclasses.fields(point) if (value := getattr(point, field.name)) != field.default}
