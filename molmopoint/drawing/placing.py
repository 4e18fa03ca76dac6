"""Where labels go: beside their point if there is room, else as near as possible, and never on a marker or on
another label.

Labels are placed one after the other, those with the most room first. Each takes the nearest free place around
its point; of equally near ones that whose leader line crosses least. What is taken is kept in a coarse grid,
whose sums tell for hundreds of places at once whether they are free. Nothing here is random: equal points give
equal places.

Letters: n labels, m boxes that are in the way, c candidates. A box is left, top, right, bottom in pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

_CROSSING = 1.5
"""Steps of distance that a label goes further so that its leader line crosses one thing less."""

_COMPARED = 24
"""Free places of a label, the nearest ones, whose leader lines are compared."""

_MOST_COMPARED = 600
"""Labels beyond which each takes the nearest free place, whatever its line crosses."""

_CELLS_PER_LINE = 5
"""Cells of the grid within the height of a line."""

_FARTHER = 1.12
"""How much each step away from a point is longer than the one before."""


class Candidates(NamedTuple):
    """Places around a point, the nearest ones first.

    Attributes:
        step: (c,) how many steps away, 0 beside the point.
        distance: (c,) pixels from the marker.
        direction: (c, 2) unit vectors.
    """

    step: np.ndarray
    distance: np.ndarray
    direction: np.ndarray

    @classmethod
    def up_to(cls, farthest: float, line: float) -> Candidates:
        """Rings of places in steps that grow.

        Args:
            farthest: pixels.
            line: height of a line, the first step.
        """
        steps, distances, directions = [], [], []
        distance, ring = 0.0, 0
        while distance <= farthest or ring < 2:
            angles = _angles(ring)  # (k,)
            steps.append(np.full(len(angles), float(ring)))
            distances.append(np.full(len(angles), distance))
            directions.append(np.stack([np.cos(angles), np.sin(angles)], axis=1))
            distance += 0.7 * line * _FARTHER**ring
            ring += 1
        return cls(np.concatenate(steps), np.concatenate(distances), np.concatenate(directions))

    def boxes(
        self, point: np.ndarray, clearance: np.ndarray, size: np.ndarray, picture: tuple[int, int]
    ) -> np.ndarray:
        """(c, 4) boxes at whole pixels around a point, pushed into the picture where they would leave it.

        Args:
            point: (2,) pixels.
            clearance: (2,) pixels from it to the sides, and up and down, that stay free.
            size: (2,) width and height of the boxes.
            picture: width and height.
        """
        # A box touches the ring with a side where it is straight right, left, above or below, else with a corner.
        shift = np.clip(self.direction * math.sqrt(2), -1, 1) * (clearance + size / 2)
        corner = np.round(point + self.direction * self.distance[:, None] + shift - size / 2)
        corner = np.clip(corner, 0, np.maximum(np.array(picture) - size, 0))
        return np.concatenate([corner, corner + size], axis=1)


def _angles(ring: int) -> np.ndarray:
    """Directions of a ring, the preferred ones first: right, left, below, above, then between."""
    number = 8 if ring == 0 else 16 if ring < 4 else 28
    angles = np.arange(number) / number * 2 * np.pi
    # Far from 0 and pi means less readable; ties go to the right, and up.
    order = np.lexsort((np.sin(angles), -np.cos(angles) > 0, np.abs(np.sin(angles)).round(6)))
    return angles[order]


class Grid:
    """Which parts of a picture are taken.

    Args:
        size: width and height of the picture.
        cell: pixels along a side of a cell.
    """

    def __init__(self, size: tuple[int, int], cell: float) -> None:
        self._cell = cell
        columns, rows = (max(1, math.ceil(side / cell)) for side in size)
        self._limit = np.array([columns, rows, columns, rows])
        self._taken = np.zeros((rows, columns), dtype=np.int32)
        self._sums = np.zeros((rows + 1, columns + 1), dtype=np.int32)

    def take(self, boxes: np.ndarray) -> None:
        """Marks boxes (m, 4), and every cell that they touch."""
        for left, top, right, bottom in self._cells(boxes).tolist():
            self._taken[top:bottom, left:right] = 1
        np.cumsum(np.cumsum(self._taken, axis=0), axis=1, out=self._sums[1:, 1:])

    def is_free(self, boxes: np.ndarray) -> np.ndarray:
        """(c,) bool, whether nothing of the boxes (c, 4) is taken."""
        left, top, right, bottom = self._cells(boxes).T
        sums = self._sums
        return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left] == 0

    def _cells(self, boxes: np.ndarray) -> np.ndarray:
        """(m, 4) whole cells around boxes, inside the grid."""
        low = np.floor(boxes[:, :2] / self._cell)
        high = np.ceil(boxes[:, 2:] / self._cell)
        return np.clip(np.concatenate([low, high], axis=1).astype(np.int64), 0, self._limit)


class Placed(NamedTuple):
    """Where labels are.

    Attributes:
        boxes: (n, 4), NaN where there is no free place.
        moved: (n,) bool, whether a label is so far from its point that a line has to link them.
    """

    boxes: np.ndarray
    moved: np.ndarray


def place_labels(
    size: tuple[int, int],
    points: np.ndarray,
    reach: np.ndarray,
    markers: np.ndarray,
    sizes: np.ndarray,
    line: float,
) -> Placed:
    """Places for labels.

    Args:
        size: width and height of the picture.
        points: (n, 2) pixels.
        reach: (n, 2) pixels from each point to the sides of its marker, and up and down.
        markers: (m, 4) boxes of all markers, also of points without a label.
        sizes: (n, 2) width and height of each label; 0 for none.
        line: height of a line in pixels.
    """
    cell = max(1.0, line // _CELLS_PER_LINE)  # whole pixels, as the places of labels are
    grid = Grid(size, cell)
    grid.take(markers)
    clearance = reach + cell  # what rounding up to cells takes
    around = Candidates.up_to(math.hypot(*size), line)
    boxes = np.full((len(points), 4), np.nan)
    moved = np.zeros(len(points), dtype=bool)
    wanted = np.flatnonzero(sizes[:, 0] > 0)
    compares = len(wanted) <= _MOST_COMPARED
    lines: list[np.ndarray] = []
    for i in _most_room_first(wanted, size, points, clearance, sizes, around, grid).tolist():
        candidates = around.boxes(points[i], clearance[i], sizes[i], size)  # (c, 4)
        free = np.flatnonzero(_inside(candidates, size) & grid.is_free(candidates))
        if not len(free):
            continue
        chosen = free[0]
        if compares and around.step[chosen] > 0:
            free = free[:_COMPARED]
            in_the_way = np.concatenate([_others(markers, points[i]), boxes[~np.isnan(boxes[:, 0])]])
            crossed = _crossings(points[i], candidates[free], in_the_way, lines)
            chosen = free[np.argmin(around.step[free] + _CROSSING * crossed)]
        boxes[i] = candidates[chosen]
        moved[i] = around.step[chosen] > 0
        if moved[i]:
            lines.append(np.concatenate([points[i], nearest_in(boxes[i : i + 1], points[i])[0]]))
        grid.take(boxes[i : i + 1])
    return Placed(boxes, moved)


def _most_room_first(
    wanted: np.ndarray,
    size: tuple[int, int],
    points: np.ndarray,
    clearance: np.ndarray,
    sizes: np.ndarray,
    around: Candidates,
    grid: Grid,
) -> np.ndarray:
    """The numbers of labels in the order in which they are placed: from the rim of a crowd to its middle."""
    nearest = []
    for i in wanted.tolist():
        candidates = around.boxes(points[i], clearance[i], sizes[i], size)
        free = np.flatnonzero(_inside(candidates, size) & grid.is_free(candidates))
        nearest.append(around.step[free[0]] if len(free) else np.inf)
    return wanted[np.argsort(nearest, kind="stable")]


def _inside(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(c,) bool, whether boxes (c, 4) lie in a picture."""
    return (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2] <= size[0]) & (boxes[:, 3] <= size[1])


