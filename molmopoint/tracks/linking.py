"""One set of tracks out of windows that share some moments.

Each window has numbers of its own. At the moments that two windows share, the same object is at nearly the
same place in both: objects are paired so that the sum of their mean distances there is smallest, and no pair
is farther apart than a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used

from molmopoint.errors import GroundingError
from molmopoint.tracks.table import Tracks


def link(windows: Sequence[Tracks], reach: float) -> Tracks:
    """The windows as one, with the numbers of the first; objects that a later window adds are numbered on.

    At a shared moment the earlier window's place of an object is kept. What cannot be linked gets a new
    number: an object that is in no shared moment of both windows, or that moved there by more than the limit.

    Args:
        windows: one or more, in the order of time, each sharing moments with the one before; times count from
            one start.
        reach: pixels within which two places are of one object.

    Raises:
        GroundingError: no windows, or two of them that share no moment.
    """
    if not windows:
        raise GroundingError("expected one window of tracks or more, got none")
    joined = windows[0]
    for window in windows[1:]:
        if len(joined.moments) and len(window.moments) and not np.isin(window.moments, joined.moments).any():
            raise GroundingError(
                f"expected windows that share a moment, got one up to {joined.moments[-1]:g} s and one from "
                f"{window.moments[0]:g} s"
            )
        joined = _joined(joined, window.renumbered(_numbers(joined, window, reach)))
    return joined


def pairs_within(distances: np.ndarray, reach: float) -> list[tuple[int, int]]:
    """(row, column) of the pairs of a table (n, m) of distances whose sum is smallest, without those beyond
    the reach.
    """
    # What is out of reach costs more than all pairs within reach together, so it is never chosen in place of
    # one of them.
    costly = 1.0 + reach * (1 + min(distances.shape))
    rows, columns = scipy.optimize.linear_sum_assignment(np.where(distances <= reach, distances, costly))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if distances[row, column] <= reach]


def _numbers(earlier: Tracks, later: Tracks, reach: float) -> dict[int, int]:
    """The number in `earlier` of every object of `later`; new ones for those that are not there."""
    old, new = earlier.object_ids, later.object_ids
    numbers: dict[int, int] = {}
    for i, j in pairs_within(_mean_distances(earlier, later), reach):
        numbers[new[j]] = old[i]
    following = 1 + max(old, default=0)
    for number in new:
        if number not in numbers:
            numbers[number] = following
            following += 1
    return numbers


def _mean_distances(earlier: Tracks, later: Tracks) -> np.ndarray:
    """(objects of `earlier`, objects of `later`) pixels: mean over the moments two objects share, infinite
    without any.
    """
    old = [_places(earlier, number) for number in earlier.object_ids]
    new = [_places(later, number) for number in later.object_ids]
    distances = np.full((len(old), len(new)), np.inf)
    for i, first in enumerate(old):
        for j, second in enumerate(new):
            shared = sorted(first.keys() & second.keys())
            if shared:
                gaps = np.array([first[time] - second[time] for time in shared])  # (moments, 2)
                distances[i, j] = np.hypot(gaps[:, 0], gaps[:, 1]).mean()
    return distances


def _places(tracks: Tracks, number: int) -> dict[float, np.ndarray]:
    """Seconds to (2,) pixels of one object."""
    track = tracks.track(number)
    return dict(zip(track.time.tolist(), track.xy, strict=True))


def _joined(earlier: Tracks, later: Tracks) -> Tracks:
    """Rows of both; where both have an object at a moment, the earlier one's."""
    taken = set(zip(earlier.object_id.tolist(), earlier.time.tolist(), strict=True))
    candidates = zip(later.object_id.tolist(), later.time.tolist(), strict=True)
    is_new = [place not in taken for place in candidates]
    added = later.where(np.array(is_new, dtype=bool))

    columns: dict[str, Any] = {}
    for name in ("object_id", "time", "x", "y", "visible", "score"):
        columns[name] = np.concatenate([getattr(earlier, name), getattr(added, name)])
    columns["frame"] = None
    if earlier.frame is not None and added.frame is not None:
        columns["frame"] = np.concatenate([earlier.frame, added.frame])
    columns["moments"] = np.union1d(earlier.moments, later.moments)
    columns["labels"] = {**(later.labels or {}), **(earlier.labels or {})}
    return replace(earlier, **columns)
