"""The columns of `Tracks`, checked and put in order: n rows, each of one object at one moment."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.points import checked_label, checked_number

LARGEST_WHOLE = 2.0**63
"""Whole numbers are smaller than this, so that they fit 64 bits."""


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


def checked_columns(
    columns: Columns, size: Any, fps: Any, moments: Any, labels: Mapping[int, str] | None
) -> tuple[Columns, About]:
    """The same as arrays of the right type, rows in the order of time and object.

    Raises:
        GroundingError: see `Tracks`.
    """
    arrays = _arrays(columns)
    order = np.lexsort((arrays.object_id, arrays.time))
    in_order = {}
    for name, column in arrays._asdict().items():
        in_order[name] = None if column is None else column[order]
    arrays = Columns(**in_order)
    _check_rows(arrays)
    about = About(
        size=_size(size),
        fps=None if fps is None else checked_rate(fps, "or None if unknown"),
        moments=_moments(moments, arrays.time),
        labels=_labels(labels, arrays.object_id),
    )
    return arrays, about


def _arrays(columns: Columns) -> Columns:
    """Every column as an array (n,) of its type."""
    count = _as_array(columns.time, "time").size
    visible = np.ones(count, dtype=bool)
    if columns.visible is not None:
        visible = _numbers(columns.visible, "visible")
    is_truth = np.isin(visible, (0, 1))
    if not is_truth.all():
        raise GroundingError(f"expected True or False in column visible, got {visible[~is_truth][0]}")
    score = np.full(count, np.nan)
    if columns.score is not None:
        score = _numbers(columns.score, "score")
    arrays = Columns(
        time=_numbers(columns.time, "time"),
        x=_numbers(columns.x, "x"),
        y=_numbers(columns.y, "y"),
        frame=None if columns.frame is None else _whole_numbers(columns.frame, "frame"),
        object_id=_whole_numbers(columns.object_id, "object_id"),
        visible=visible.astype(bool),
        score=score,
    )
    for name, column in arrays._asdict().items():
        if column is not None and column.shape != (count,):
            raise GroundingError(
                f"expected {count} values in column {name}, one per row, got shape {column.shape}"
            )
    return arrays


def _numbers(column: Any, name: str) -> np.ndarray:
    """float64."""
    given = _as_array(column, name)
    try:
        return given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise GroundingError(f"expected numbers in column {name}, got {error}") from error


def _as_array(column: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(column)
    except (TypeError, ValueError, OverflowError) as error:
        raise GroundingError(f"expected a column of numbers for {name}, got {error}") from error


def _whole_numbers(column: Any, name: str) -> np.ndarray:
    """int64, from numbers that are whole."""
    given = _as_array(column, name)
    if given.dtype.kind != "i" and given.size:
        exact = _numbers(column, name)
        is_whole = (exact == np.rint(exact)) & (np.abs(exact) < LARGEST_WHOLE)
        if not is_whole.all():
            raise GroundingError(
                f"expected whole numbers of 64 bits in column {name}, got {exact[~is_whole][0]}"
            )
    return given.astype(np.int64)


def _check_rows(columns: Columns) -> None:
    """Raises GroundingError for values out of range, and for rows (in order) that contradict each other."""
    for name in ("time", "x", "y"):
        column = getattr(columns, name)
        is_finite = np.isfinite(column)
        if not is_finite.all():
            raise GroundingError(f"expected finite numbers in column {name}, got {column[~is_finite][0]}")
    time, score = columns.time, columns.score
    if (time < 0).any():
        raise GroundingError(
            f"expected times of 0 or more seconds from the start of the clip, got {time.min()}"
        )
    is_outside = (score < 0) | (score > 1)  # not NaN
    if is_outside.any():
        raise GroundingError(f"expected scores in 0..1 or NaN, got {score[is_outside][0]}")
    same_time = np.diff(time) == 0  # (n - 1,) of rows and those after them
    twice = np.flatnonzero(same_time & (np.diff(columns.object_id) == 0))
    if twice.size:
        raise GroundingError(
            f"expected one place per object and time, got several of object {columns.object_id[twice[0]]} "
            f"at {time[twice[0]]:g} s; "
            "keep one of them"
        )
    if columns.frame is not None:
        _check_frames(columns.frame, same_time)


def _check_frames(frame: np.ndarray, same_time: np.ndarray) -> None:
    """Raises GroundingError for numbers (n,) of frames that do not fit times, which are equal for some rows
    and those after them.
    """
    if (frame < 0).any():
        raise GroundingError(f"expected numbers of frames from 0, got {frame.min()}")
    steps = np.diff(frame)  # (n - 1,)
    if (same_time & (steps != 0)).any() or (steps < 0).any():
        raise GroundingError(
            "expected numbers of frames that rise with time and are equal at equal times, got others"
        )


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    values = _as_array(size, "size")
    if values.shape != (2,) or values.dtype.kind not in "iu" or (values < 1).any():
        raise GroundingError(f"expected size as (width, height) in pixels, got {size!r}")
    return int(values[0]), int(values[1])


def checked_rate(fps: Any, purpose: str) -> float:
    """Frames per second.

    Args:
        fps: as given or read.
        purpose: what they are for, for the message.

    Raises:
        GroundingError: they are no number above 0.
    """
    found = math.nan
    got = type(fps).__name__
    if fps is None:
        got = "None"
    elif isinstance(fps, int | float | np.number) and not isinstance(fps, bool):
        with contextlib.suppress(
            OverflowError
        ):  # integers beyond every float, which are too long to be shown, too
            found = float(fps)
            got = str(fps)
    if math.isfinite(found) and found > 0:
        return found
    raise GroundingError(f"expected fps above 0 {purpose}, got {got}; pass that of the video")


def _moments(moments: Any, time: np.ndarray) -> np.ndarray:
    """(T,) ascending, each once."""
    if moments is None:
        return np.unique(time)
    given = np.unique(_numbers(moments, "moments").reshape(-1))  # (T,)
    is_time = np.isfinite(given) & (given >= 0)
    if not is_time.all():
        raise GroundingError(f"expected moments of 0 or more seconds, got {given[~is_time][0]}")
    is_there = np.isin(time, given)
    if not is_there.all():
        raise GroundingError(
            f"expected the times of all rows among the moments, got {time[~is_there][0]} s beside them"
        )
    return given


def _labels(labels: Mapping[int, str] | None, object_id: np.ndarray) -> dict[int, str] | None:
    """Labels in the order of numbers, None without any."""
    if not labels:
        return None
    if not isinstance(labels, Mapping):
        raise GroundingError(
            f"expected labels as a mapping from numbers of objects to phrases, got {type(labels).__name__}"
        )
    checked: dict[int, str] = {}
    for key, label in labels.items():
        number = int(checked_number(key, "the numbers of labels", whole=True))
        if not isinstance(label, str):
            raise GroundingError(
                f"expected phrases as labels, got {type(label).__name__} for object {number}"
            )
        checked[number] = checked_label(label, f"the label of object {number}") or ""
    unknown = checked.keys() - set(object_id.tolist())
    if unknown:
        raise GroundingError(f"expected labels of objects that have rows, got one for object {min(unknown)}")
    return dict(sorted(checked.items()))
