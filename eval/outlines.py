"""Outlines of boxes and masks, to draw them and to measure how far a point is off. They have no part in
scoring.

Letters: n points, v vertices of a ring. Points are (n, 2) x and y in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from molmopoint.metrics.lookup import in_polygon

CELLS = 96
"""The longer side of a mask's own box is cut into so many cells at most, which bounds the length of its
outline."""

Rings = tuple[np.ndarray, ...]
"""Closed lines, each (v, 2) pixels; what lies inside of an odd number of them is inside."""

Corner = tuple[int, int]
"""Column and row of a corner between cells."""


def box_outline(box: ArrayLike) -> Rings:
    """The four corners of a box (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64)
    return (np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]),)


def mask_outlines(mask: np.ndarray, cells: int = CELLS) -> Rings:
    """Outer and inner borders of a mask (height, width) bool.

    A large mask is drawn in coarser cells, one being inside if any of its pixels is, so thin parts stay.
    """
    ys = np.flatnonzero(mask.any(axis=1))
    xs = np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return ()
    top, left = int(ys[0]), int(xs[0])
    part = mask[top : ys[-1] + 1, left : xs[-1] + 1]
    height, width = part.shape
    step = -(-max(height, width) // cells)  # pixels per cell, rounded up
    padded = np.pad(part, ((0, -height % step), (0, -width % step)))
    in_cells = padded.reshape(padded.shape[0] // step, step, -1, step)  # (rows, step, columns, step)
    coarse = np.logical_or.reduce(in_cells, axis=(1, 3))  # (rows, columns)
    # The last cell may reach over the mask's own box.
    most = (left + width, top + height)
    outlines = []
    for ring in _rings(coarse):
        in_pixels = np.minimum(ring * step + (left, top), most)
        outlines.append(in_pixels.astype(np.float64))
    return tuple(outlines)


def inside(rings: Rings, xy: np.ndarray) -> np.ndarray:
    """(n,) bool: whether each point (n, 2) lies in what the rings enclose."""
    if not rings:
        return np.zeros(len(xy), dtype=bool)
    return np.logical_xor.reduce([in_polygon(xy, ring) for ring in rings])


def distance(rings: Rings, xy: np.ndarray) -> np.ndarray:
    """(n,) pixels from each point (n, 2) to the nearest place inside; 0 inside, infinite without rings."""
    if not rings:
        return np.full(len(xy), np.inf)
    to_lines = [_to_lines(ring, xy) for ring in rings]
    return np.where(inside(rings, xy), 0.0, np.min(to_lines, axis=0))


def _to_lines(ring: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(n,) distances to the nearest of a ring's v edges."""
    start = ring[None]  # (1, v, 2)
    edge = (np.roll(ring, -1, axis=0) - ring)[None]  # (1, v, 2)
    away = xy[:, None] - start  # (n, v, 2)
    length = np.maximum((edge**2).sum(axis=2), 1e-12)
    along = np.clip((away * edge).sum(axis=2) / length, 0.0, 1.0)  # (n, v): of the nearest place of each edge
    to_nearest = away - along[..., None] * edge
    return np.sqrt((to_nearest**2).sum(axis=2)).min(axis=1)


def _rings(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Borders between True and False as corners (v, 2), True always to the right; straight lines have two
    corners.
    """
    onward = _edges(mask)
    while onward:
        start = place = next(iter(onward))
        ring = []
        while True:
            ring.append(place)
            ends = onward[place]
            following = ends.pop()
            if not ends:
                del onward[place]
            place = following
            if place == start:
                break
        corners = np.array(ring)
        before = np.roll(corners, 1, axis=0)
        behind = np.roll(corners, -1, axis=0)
        turns = (before + behind != 2 * corners).any(axis=1)
        yield corners[turns]


def _edges(mask: np.ndarray) -> dict[Corner, list[Corner]]:
    """Where the edges between True and False end, by the corner where they start."""
    field = np.pad(mask, 1)
    here = field[1:-1, 1:-1]
    # Neighbour that must be False, then the corners where the edge starts and ends, from the cell's upper
    # left one.
    sides = (
        (field[:-2, 1:-1], (0, 0), (1, 0)),
        (field[1:-1, 2:], (1, 0), (1, 1)),
        (field[2:, 1:-1], (1, 1), (0, 1)),
        (field[1:-1, :-2], (0, 1), (0, 0)),
    )
    onward: dict[Corner, list[Corner]] = {}
    for neighbour, (x1, y1), (x2, y2) in sides:
        for y, x in np.argwhere(here & ~neighbour).tolist():
            onward.setdefault((x + x1, y + y1), []).append((x + x2, y + y2))
    return onward
