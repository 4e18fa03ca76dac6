"""One point inside a mask or polygon, as far from the edge as possible.

The centroid of a ring, a horseshoe or two separate parts lies outside of them, and a model trained on such
targets learns to point beside things. The centre of the largest circle that fits is always inside, and it is
where a person would click.

Coordinates are pixels, x to the right and y downwards; the centre of the upper left pixel is (0.5, 0.5).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from molmopoint.errors import ProcessingError
from molmopoint.metrics.lookup import in_polygon

_TOLERANCE = 1.02
"""A search ends when no circle can be larger than the best one by more than this factor."""

_MAX_CELLS = 2000
"""Cells a search looks at; only slivers, where every place is as good as the next, come near it."""

_MAX_BANDS = 64
"""Horizontal lines on which a search begins."""

_QUARTERS = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)]) / 2
"""Middles of the quarters of a square, in parts of half its side."""


def mask_interior(mask: np.ndarray) -> tuple[float, float]:
    """Centre of the largest circle inside a mask; of several equally large ones that nearest to the centroid.

    Args:
        mask: (height, width), true inside.

    Returns:
        x and y, the centre of a pixel of the mask.

    Raises:
        ProcessingError: the mask is empty.
    """
    inside = np.asarray(mask) != 0  # (height, width)
    if inside.ndim != 2 or not inside.any():
        raise ProcessingError(
            f"expected a mask (height, width) with a pixel inside, got shape {inside.shape} without one; "
            "drop the object"
        )
    rows, columns = np.nonzero(inside)
    top, left = rows.min(), columns.min()
    window = inside[top : rows.max() + 1, left : columns.max() + 1]
    # What lies beyond the picture counts as outside, hence the padding.
    depth = np.asarray(distance_transform_edt(np.pad(window, 1)))
    deepest = np.argwhere(depth >= depth.max() - 1e-9) + np.array(
        (top - 1, left - 1)
    )  # (n, 2) row and column
    centroid = (rows.mean(), columns.mean())
    to_centroid = ((deepest - centroid) ** 2).sum(axis=1)  # (n,) squared
    row, column = deepest[np.argmin(to_centroid)]
    return float(column) + 0.5, float(row) + 0.5


def polygon_interior(rings: Sequence[np.ndarray]) -> tuple[float, float]:
    """Centre of the largest circle inside one of the parts of an object.

    Args:
        rings: (num_corners, 2) x and y of each part, closed or not. Where a ring crosses itself, inside is
            what an odd number of its windings surrounds. Corners that are no numbers, or fewer than 3, make
            no part.

    Returns:
        x and y, strictly inside one part.

    Raises:
        ProcessingError: no part has an area.
    """
    circles: list[_Circle] = []
    for ring in rings:
        circle = _largest_circle(np.asarray(ring, dtype=np.float64).reshape(-1, 2))
        if circle is not None:
            circles.append(circle)
    if not circles:
        raise ProcessingError(
            "expected a polygon with an area, got corners on one line or fewer than 3; correct or drop the "
            "object"
        )
    largest = max(circles)
    return largest.x, largest.y


def signed_distance(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """(num_points,) distance to the nearest edge of a ring (num_corners, 2), negative outside of it."""
    start, end = ring, np.roll(ring, -1, axis=0)  # (num_corners, 2)
    edge = end - start
    offset = points[:, None, :] - start  # (num_points, num_corners, 2)
    length = np.maximum((edge**2).sum(axis=1), np.finfo(np.float64).tiny)  # squared
    # Of the edge, where the point is nearest to it.
    along = np.clip((offset * edge).sum(axis=2) / length, 0.0, 1.0)
    beside = offset - along[..., None] * edge
    distance = np.sqrt((beside**2).sum(axis=2)).min(axis=1)
    return np.where(in_polygon(points, ring), distance, -distance)


class _Circle(NamedTuple):
    """A circle in a ring; the larger one compares as larger."""

    radius: float
    x: float
    y: float


class _Cell(NamedTuple):
    """A square of the search, of which the most promising comes first in a heap.

    Attributes:
        minus_reach: less than nothing: no circle with its centre in the square has a larger radius than the
            reach.
        half: of its side.
        x: of its middle.
        y: of its middle.
    """

    minus_reach: float
    half: float
    x: float
    y: float


def _largest_circle(ring: np.ndarray) -> _Circle | None:
    """The largest circle in a ring (num_corners, 2); None if it has no area.

    Source: the search of the pole of inaccessibility by V. Agafonkin (polylabel): cells that could hold a
        larger circle are quartered, the most promising first. Here it begins with places known to be inside,
        and ends by a share of the radius rather than at a length, so that slivers and coordinates from 0 to 1
        are served as well.
    """
    if len(ring) < 3 or not np.isfinite(ring).all():
        return None
    low, high = ring.min(axis=0), ring.max(axis=0)
    middle = (low + high) / 2
    extent = float((high - low).max())
    best = _first_circle(ring, middle)
    if best.radius <= 1e-9 * extent:
        return None
    cells = [_Cell(-np.inf, extent / 2, *middle)]
    for _ in range(_MAX_CELLS):
        if not cells:
            break
        cell = heapq.heappop(cells)
        if -cell.minus_reach <= best.radius * _TOLERANCE:
            break
        centres = np.array((cell.x, cell.y)) + _QUARTERS * cell.half  # (4, 2)
        depths = signed_distance(centres, ring)
        deepest = int(np.argmax(depths))
        if depths[deepest] > best.radius * _TOLERANCE:
            best = _Circle(float(depths[deepest]), *centres[deepest].tolist())
        for depth, (x, y) in zip(depths.tolist(), centres.tolist(), strict=True):
            reach = depth + cell.half / 2 * 2**0.5
            if reach > best.radius * _TOLERANCE:
                heapq.heappush(cells, _Cell(-reach, cell.half / 2, x, y))
    return best


def _first_circle(ring: np.ndarray, middle: np.ndarray) -> _Circle:
    """A circle to begin with: around the middle of the box, the centroid, or another place inside."""
    starts = np.concatenate([[middle, _centroid(ring)], _line_middles(ring)])  # (n, 2)
    depths = signed_distance(starts, ring)
    deepest = depths.max()
    # The middle of the box and the centroid win ties: the middle of a long bar rather than one of its ends.
    preferred = depths[:2] >= deepest / _TOLERANCE
    depths[:2] = np.where(preferred, np.maximum(deepest, 0.0), depths[:2])
    choice = int(np.argmax(depths))
    radius = float(signed_distance(starts[choice : choice + 1], ring)[0])
    return _Circle(radius, *starts[choice].tolist())


def _centroid(ring: np.ndarray) -> np.ndarray:
    """(2,) centroid of the surface; of a ring without one, the mean of its corners."""
    origin = ring.mean(axis=0)
    here = ring - origin
    there = np.roll(ring, -1, axis=0) - origin
    # Twice the area of each triangle with the origin.
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    if abs(cross.sum()) < 1e-12:
        return origin
    return origin + ((here + there) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def _line_middles(ring: np.ndarray) -> np.ndarray:
    """(num_places, 2) the middle of the widest stretch inside the ring, on lines between the heights of its
    corners.

    Every ring with an area has such a stretch, however thin it is.
    """
    heights = np.unique(ring[:, 1])
    lines = (heights[:-1] + heights[1:]) / 2
    if len(lines) > _MAX_BANDS:
        widest_bands = np.argsort(np.diff(heights))[-_MAX_BANDS:]
        lines = lines[widest_bands]
    start_x, start_y = ring.T
    end_x, end_y = np.roll(ring, -1, axis=0).T
    places = []
    for y in lines:
        crossing = (start_y > y) != (end_y > y)
        if not crossing.any():  # heights so near each other that their mean is one of them
            continue
        x0, y0, x1, y1 = start_x[crossing], start_y[crossing], end_x[crossing], end_y[crossing]
        xs = np.sort(x0 + (y - y0) / (y1 - y0) * (x1 - x0))  # in, out, in, out ...
        widest = int(np.argmax(xs[1::2] - xs[::2]))
        middle = float(xs[2 * widest] + xs[2 * widest + 1]) / 2
        places.append((middle, float(y)))
    return np.array(places, dtype=np.float64).reshape(-1, 2)
