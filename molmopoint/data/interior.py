"""One point inside a mask or polygon, as far from the edge as possible.

The centroid of a ring, a horseshoe or two separate parts lies outside of them, and a model trained on such targets learns to
point beside things. The centre of the largest circle that fits is always inside, and it is where a person would click.

Coordinates are pixels, x to the right and y downwards; the centre of the upper left pixel is (0.5, 0.5).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

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


def mask_interior(mask: np.ndarray) -> tuple[float, float]:
    """Centre of the largest circle inside a mask; of several equally large ones that nearest to the centroid.

    Args:
        mask: (height, width), true inside.

    Returns:
        x and y, the centre of a pixel of the mask.

    Raises:
        ProcessingError: the mask is empty.
    """
    inside = np.asarray(mask) != 0
    if inside.ndim != 2 or not inside.any():
        raise ProcessingError(f"expected a mask (height, width) with a pixel inside, got shape {inside.shape} without one; drop the object")
    rows, cols = np.nonzero(inside)
    top, left = rows.min(), cols.min()
    # What lies beyond the picture counts as outside, hence the padding.
    window = np.pad(inside[top : rows.max() + 1, left : cols.max() + 1], 1)
    depth = np.asarray(distance_transform_edt(window))
    best = np.argwhere(depth >= depth.max() - 1e-9) + np.array((top - 1, left - 1))
    row, col = best[np.argmin(((best - (rows.mean(), cols.mean())) ** 2).sum(axis=1))]
    return float(col) + 0.5, float(row) + 0.5


def polygon_interior(rings: Sequence[np.ndarray]) -> tuple[float, float]:
    """Centre of the largest circle inside one of the parts of an object.

    Args:
        rings: (num_corners, 2) x and y of each part, closed or not. Where a ring crosses itself, inside is what an odd number
            of its windings surrounds. Corners that are no numbers, or fewer than 3, make no part.

    Returns:
        x and y, strictly inside one part.

    Raises:
        ProcessingError: no part has an area.
    """
    found = [place for ring in rings if (place := _ring_interior(np.asarray(ring, dtype=np.float64).reshape(-1, 2))) is not None]
    if not found:
        raise ProcessingError("expected a polygon with an area, got corners on one line or fewer than 3; correct or drop the object")
    _, x, y = max(found)
    return x, y


def signed_distance(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """(num_points,) distance to the nearest edge of a ring (num_corners, 2), negative outside of it."""
    start, end = ring, np.roll(ring, -1, axis=0)
    edge = end - start
    offset = points[:, None, :] - start
    length = np.maximum((edge**2).sum(axis=1), np.finfo(np.float64).tiny)
    along = np.clip((offset * edge).sum(axis=2) / length, 0.0, 1.0)
    distance = np.sqrt(((offset - along[..., None] * edge) ** 2).sum(axis=2)).min(axis=1)
    return np.where(in_polygon(points, ring), distance, -distance)


def _ring_interior(ring: np.ndarray) -> tuple[float, float, float] | None:
    """Radius and centre of the largest circle in a ring; None if it has no area.

    Source: the search of the pole of inaccessibility by V. Agafonkin (polylabel): cells that could hold a larger circle are
        quartered, the most promising first. Here it begins with places known to be inside, and ends by a share of the radius
        rather than at a length, so that slivers and coordinates from 0 to 1 are served as well.
    """
    if len(ring) < 3 or not np.isfinite(ring).all():
        return None
    low, high = ring.min(axis=0), ring.max(axis=0)
    starts = np.concatenate([[(low + high) / 2, _centroid(ring)], _line_middles(ring)])
    depths = signed_distance(starts, ring)
    # The middle of the box and the centroid win ties: the middle of a long bar rather than one of its ends.
    depths[:2] = np.where(depths[:2] >= depths.max() / _TOLERANCE, np.maximum(depths.max(), 0.0), depths[:2])
    choice = int(np.argmax(depths))
    best, place = float(signed_distance(starts[choice : choice + 1], ring)[0]), starts[choice]
    if best <= 1e-9 * float((high - low).max()):
        return None
    half = float((high - low).max()) / 2
    cells = [(-np.inf, half, *((low + high) / 2))]
    quarters = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)]) / 2
    for _ in range(_MAX_CELLS):
        if not cells:
            break
        reach, half, x, y = heapq.heappop(cells)
        if -reach <= best * _TOLERANCE:
            break
        centres = np.array((x, y)) + quarters * half
        depths = signed_distance(centres, ring)
        if depths.max() > best * _TOLERANCE:
            best, place = float(depths.max()), centres[int(np.argmax(depths))]
        for depth, (cx, cy) in zip(depths, centres, strict=True):
            if (possible := float(depth) + half / 2 * 2**0.5) > best * _TOLERANCE:
                heapq.heappush(cells, (-possible, half / 2, float(cx), float(cy)))
    return best, float(place[0]), float(place[1])


def _centroid(ring: np.ndarray) -> np.ndarray:
    """(2,) centroid of the surface; of a ring without one, the mean of its corners."""
    origin = ring.mean(axis=0)
    here, there = ring - origin, np.roll(ring, -1, axis=0) - origin
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    if abs(cross.sum()) < 1e-12:
        return origin
    return origin + ((here + there) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def _line_middles(ring: np.ndarray) -> np.ndarray:
    """(num_places, 2) the middle of the widest stretch inside the ring, on lines between the heights of its corners.

    Every ring with an area has such a stretch, however thin it is.
    """
    heights = np.unique(ring[:, 1])
    lines = (heights[:-1] + heights[1:]) / 2
    if len(lines) > _MAX_BANDS:
        lines = lines[np.argsort(np.diff(heights))[-_MAX_BANDS:]]  # the widest bands
    (ax, ay), (bx, by) = ring.T, np.roll(ring, -1, axis=0).T
    places = []
    for y in lines:
        crossing = (ay > y) != (by > y)
        if not crossing.any():  # heights so near each other that their mean is one of them
            continue
        xs = np.sort(ax[crossing] + (y - ay[crossing]) / (by[crossing] - ay[crossing]) * (bx[crossing] - ax[crossing]))
        widest = int(np.argmax(xs[1::2] - xs[::2]))
        places.append((float(xs[2 * widest] + xs[2 * widest + 1]) / 2, float(y)))
    return np.array(places, dtype=np.float64).reshape(-1, 2)
