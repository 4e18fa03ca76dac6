"""The columns of `Tracks`, checked and put in order.

What the readers of all file forms share.

The plain form of `Tracks`, which JSON holds and which every other file form is made from.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.points import checked_label, checked_number

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


def document_of(
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[int, str | None],
    *,
    fps: float | None = None,
    size: Any = None,
    moments: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The plain form of tracks, from rows and what is known beside them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "size": size,
        "fps": fps,
        "moments": moments,
        "objects": [{"object_id": number, "label": label} for number, label in labels.items()],
        "points": rows,
    }


def number(value: Any, where: str, *, whole: bool = False) -> Any:
    """A finite number from a file, as int where it must be whole.

    Raises:
        GroundingError: it is none; `where` tells its place.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    fits = math.isfinite(found) and (not whole or (found == math.floor(found) and abs(found) < _LARGEST))
    if isinstance(value, bool) or not fits:
        is_shown = isinstance(value, str | float)
        got = f"{value!r:.40}" if is_shown else type(value).__name__
        raise GroundingError(f"expected a {'whole ' * whole}number{' of 64 bits' * whole} in {where}, got {got}")
    return int(value if isinstance(value, int) or str(value).strip().lstrip("+-").isdecimal() else found) if whole else found


def box_size(box: Any) -> tuple[float, float]:
    """(width, height) of the boxes that stand for points, in pixels.

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
    frames_per_second = None if fps is None else rate(fps, "or None if unknown")
    about = About(_size(size), frames_per_second, _moments(moments, arrays.time), _labels(labels, arrays.object_id))
    return arrays, about


def _arrays(columns: Columns) -> Columns:
    count = _as_array(columns.time, "time").size
    visible = np.ones(count, dtype=bool) if columns.visible is None else _numbers(columns.visible, "visible")
    if (wrong := ~np.isin(visible, (0, 1))).any():
        raise GroundingError(f"expected True or False in column visible, got {visible[wrong][0]}")
    score = np.full(count, np.nan) if columns.score is None else _numbers(columns.score, "score")
    time, x, y = (_numbers(getattr(columns, name), name) for name in ("time", "x", "y"))
    frame = None if columns.frame is None else _whole(columns.frame, "frame")
    arrays = Columns(_whole(columns.object_id, "object_id"), time, x, y, visible.astype(bool), score, frame)
    for name, column in arrays._asdict().items():
        if column is not None and column.shape != (count,):
            raise GroundingError(f"expected {count} values in column {name}, one per row, got shape {column.shape}")
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


def _whole(column: Any, name: str) -> np.ndarray:
    """int64, from numbers that are whole."""
    given = _as_array(column, name)
    if given.dtype.kind != "i" and given.size:
        exact = _numbers(column, name)
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
    values = _as_array(size, "size")
    if values.shape != (2,) or values.dtype.kind not in "iu" or (values < 1).any():
        raise GroundingError(f"expected size as (width, height) in pixels, got {size!r}")
    return int(values[0]), int(values[1])


def rate(fps: Any, purpose: str) -> float:
    """Frames per second.

    Args:
        fps: as given or read.
        purpose: what they are for, for the message.

    Raises:
        GroundingError: they are no number above 0.
    """
    found = math.nan
    is_number = isinstance(fps, int | float | np.number) and not isinstance(fps, bool)
    if is_number:
        with contextlib.suppress(OverflowError):  # integers beyond every float
            found = float(fps)
    if math.isfinite(found) and found > 0:
        return found
    is_shown = fps is None or (is_number and not (isinstance(fps, int) and math.isnan(found)))
    raise GroundingError(f"expected fps above 0 {purpose}, got {fps if is_shown else type(fps).__name__}; pass that of the video")


def _moments(moments: Any, time: np.ndarray) -> np.ndarray:
    """(T,) ascending, each once."""
    if moments is None:
        return np.unique(time)
    given = np.unique(_numbers(moments, "moments").reshape(-1))
    if (wrong := ~(np.isfinite(given) & (given >= 0))).any():
        raise GroundingError(f"expected moments of 0 or more seconds, got {given[wrong][0]}")
    if not np.isin(time, given).all():
        raise GroundingError(f"expected the times of all rows among the moments, got {time[~np.isin(time, given)][0]} s beside them")
    return given


def _labels(labels: Mapping[int, str] | None, object_id: np.ndarray) -> dict[int, str] | None:
    """Labels in the order of numbers, None without any."""
    if not labels:
        return None
    if not isinstance(labels, Mapping):
        raise GroundingError(f"expected labels as a mapping from numbers of objects to phrases, got {type(labels).__name__}")
    checked: dict[int, str] = {}
    for key, label in labels.items():
        number = int(checked_number(key, "the numbers of labels", whole=True))
        if not isinstance(label, str):
            raise GroundingError(f"expected phrases as labels, got {type(label).__name__} for object {number}")
        checked[number] = checked_label(label, f"the label of object {number}") or ""
    checked = {number: checked[number] for number in sorted(checked)}
    if unknown := checked.keys() - set(object_id.tolist()):
        raise GroundingError(f"expected labels of objects that have rows, got one for object {min(unknown)}")
    return checked
