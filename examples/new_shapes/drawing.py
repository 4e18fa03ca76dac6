"""The new shapes, drawn like the known ones of `molmopoint.data.drawing`: exact coverage, the same bytes on
every machine.

Corners are in units of the nominal size, around the point that a target is pointed at, which lies well inside
the shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from molmopoint.data.drawing import SAMPLES, Stamp

NEW_SHAPES = {"crescent": "crescents", "arrow": "arrows", "bolt": "lightning bolts"}
"""Shapes and the words for more than one of them. Neither is among the shapes and words of the embedded
model.
"""

REACH = 0.78
"""No part of a new shape is further from its point than this part of the size."""

_ARROW = ((-0.58, -0.14), (0.04, -0.14), (0.04, -0.42), (0.6, 0.0), (0.04, 0.42), (0.04, 0.14), (-0.58, 0.14))
_BOLT = ((0.06, -0.64), (-0.36, 0.1), (-0.05, 0.1), (-0.18, 0.64), (0.38, -0.12), (0.08, -0.12), (0.3, -0.64))
_OUTER, _OUTER_RADIUS = (0.34, 0.0), 0.52
_INNER, _INNER_RADIUS = (0.6, 0.0), 0.43


def draw_new_shape(
    shape: str, x: float, y: float, size: float, tilt: float = 0.0, quarters: int = 0
) -> Stamp:
    """The coverage of one of NEW_SHAPES.

    Args:
        shape: its name.
        x: pixels, where the shape is pointed at.
        y: the same, downwards.
        size: nominal side in pixels.
        tilt: tangent of half the angle of rotation; a rational rotation needs no sine.
        quarters: further quarter turns.
    """
    reach = int(REACH * size) + 2
    left, top = int(x) - reach, int(y) - reach
    ticks = (2 * np.arange(2 * reach * SAMPLES, dtype=np.float64) + 1) / (2 * SAMPLES)
    across, down = np.meshgrid((left + ticks - x) / size, (top + ticks - y) / size)
    cosine, sine = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
    for _ in range(quarters % 4):
        cosine, sine = -sine, cosine
    inside = _inside(shape, across * cosine + down * sine, down * cosine - across * sine)
    blocks = inside.reshape(2 * reach, SAMPLES, 2 * reach, SAMPLES)
    return Stamp(blocks.sum(axis=(1, 3), dtype=np.uint8), left, top)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(rows, cols) bool: which samples, in units of the size and turned back, lie in the shape."""
    if shape == "crescent":
        return _disc(u, v, _OUTER, _OUTER_RADIUS) & ~_disc(u, v, _INNER, _INNER_RADIUS)
    return polygon(u, v, {"arrow": _ARROW, "bolt": _BOLT}[shape])


def _disc(u: np.ndarray, v: np.ndarray, centre: tuple[float, float], radius: float) -> np.ndarray:
    return (u - centre[0]) ** 2 + (v - centre[1]) ** 2 <= radius * radius


def polygon(u: np.ndarray, v: np.ndarray, corners: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    """Samples that a ray to the right leaves through an odd number of edges."""
    inside = np.zeros(u.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if ay != by:
            inside ^= ((ay > v) != (by > v)) & (u < ax + (v - ay) / (by - ay) * (bx - ax))
    return inside
