"""The plain form of `Tracks`: what JSON holds, and what every file format is made from and read as.

A document has rows under `points`, and beside them what they share:

    {"schema_version": 1, "time_unit": "second", "coordinate_unit": "pixel", "size": [640, 360], "fps": 30.0,
    "moments": [0.0, 0.5],
     "objects": [{"object_id": 7, "label": "the red car"}],
     "points": [{"object_id": 7, "time": 0.5, "x": 10.0, "y": 20.0, "visible": true, "score": null, "frame":
     15}]}

A row has a `frame` only if it is known; size, fps, labels and scores that are not known are null.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.points import checked_number
from molmopoint.tracks.columns import LARGEST_WHOLE, Columns
from molmopoint.tracks.resampling import SAME_TIME

SCHEMA_VERSION = 1
"""Version of what `Tracks.to_dict` writes; raised when a reader of the old form would misread the new one."""

_ROW_FIELDS = ("object_id", "time", "x", "y", "visible", "score")


def rows_to_document(
    columns: Columns,
    size: tuple[int, int] | None,
    fps: float | None,
    moments: np.ndarray,
    labels: Mapping[int, str],
) -> dict[str, Any]:
    """The document of some columns, in plain types only."""
    values = [getattr(columns, name).tolist() for name in _ROW_FIELDS]
    rows = []
    for of_row in zip(*values, strict=True):
        row = dict(zip(_ROW_FIELDS, of_row, strict=True))
        if math.isnan(row["score"]):
            row["score"] = None
        rows.append(row)
    if columns.frame is not None:
        for row, frame in zip(rows, columns.frame.tolist(), strict=True):
            row["frame"] = frame

    objects = []
    for object_id in np.unique(columns.object_id).tolist():
        objects.append({"object_id": object_id, "label": labels.get(object_id)})
    return {
        "schema_version": SCHEMA_VERSION,
        "time_unit": "second",
        "coordinate_unit": "pixel",
        "size": None if size is None else list(size),
        "fps": fps,
        "moments": moments.tolist(),
        "objects": objects,
        "points": rows,
    }


def rows_from_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Tracks`, which checks them.

    Raises:
        GroundingError: another schema version, or a missing or malformed entry.
    """
    version = document.get("schema_version") if isinstance(document, Mapping) else None
    if version != SCHEMA_VERSION:
        raise GroundingError(
            f"expected tracks of schema version {SCHEMA_VERSION}, got {version!r}; use the release that "
            "wrote them"
        )
    try:
        return _arguments(document)
    except GroundingError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise GroundingError(
            f"expected a document as Tracks.to_dict writes it, got one without a proper {error}"
        ) from error


def make_document(
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[int, str | None],
    *,
    fps: float | None = None,
    size: Any = None,
    moments: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A document from rows that were read from a file, and what is known beside them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "size": size,
        "fps": fps,
        "moments": moments,
        "objects": [{"object_id": number, "label": label} for number, label in labels.items()],
        "points": rows,
    }


def parse_number(value: Any, where: str, *, whole: bool = False) -> Any:
    """A finite number from a file, as int where it must be whole.

    Args:
        value: a number, or text that holds one.
        where: its place in the file, for the message.
        whole: whether it must be a whole number of 64 bits.

    Raises:
        GroundingError: it is none.
    """
    number = math.nan
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)
    fits = math.isfinite(number)
    if whole and fits:
        fits = number == math.floor(number) and abs(number) < LARGEST_WHOLE
    if isinstance(value, bool) or not fits:
        wanted = "whole number of 64 bits" if whole else "number"
        got = f"{value!r:.40}" if isinstance(value, str | float) else type(value).__name__
        raise GroundingError(f"expected a {wanted} in {where}, got {got}")
    if not whole:
        return number
    # Whole numbers beyond 2**53 have no float of their own.
    is_exact = isinstance(value, int) or str(value).strip().lstrip("+-").isdecimal()
    return int(value if is_exact else number)


def parse_box(box: Any) -> tuple[float, float]:
    """(width, height) in pixels of the boxes that stand for points in formats of boxes.

    Raises:
        GroundingError: it is no pair of numbers of 0 or more.
    """
    try:
        width, height = (float(side) for side in box)
    except (TypeError, ValueError, OverflowError):
        width = height = math.nan
    if not (math.isfinite(width + height) and min(width, height) >= 0):
        raise GroundingError(f"expected box as (width, height) of 0 or more pixels, got {box!r}")
    return width, height


def frame_on_screen(time: float, fps: float) -> int:
    """Number, from 0, of the frame that is shown at a time in seconds."""
    return math.floor((time + SAME_TIME) * fps)


def _arguments(document: Mapping[str, Any]) -> dict[str, Any]:
    rows = document["points"]
    time = np.array(_column(rows, "time"), dtype=np.float64)  # (n,)
    x = np.array(_column(rows, "x"), dtype=np.float64)
    y = np.array(_column(rows, "y"), dtype=np.float64)
    visible = []
    scores = []
    for i, row in enumerate(rows):
        visible.append(_truth(row["visible"], f"points[{i}].visible"))
        score = row["score"]
        scores.append(math.nan if score is None else checked_number(score, f"points[{i}].score"))
    frame = None
    if rows and all("frame" in row for row in rows):
        frame = np.array(_column(rows, "frame", whole=True), dtype=np.int64)

    labels: dict[int, Any] = {}
    for i, entry in enumerate(document["objects"]):
        object_id = checked_number(entry["object_id"], f"objects[{i}].object_id", whole=True)
        labels[object_id] = entry["label"]
    return {
        "object_id": np.array(_column(rows, "object_id", whole=True), dtype=np.int64),
        "time": time,
        "x": x,
        "y": y,
        "visible": np.array(visible, dtype=bool),
        "score": np.array(scores),
        "frame": frame,
        "size": document["size"],
        "fps": document["fps"],
        "moments": document["moments"],
        "labels": {object_id: label for object_id, label in labels.items() if label is not None},
    }


def _column(rows: Any, name: str, *, whole: bool = False) -> list[float]:
    """The numbers of one column."""
    return [checked_number(row[name], f"points[{i}].{name}", whole=whole) for i, row in enumerate(rows)]


def _truth(value: Any, where: str) -> bool:
    """True or false, also as 1 or 0."""
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise GroundingError(f"expected true or false in {where}, got {type(value).__name__}; correct it")
    return bool(value)
