"""From the columns of a row to a checked record, and back.

`record_columns` has the types of the columns. Here are the rules between them, each with a sentence about the
row that breaks it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from molmopoint.data.embedded import EmbeddedPicture
from molmopoint.data.record_columns import TURN_COLUMNS, PointColumns, RecordColumns, TurnColumns
from molmopoint.data.record_types import POINT_STYLES, TRACK_STYLES, Coords, Record, RecordPoint
from molmopoint.data.row_model import check_columns, row_error, shown
from molmopoint.errors import ProcessingError


def parse_record(fields: Mapping[str, Any], row: int) -> Record:
    """A checked record from the columns of one row; a column that is None counts as absent.

    Args:
        fields: the columns.
        row: number of the row, for messages.

    Raises:
        ProcessingError: something is missing, too much, or of the wrong kind; the message names row, field
            and remedy.
    """
    columns = check_columns(RecordColumns, fields, row)
    images, video = columns.visual(row)
    record = Record(row, images, video, source=columns.source, weight=_weight(columns, row))
    if columns.turns:  # data sets with one schema for all rows write an empty list
        return dataclasses.replace(record, turns=_turns(columns, record))
    return _request(columns, record)


def record_fields(record: Record) -> dict[str, Any]:
    """The columns of a record as JSON values, what is absent left out; `parse_record` reads them back.

    Raises:
        ProcessingError: a picture of the record is embedded in a data set, and JSON has no place for it.
    """
    columns: dict[str, Any] = {**picture_columns(record.images, record.row), "video": record.video}
    columns |= {"prompt": record.prompt, "label": record.label, "prompts": list(record.prompts) or None}
    if record.turns:
        columns["turns"] = [
            record_fields(dataclasses.replace(turn, images=(), video=None)) for turn in record.turns
        ]
    if record.points is not None:
        columns["points"] = [_point_fields(point) for point in record.points]
    columns |= {"coords": record.coords, "no_points": record.no_points or None}
    for name in ("answer", "caption", "style", "source", "weight"):
        columns[name] = getattr(record, name)
    return {name: value for name, value in columns.items() if value is not None}


def picture_columns(images: tuple[str | EmbeddedPicture, ...], row: int) -> dict[str, Any]:
    """The pictures of a row as its column `image` or `images`.

    Raises:
        ProcessingError: one of them is embedded in a data set, and JSON has no place for it.
    """
    if any(isinstance(image, EmbeddedPicture) for image in images):
        raise row_error(
            row, "image", "the path of a file", "an embedded picture", "save the picture and write its path"
        )
    if len(images) > 1:
        return {"images": list(images)}
    return {"image": images[0]} if images else {}


def _point_fields(point: RecordPoint) -> dict[str, Any]:
    """The columns of a point that say something."""
    values = {field.name: (getattr(point, field.name), field.default) for field in dataclasses.fields(point)}
    return {name: value for name, (value, default) in values.items() if value != default}


def _weight(columns: RecordColumns, row: int) -> float | None:
    """Factor of the loss."""
    weight = columns.weight
    if weight is not None and weight <= 0:
        raise row_error(
            row, "weight", "a factor above 0", f"{weight:g}", "leave rows out that should not count"
        )
    return weight


def _turns(columns: RecordColumns, record: Record) -> tuple[Record, ...]:
    """The turns of a conversation, each a record about the same pictures."""
    for name in TURN_COLUMNS:
        value = getattr(columns, name)
        if value not in (None, False, []):
            raise row_error(
                record.row, name, "no request beside turns", _as_written(value), "move it into a turn"
            )
    parsed = []
    for i, turn in enumerate(columns.turns or ()):
        about = Record(record.row, record.images, record.video)
        try:
            parsed.append(_request(turn, about))
        except ProcessingError as error:
            raise ProcessingError(
                str(error).replace(f"row {record.row}", f"row {record.row}, turns[{i}]", 1)
            ) from error
        _check_turn(parsed[-1], i)
    return tuple(parsed)


def _check_turn(turn: Record, i: int) -> None:
    """What a row may have and a turn may not."""
    if turn.style in TRACK_STYLES:
        raise row_error(
            turn.row,
            f"turns[{i}].style",
            "points or text in a turn",
            shown(turn.style),
            "write tracks as rows of their own",
        )
    if turn.is_pointing and not (turn.prompt or turn.prompts or turn.label):
        raise row_error(
            turn.row,
            f"turns[{i}].label",
            "a prompt or label in a turn",
            "labels of points",
            "write one turn per label",
        )


def _request(columns: TurnColumns, record: Record) -> Record:
    """The record with the request and the answer of a row or turn."""
    if columns.prompts and columns.prompt is not None:
        raise row_error(record.row, "prompts", "prompt or prompts", "both", "put all wordings into prompts")
    points = _points(columns, record)
    if points == () and (columns.answer is not None or columns.caption is not None):
        points = None  # data sets with one schema for all rows write an empty list where a row has no points
    made = dataclasses.replace(
        record,
        prompt=columns.prompt,
        prompts=tuple(columns.prompts or ()),
        label=columns.label,
        points=points,
        coords=_coords(columns, record.row),
        no_points=columns.no_points or False,
        answer=columns.answer,
        caption=columns.caption,
        style=columns.style,
    )
    _check_target(made)
    return made


def _points(columns: TurnColumns, record: Record) -> tuple[RecordPoint, ...] | None:
    if columns.points is None:
        return None
    is_clip = record.video is not None
    num_images = len(record.images)
    points = []
    for i, point in enumerate(columns.points):
        if point.image or point.t is not None or is_clip or point.id is not None:
            _check_point(point, f"points[{i}]", record.row, num_images, is_clip)
        object_id = point.id if point.object_id is None else point.object_id
        points.append(RecordPoint(point.x, point.y, point.image or 0, point.t, object_id, point.label))
    return tuple(points)


def _check_point(point: PointColumns, field: str, row: int, num_images: int, is_clip: bool) -> None:
    """Picture, time and number of a point."""
    if point.id is not None and point.object_id is not None:
        raise row_error(row, f"{field}.id", "id or object_id", "both", "they mean the same; keep object_id")
    image = point.image or 0
    if image >= max(num_images, 1):
        last = (
            f"the index of a picture, 0..{num_images - 1}"
            if num_images
            else "no picture index in a row without pictures"
        )
        raise row_error(row, f"{field}.image", last, str(image), "pictures are counted from 0")
    remedy = "points of a clip have t, points of pictures have not"
    if is_clip and point.t is None:
        raise row_error(row, f"{field}.t", "seconds", "nothing", remedy)
    if not is_clip and point.t is not None:
        raise row_error(row, f"{field}.t", "no time in a row without a clip", f"{point.t:g}", remedy)
    if point.t is not None and point.t < 0:
        raise row_error(
            row, f"{field}.t", "seconds from the beginning of the clip", f"{point.t:g}", "count from 0"
        )


def _coords(columns: TurnColumns, row: int) -> Coords | None:
    """The space of the points; None only where there are none."""
    if columns.coords is None and columns.points:
        expected = "one of pixel, percent, norm1, norm1000"
        raise row_error(
            row, "coords", expected, "nothing", "say in which space x and y are; it is never guessed"
        )
    return columns.coords


def _check_target(record: Record) -> None:
    """One target per row, and what that target needs."""
    row, has_visual = record.row, bool(record.images) or record.video is not None
    targets = [name for name in ("answer", "caption") if getattr(record, name) is not None]
    if record.is_pointing:
        targets.append("points")
    if len(targets) != 1:
        got = " and ".join(targets) or "none of them"
        raise row_error(
            row, None, "one of points (or no_points), answer and caption", got, "write one row per target"
        )
    [target] = targets
    if target != "answer" and not has_visual:
        raise row_error(
            row, "image", f"image, images or video in a row with {target}", "nothing", "name the file"
        )
    if target == "answer" and record.prompt is None and not record.prompts:
        raise row_error(
            row, "prompt", "the question of the answer", "nothing", "write what the user asks as prompt"
        )
    if target == "points":
        _check_pointing(record)
    elif record.label is not None:
        raise row_error(
            row, "label", f"no label in a row with {target}", shown(record.label), "write it as prompt"
        )


def _check_pointing(record: Record) -> None:
    """What a row with points, or without anything to point at, needs."""
    row, points = record.row, record.points or ()
    if not points and not record.no_points:
        raise row_error(
            row,
            "points",
            "one or more points",
            "an empty list",
            "write no_points: true if there is nothing to point at",
        )
    if points and record.no_points:
        raise row_error(
            row, "no_points", "false in a row with points", "true", "drop no_points or the points"
        )
    asked = record.prompt or record.prompts or record.label
    if not asked and (not points or any(point.label is None for point in points)):
        raise row_error(
            row, "label", "prompt, label, or a label on every point", "nothing", "say what is pointed at"
        )
    if record.style is not None and record.style not in POINT_STYLES:
        raise row_error(
            row,
            "style",
            f"one of {', '.join(POINT_STYLES)}",
            shown(record.style),
            "leave it out to have it drawn",
        )
    if record.style in TRACK_STYLES:
        _check_track(record)


def _check_track(record: Record) -> None:
    """What a row with tracks needs."""
    row = record.row
    if record.video is None:
        raise row_error(
            row,
            "style",
            f"a clip in a row of style {record.style!r}",
            "pictures",
            "use video, or another style",
        )
    if any(point.object_id is None for point in record.points or ()):
        raise row_error(
            row, "points", "an object_id on every point of a track", "a point without", "number the objects"
        )
    if record.style == "track_from_point" and record.label is None:
        raise row_error(
            row,
            "label",
            "a label in a row of style 'track_from_point'",
            "none",
            "the request is made of it and a first point",
        )


def _as_written(value: Any) -> str:
    """The value of a column in a message."""
    if isinstance(value, list) and isinstance(value[0], PointColumns):
        return shown([point.model_dump(exclude_unset=True) for point in value])
    return shown(value)
