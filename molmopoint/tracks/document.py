"""The plain form of `Tracks`, which JSON holds and which every other file form is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.points import checked_number
from molmopoint.tracks.columns import Columns

SCHEMA_VERSION = 1
"""Version of what `Tracks.to_dict` writes; raised when a reader of the old form would misread the new one."""


def rows_to_document(
    columns: Columns, size: tuple[int, int] | None, fps: float | None, moments: np.ndarray, labels: Mapping[int, str]
) -> dict[str, Any]:
    """Plain types only; rows have a `frame` only if it is known."""
    frames = [{}] * len(columns.time) if columns.frame is None else [{"frame": number} for number in columns.frame.tolist()]
    names = ("object_id", "time", "x", "y", "visible", "score")
    values = zip(*(getattr(columns, name).tolist() for name in names), strict=True)
    rows = [dict(zip(names, row, strict=True)) | frame for row, frame in zip(values, frames, strict=True)]
    for row in rows:
        row["score"] = None if math.isnan(row["score"]) else row["score"]
    return {
        "schema_version": SCHEMA_VERSION,
        "time_unit": "second",
        "coordinate_unit": "pixel",
        "size": None if size is None else list(size),
        "fps": fps,
        "moments": moments.tolist(),
        "objects": [{"object_id": number, "label": labels.get(number)} for number in np.unique(columns.object_id).tolist()],
        "points": rows,
    }


def rows_from_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Tracks`, which checks them.

    Raises:
        GroundingError: another schema version, or a missing or malformed entry.
    """
    version = document.get("schema_version") if isinstance(document, Mapping) else None
    if version != SCHEMA_VERSION:
        raise GroundingError(f"expected tracks of schema version {SCHEMA_VERSION}, got {version!r}; use the release that wrote them")
    try:
        rows = document["points"]
        columns = {name: np.array(_column(rows, name), dtype=np.float64) for name in ("time", "x", "y")}
        scores = [row["score"] for row in rows]
        has_frames = bool(rows) and all("frame" in row for row in rows)
        objects = [(each["object_id"], each["label"]) for each in document["objects"]]
        labels = {checked_number(key, f"objects[{i}].object_id", whole=True): label for i, (key, label) in enumerate(objects)}
        return {
            **columns,
            "object_id": np.array(_column(rows, "object_id", whole=True), dtype=np.int64),
            "visible": np.array([_truth(row["visible"], f"points[{i}].visible") for i, row in enumerate(rows)], dtype=bool),
            "score": np.array([math.nan if s is None else checked_number(s, f"points[{i}].score") for i, s in enumerate(scores)]),
            "frame": np.array(_column(rows, "frame", whole=True), dtype=np.int64) if has_frames else None,
            "size": document["size"],
            "fps": document["fps"],
            "moments": document["moments"],
            "labels": {key: label for key, label in labels.items() if label is not None},
        }
    except GroundingError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise GroundingError(f"expected a document as Tracks.to_dict writes it, got one without a proper {error}") from error


def _column(rows: Any, name: str, *, whole: bool = False) -> list[float]:
    """The numbers of one column."""
    return [checked_number(row[name], f"points[{i}].{name}", whole=whole) for i, row in enumerate(rows)]


def _truth(value: Any, where: str) -> bool:
    """True or false, also as 1 or 0."""
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise GroundingError(f"expected true or false in {where}, got {type(value).__name__}; correct it")
    return bool(value)
