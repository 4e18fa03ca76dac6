"""Where an object is between the moments it was seen at.

Letters: n known points of one object, m wanted times, k of them at which it has a place, T moments at which
it was looked for.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from molmopoint.errors import GroundingError

SAME_TIME = 1e-6
"""Seconds within which two times are the same; sums of times in binary floating point are off by less."""


MOST_TIMES = 1_000_000
"""Moments that are filled in: an hour at 250 points per second. Each costs memory for every object."""

_COUNTED = 2.0**53
"""Largest multiple of a rate that a float tells from its neighbours."""


class Resampled(NamedTuple):
    """Those of the wanted times at which an object has a place.

    Attributes:
        index: (k,) int64 into the wanted times.
        xy: (k, 2) pixels.
        visible: (k,) bool.
        known: (k,) int64 the known point that a row stands for, -1 for one in between.
    """

    index: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    known: np.ndarray


def wanted_times(fps: float | None, times: Any, known: np.ndarray) -> tuple[np.ndarray, float]:
    """At which times objects are wanted, and how far a known point may move to one.

    Args:
        fps: a regular rate that covers the known times.
        times: or seconds.
        known: (n,) seconds of all points, ascending.

    Raises:
        GroundingError: neither fps nor times or both, or a number out of range.
    """
    if (fps is None) == (times is None):
        raise GroundingError(
            "expected either fps or times, got both or neither; pass the rate of the video as fps"
        )
    if fps is None:
        wanted = np.unique(np.asarray(times, dtype=np.float64).reshape(-1))
        if not np.isfinite(wanted).all() or (wanted < 0).any():
            raise GroundingError(f"expected times of 0 or more seconds, got {np.asarray(times).tolist()}")
        return wanted, 0.0
    if isinstance(fps, bool) or not (math.isfinite(fps) and fps > 0):
        raise GroundingError(f"expected fps above 0, got {fps!r}; pass the rate of the video")
    if not len(known):
        return np.empty(0), 0.5 / fps
    if (known[-1] - known[0]) * fps > MOST_TIMES or known[-1] * fps > _COUNTED:
        raise GroundingError(
            f"expected fps that gives at most {MOST_TIMES:,} moments between the first and the last point, got {fps:g}; "
            "the rate of the video is enough"
        )
    first = math.floor(known[0] * fps + 0.5)
    last = math.floor(known[-1] * fps + 0.5)
    return np.arange(first, last + 1) / fps, 0.5 / fps


def check_max_gap(max_gap: float | None) -> None:
    """Raises GroundingError where a limit on gaps is none."""
    if max_gap is not None and (isinstance(max_gap, bool) or not max_gap >= 0):
        raise GroundingError(
            f"expected max_gap to be 0 or more seconds, or None for no limit, got {max_gap!r}"
        )


def resample(
    time: np.ndarray,
    xy: np.ndarray,
    visible: np.ndarray,
    moments: np.ndarray,
    wanted: np.ndarray,
    reach: float,
    max_gap: float | None,
) -> Resampled:
    """Places of one object at other times, on straight lines between known points.

    Args:
        time: (n,) seconds of the known points, ascending, at least one.
        xy: (n, 2) pixels.
        visible: (n,) bool.
        moments: (T,) seconds at which the object was looked for, ascending.
        wanted: (m,) seconds, ascending.
        reach: seconds by which a known point may move to the nearest wanted time where no line leads there.
        max_gap: seconds between known points beyond which there is no line; None for no limit.
    """
    left, right = _neighbours(time, wanted)  # (m,) each
    nearest = np.where(wanted - time[left] <= time[right] - wanted, left, right)

    # A wanted time takes the place of a known point, or one on the line between its neighbours, or none.
    is_known = np.abs(wanted - time[nearest]) <= SAME_TIME
    has_line = (wanted >= time[0]) & (wanted <= time[-1])
    if len(time) < 2:
        has_line[:] = False
    if max_gap is not None:
        has_line &= time[right] - time[left] <= max_gap + SAME_TIME
    is_reached = np.zeros(len(wanted), dtype=bool)
    is_reached[_nearest(wanted, time, reach)] = True
    is_between = has_line & ~is_known

    x_on_line = np.interp(wanted, time, xy[:, 0])
    y_on_line = np.interp(wanted, time, xy[:, 1])
    on_line = np.stack([x_on_line, y_on_line], axis=1)  # (m, 2)
    places = np.where(is_between[:, None], on_line, xy[nearest])

    # Where an object was looked for and not found between two points, it is not known to be in sight anywhere
    # between them.
    looks_before = np.searchsorted(moments, time[left] + SAME_TIME)
    looks_until = np.searchsorted(moments, time[right] - SAME_TIME)
    visible_between = visible[left] & visible[right] & (looks_until <= looks_before)
    is_visible = np.where(is_between & ~is_reached, visible_between, visible[nearest])

    stands_for = np.where(is_known | is_reached, nearest, -1)
    index = np.flatnonzero(is_known | has_line | is_reached)
    return Resampled(index, places[index], is_visible[index], stands_for[index])


def _neighbours(time: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (m,) of the known times on either side of each wanted one; outside, those of the first or last
    pair.
    """
    if len(time) < 2:
        only = np.zeros(len(wanted), dtype=np.int64)
        return only, only
    right = np.searchsorted(time, wanted).clip(1, len(time) - 1)
    return right - 1, right


def _nearest(wanted: np.ndarray, time: np.ndarray, reach: float) -> np.ndarray:
    """Index of the wanted time nearest to each known one, the earlier on ties; without those out of reach."""
    if not len(wanted):
        return np.zeros(0, dtype=np.int64)
    right = np.searchsorted(wanted, time).clip(0, len(wanted) - 1)
    left = np.maximum(right - 1, 0)
    chosen = np.where(time - wanted[left] <= np.abs(wanted[right] - time), left, right)
    return chosen[np.abs(wanted[chosen] - time) <= reach + SAME_TIME]
