"""Does a point lie in a mask, a box, a polygon? Every rule that published benchmarks use, by name.

Letters: n points, v vertices. Points are (n, 2) x and y in pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

_LARGEST = 2**31
"""Pixels of a side."""

Rounding = Literal["round", "truncate"]
"""How a point becomes a pixel: to the nearest one, ties to even (PixMo-Points, videos, tracking), or by its
integer part (Point-Bench)."""


def pixels_of(xy: ArrayLike, rounding: Rounding) -> np.ndarray:
    """(n, 2) int64 column and row of each point; -1 where a coordinate is not finite or negative.

    A negative coordinate is outside under both rules, except that the nearest pixel of -0.4 is 0.

    Raises:
        ValueError: the rule is not known, or the points are not pairs.
    """
    places = np.asarray(xy, dtype=np.float64)
    if places.size == 0:
        places = places.reshape(0, 2)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(f"expected points of shape (n, 2), got {places.shape}; pass `result.points.xy`")
    if rounding not in ("round", "truncate"):
        raise ValueError(f"expected the rule 'round' or 'truncate', got {rounding!r}")
    # Far values would overflow the integers; every picture is smaller than this. What is no number is not
    # below it.
    is_near = (np.abs(places) < _LARGEST).all(axis=1, keepdims=True)  # (n, 1)
    near = np.where(is_near, places, -1)
    whole = np.rint(near) if rounding == "round" else np.floor(near)
    is_pixel = (whole >= 0).all(axis=1, keepdims=True)
    return np.where(is_pixel, whole, -1).astype(np.int64)


def in_mask(xy: ArrayLike, mask: np.ndarray, rounding: Rounding) -> np.ndarray:
    """(n,) bool: whether the pixel of each point is True in a mask (height, width); False outside of it."""
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a boolean mask of shape (height, width), got {mask.dtype} {mask.shape}")
    pixels = pixels_of(xy, rounding)
    height, width = mask.shape
    inside = (pixels >= 0).all(axis=1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    safe = np.where(inside[:, None], pixels, 0)
    if not mask.size:
        return inside
    return inside & mask[safe[:, 1], safe[:, 0]]


def in_box(xy: ArrayLike, box: ArrayLike) -> np.ndarray:
    """(n,) bool: whether each point lies in a box (x1, y1, x2, y2), all four sides included, without
    rounding.
    """
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64)
    x, y = np.asarray(xy, dtype=np.float64).reshape(-1, 2).T
    return (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)


def in_polygon(xy: ArrayLike, polygon: ArrayLike) -> np.ndarray:
    """(n,) bool: whether each point lies in a polygon (v, 2), by casting a ray to the right (even-odd rule).

    A point on an edge may be in or out, as with every ray caster; published boxes are not affected.

    Raises:
        ValueError: fewer than three vertices.
    """
    vertices = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    if len(vertices) < 3:
        raise ValueError(f"expected a polygon of three or more vertices, got {len(vertices)}")
    places = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    x, y = places[:, :1], places[:, 1:]  # (n, 1)
    x1, y1 = vertices.T  # (v,)
    x2, y2 = np.roll(vertices, -1, axis=0).T
    crosses = (y1 > y) != (y2 > y)  # (n, v): the ray and each edge
    rise = np.where(y2 == y1, 1.0, y2 - y1)
    # Where an edge does not cross, an all but level one may leave the range of numbers; nothing is read
    # there.
    with np.errstate(over="ignore", invalid="ignore"):
        is_left_of = x < x1 + (y - y1) / rise * (x2 - x1)
    crossings = (crosses & is_left_of).sum(axis=1)
    return crossings % 2 == 1


def distance_to_box(xy: ArrayLike, box: ArrayLike) -> np.ndarray:
    """(n,) pixels from each point to the nearest point of a box (x1, y1, x2, y2); 0 inside."""
    corner = np.asarray(box, dtype=np.float64)
    places = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    outside = np.maximum(corner[:2] - places, 0) + np.maximum(places - corner[2:], 0)
    return np.hypot(outside[:, 0], outside[:, 1])