def _others(markers: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The markers (k, 4) that do not hold a point (2,)."""
    holds = (markers[:, :2] <= point).all(axis=1) & (markers[:, 2:] >= point).all(axis=1)
    return markers[~holds]


def nearest_in(boxes: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(c, 2) place in each box (c, 4) that is nearest to a point (2,)."""
    return np.clip(point, boxes[:, :2], boxes[:, 2:])


def _crossings(
    point: np.ndarray, candidates: np.ndarray, in_the_way: np.ndarray, lines: list[np.ndarray]
) -> np.ndarray:
    """(c,) how many markers, labels and lines the leader line to each candidate (c, 4) crosses, and how many
    lines the candidate itself would hide.

    Args:
        point: (2,) where all lines begin.
        candidates: (c, 4).
        in_the_way: (m, 4) boxes of markers and labels.
        lines: of labels that are placed, (4,) each: x and y of both ends.
    """
    ends = nearest_in(candidates, point)  # (c, 2)
    starts = np.broadcast_to(point, ends.shape)
    crossed = _meet(starts, ends, in_the_way).sum(axis=1)
    if lines:
        placed = np.stack(lines)  # (l, 4)
        crossed = crossed + _meet(placed[:, :2], placed[:, 2:], candidates).sum(axis=0)
        crossed = crossed + _cross(starts, ends, placed[:, :2], placed[:, 2:]).sum(axis=1)
    return crossed


def _meet(starts: np.ndarray, ends: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(s, m) bool, whether straight lines from (s, 2) to (s, 2) go through boxes (m, 4)."""
    enter = np.zeros((len(starts), len(boxes)))  # share of the way at which a line is in all slabs
    leave = np.ones((len(starts), len(boxes)))
    for axis in (0, 1):
        length = ends[:, axis] - starts[:, axis]  # (s,)
        length = np.where(np.abs(length) < 1e-9, 1e-9, length)[:, None]
        one = (boxes[:, axis] - starts[:, axis, None]) / length  # (s, m)
        other = (boxes[:, axis + 2] - starts[:, axis, None]) / length
        np.maximum(enter, np.minimum(one, other), out=enter)
        np.minimum(leave, np.maximum(one, other), out=leave)
    return enter < leave


def _cross(
    starts: np.ndarray, ends: np.ndarray, other_starts: np.ndarray, other_ends: np.ndarray
) -> np.ndarray:
    """(s, l) bool, whether straight lines from (s, 2) to (s, 2) cross others from (l, 2) to (l, 2)."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        """On which side of the line from a to b a place c lies."""
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
            c[..., 0] - a[..., 0]
        )

    a, b = starts[:, None], ends[:, None]
    c, d = other_starts[None], other_ends[None]
    return (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
