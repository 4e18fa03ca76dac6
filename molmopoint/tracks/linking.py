"""One set of tracks out of windows that share some moments.

Each window has numbers of its own. At the moments that two windows share, the same object is at nearly the same place in both:
objects are paired so that the sum of their mean distances there is smallest, and no pair is farther apart than a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from molmopoint.errors import GroundingError
from molmopoint.tracks.table import Tracks


def link(windows: Sequence[Tracks], reach: float) -> Tracks:
    """The windows as one, with the numbers of the first; objects that a later window adds are numbered on.

    At a shared moment the earlier window's place of an object is kept. What cannot be linked gets a new number: an object that is
    in no shared moment of both windows, or that moved there by more than the limit.

    Args:
        windows: one or more, in the order of time, each sharing moments with the one before; times count from one start.
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
                f"expected windows that share a moment, got one up to {joined.moments[-1]:g} s and one from {window.moments[0]:g} s"
            )
        joined = _joined(joined, window.renumbered(_numbers(joined, window, reach)))
    return joined


def pairs_within(distances: np.ndarray, reach: float) -> list[tuple[int, int]]:
    """(row, column) of the pairs of a table (n, m) of distances whose sum is smallest, without those beyond the reach."""
    # What is out of reach costs more than all pairs within reach together, so it is never chosen in place of one of them.
    costly = 1.0 + reach * (1 + min(distances.shape))
    rows, columns = linear_sum_assignment(np.where(distances <= reach, distances, costly))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if distances[row, column] <= reach]


def _numbers(earlier: Tracks, later: Tracks, reach: float) -> dict[int, int]:
    """The number in `earlier` of every object of `later`; new ones for those that are not there."""
    old, new = earlier.object_ids, later.object_ids
    distances = np.full((len(old), len(new)), np.inf)
    tables = [{number: _places(tracks, number) for number in ids} for tracks, ids in ((earlier, old), (later, new))]
    for i, first in enumerate(old):
        for j, second in enumerate(new):
            shared = tables[0][first].keys() & tables[1][second].keys()
            if shared:
                distances[i, j] = np.mean([np.hypot(*(tables[0][first][time] - tables[1][second][time])) for time in shared])
    known = {new[j]: old[i] for i, j in pairs_within(distances, reach)}
    following = 1 + max(old, default=0)
    rest = [number for number in new if number not in known]
    return known | {number: following + i for i, number in enumerate(rest)}


def _places(tracks: Tracks, number: int) -> dict[float, np.ndarray]:
    track = tracks.track(number)
    return dict(zip(track.time.tolist(), track.xy, strict=True))


def _joined(earlier: Tracks, later: Tracks) -> Tracks:
    """Rows of both; where both have an object at a moment, the earlier one's."""
    taken = set(zip(earlier.object_id.tolist(), earlier.time.tolist(), strict=True))
    fresh = [place not in taken for place in zip(later.object_id.tolist(), later.time.tolist(), strict=True)]
    added = later.where(np.array(fresh, dtype=bool))
    names = ("object_id", "time", "x", "y", "visible", "score")
    columns = {name: np.concatenate([getattr(earlier, name), getattr(added, name)]) for name in names}
    frame = None if earlier.frame is None or added.frame is None else np.concatenate([earlier.frame, added.frame])
    moments = np.union1d(earlier.moments, later.moments)
    return replace(earlier, **columns, frame=frame, moments=moments, labels={**(later.labels or {}), **(earlier.labels or {})})
