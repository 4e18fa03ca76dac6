"""Outlines of shapes as rings of corners: turning, measuring, and cutting them off at the border of a picture."""

from __future__ import annotations

import numpy as np

from molmopoint.data.importers.placement import Size

_ELLIPSE_CORNERS = 32
"""Corners of the polygon that stands for an ellipse."""

_BOX = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
"""Corners of a box around its middle, in parts of its sides."""


def ellipse_ring(middle: tuple[float, float], radii: tuple[float, float], angle: float) -> np.ndarray:
    """(num_corners, 2) polygon that stands for an ellipse, turned clockwise about its middle by an angle in degrees."""
    around = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    along = np.stack([np.cos(around), np.sin(around)], axis=1) * radii
    return _turned(along, angle) + middle


def turned_box_ring(middle: tuple[float, float], size: Size, angle: float) -> np.ndarray:
    """(4, 2) corners of a box, turned clockwise about its middle by an angle in degrees."""
    return _turned(_BOX * size, angle) + middle


def ring_area(ring: np.ndarray) -> float:
    """Of a polygon (num_corners, 2)."""
    if len(ring) < 3:
        return 0.0
    here = ring - ring[0]
    there = np.roll(here, -1, axis=0)
    return abs(float((here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]).sum())) / 2


def clipped_ring(ring: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The part of a polygon (num_corners, 2) in 0..limit; parts that it falls into stay connected along the border.

    Source: Sutherland and Hodgman, "Reentrant polygon clipping" (1974).
    """
    for axis in (0, 1):
        for sign, edge in ((1.0, 0.0), (-1.0, -float(limit[axis]))):
            inside = sign * ring[:, axis] - edge  # how far inside of this border
            if not len(ring) or (inside >= 0).all():
                continue
            there, depth = np.roll(ring, -1, axis=0), np.roll(inside, -1)
            kept = []
            for corner, following, a, b in zip(ring, there, inside, depth, strict=True):
                if a >= 0:
                    kept.append(corner)
                if (a >= 0) != (b >= 0):
                    kept.append(corner + (following - corner) * (a / (a - b)))
            ring = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return ring


def _turned(offsets: np.ndarray, angle: float) -> np.ndarray:
    """(n, 2) turned clockwise about the origin by an angle in degrees; y goes down."""
    turn = np.radians(np.fmod(angle, 360.0))  # whole turns change nothing, and odd files hold numbers without radians
    return offsets @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
