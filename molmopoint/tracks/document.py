"""The plain form of `Tracks`, which JSON holds and which every other file form is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from molmopoint.errors import GroundingError
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
        columns = {name: [row[name] for row in rows] for name in ("object_id", "time", "x", "y", "visible")}
        return {
            **{name: np.array(values, dtype=np.float64) for name, values in columns.items() if name != "object_id"},
            "object_id": np.array(columns["object_id"], dtype=np.int64),
            "score": np.array([math.nan if row["score"] is None else row["score"] for row in rows], dtype=np.float64),
            "frame": np.array([row["frame"] for row in rows], dtype=np.int64) if rows and all("frame" in row for row in rows) else None,
            "size": document["size"],
            "fps": document["fps"],
            "moments": document["moments"],
            "labels": {int(each["object_id"]): each["label"] for each in document["objects"] if each["label"] is not None},
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise GroundingError(f"expected a document as Tracks.to_dict writes it, got one without a proper {error}") from error
