"""The columns of `Tracks`, checked and put in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from molmopoint.errors import GroundingError

_LARGEST = 2.0**63


class Columns(NamedTuple):
    """One value per row; see `Tracks`."""

    object_id: Any
    time: Any
    x: Any
    y: Any
    visible: Any = None
    score: Any = None
    frame: Any = None


class About(NamedTuple):
    """What rows share; see `Tracks`."""

    size: tuple[int, int] | None
    fps: float | None
    moments: np.ndarray
    labels: dict[int, str] | None


def checked_columns(columns: Columns, size: Any, fps: Any, moments: Any, labels: Mapping[int, str] | None) -> tuple[Columns, About]:
    """The same as arrays of the right type, rows in the order of time and object.

    Raises:
        GroundingError: see `Tracks`.
    """
    arrays = _arrays(columns)
    order = np.lexsort((arrays.object_id, arrays.time))
    arrays = Columns(*(None if column is None else column[order] for column in arrays))
    _check_rows(arrays)
    return arrays, About(_size(size), _rate(fps), _moments(moments, arrays.time), _labels(labels, arrays.object_id))


def _arrays(columns: Columns) -> Columns:
    count = np.size(columns.time)
    visible = np.ones(count, dtype=bool) if columns.visible is None else np.asarray(columns.visible)
    if visible.dtype != bool and not np.isin(visible, (0, 1)).all():
        raise GroundingError(f"expected True or False in column visible, got {visible[~np.isin(visible, (0, 1))][0]}")
    score = np.full(count, np.nan) if columns.score is None else np.asarray(columns.score, dtype=np.float64)
    time, x, y = (np.asarray(column, dtype=np.float64) for column in (columns.time, columns.x, columns.y))
    frame = None if columns.frame is None else _whole(columns.frame, "frame")
    arrays = Columns(_whole(columns.object_id, "object_id"), time, x, y, visible.astype(bool), score, frame)
    for name, column in arrays._asdict().items():
        if column is not None and column.shape != (count,):
            raise GroundingError(f"expected {count} values in column {name}, one per row, got shape {column.shape}")
    return arrays


def _whole(column: Any, name: str) -> np.ndarray:
    """int64, from numbers that are whole."""
    given = np.asarray(column)
    if given.dtype.kind not in "iu" and given.size:
        exact = given.astype(np.float64)
        if (wrong := ~((exact == np.rint(exact)) & (np.abs(exact) < _LARGEST))).any():
            raise GroundingError(f"expected whole numbers of 64 bits in column {name}, got {exact[wrong][0]}")
    return given.astype(np.int64)


def _check_rows(columns: Columns) -> None:
    """Raises GroundingError for values out of range, and for rows (in order) that contradict each other."""
    for name in ("time", "x", "y"):
        column = getattr(columns, name)
        if not np.isfinite(column).all():
            raise GroundingError(f"expected finite numbers in column {name}, got {column[~np.isfinite(column)][0]}")
    time, score, frame = columns.time, columns.score, columns.frame
    if (time < 0).any():
        raise GroundingError(f"expected times of 0 or more seconds from the start of the clip, got {time.min()}")
    if ((score < 0) | (score > 1)).any():
        raise GroundingError(f"expected scores in 0..1 or NaN, got {score[(score < 0) | (score > 1)][0]}")
    same_time = np.diff(time) == 0
    twice = np.flatnonzero(same_time & (np.diff(columns.object_id) == 0))
    if twice.size:
        raise GroundingError(
            f"expected one place per object and time, got several of object {columns.object_id[twice[0]]} at {time[twice[0]]:g} s; "
            "keep one of them"
        )
    if frame is None:
        return
    if (frame < 0).any():
        raise GroundingError(f"expected numbers of frames from 0, got {frame.min()}")
    if (same_time & (np.diff(frame) != 0)).any() or (np.diff(frame) < 0).any():
        raise GroundingError("expected numbers of frames that rise with time and are equal at equal times, got others")


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    values = np.asarray(size)
    if values.shape != (2,) or values.dtype.kind not in "iu" or (values < 1).any():
        raise GroundingError(f"expected size as (width, height) in pixels, got {size!r}")
    return int(values[0]), int(values[1])


def _rate(fps: Any) -> float | None:
    if fps is None:
        return None
    if isinstance(fps, bool) or not isinstance(fps, (int, float, np.number)) or not (math.isfinite(fps) and fps > 0):
        raise GroundingError(f"expected fps above 0, or None if unknown, got {fps!r}")
    return float(fps)


def _moments(moments: Any, time: np.ndarray) -> np.ndarray:
    """(T,) ascending, each once."""
    if moments is None:
        return np.unique(time)
    given = np.unique(np.asarray(moments, dtype=np.float64).reshape(-1))
    if not np.isfinite(given).all() or (given < 0).any():
        raise GroundingError(f"expected moments of 0 or more seconds, got {np.asarray(moments).tolist()}")
    if not np.isin(time, given).all():
        raise GroundingError(f"expected the times of all rows among the moments, got {time[~np.isin(time, given)][0]} s beside them")
    return given


def _labels(labels: Mapping[int, str] | None, object_id: np.ndarray) -> dict[int, str] | None:
    """Labels in the order of numbers, None without any."""
    if not labels:
        return None
    if not isinstance(labels, Mapping) or not all(isinstance(label, str) for label in labels.values()):
        raise GroundingError(f"expected labels as a mapping from numbers of objects to phrases, got {labels!r}")
    checked = {int(number): labels[number] for number in sorted(labels)}
    if unknown := checked.keys() - set(object_id.tolist()):
        raise GroundingError(f"expected labels of objects that have rows, got one for object {min(unknown)}")
    return checked
