"""Draws coloured shapes into numpy arrays, to the same bytes on every machine.

A font or a drawing library changes its pixels from version to version, and sines differ in the last bit
between machines. So corners are rounded to 1/64 pixel, rotations are rational numbers, coverage is counted on
a grid of 4 by 4 samples per pixel, and blending is integer arithmetic: every intermediate value is exact.

Coordinates are pixels, x to the right and y downwards; the centre of the upper left pixel is (0.5, 0.5).

What synthetic pictures and clips have in common: the pairs that are never trained, sizes, and colours that
stand out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 4
"""Samples per pixel side; coverage runs from 0 to SAMPLES ** 2."""

_GRID = 64
"""Corners lie on multiples of 1/64 pixel."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (245, 140, 20),
    "yellow": (240, 222, 40),
    "green": (40, 160, 60),
    "blue": (40, 85, 225),
    "purple": (145, 50, 185),
    "white": (246, 246, 246),
    "black": (18, 18, 18),
}

# Corners in units of the nominal size, around the point that a target of this shape is pointed at.
_POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.46, -0.46), (0.46, -0.46), (0.46, 0.46), (-0.46, 0.46)),
    "rectangle": ((-0.68, -0.34), (0.68, -0.34), (0.68, 0.34), (-0.68, 0.34)),
    "triangle": ((0.0, -0.6), (0.55, 0.4), (-0.55, 0.4)),
    "diamond": ((0.0, -0.6), (0.48, 0.0), (0.0, 0.6), (-0.48, 0.0)),
}
_STAR = (
    (0.0, -0.58), (0.135, -0.185), (0.552, -0.179), (0.218, 0.071), (0.341, 0.469),
    (0.0, 0.229), (-0.341, 0.469), (-0.218, 0.071), (-0.552, -0.179), (-0.135, -0.185),
)  # fmt: skip
_ARM = 0.19  # half the width of an arm of the cross
_CROSS_FLAT = ((-0.52, -_ARM), (0.52, -_ARM), (0.52, _ARM), (-0.52, _ARM))
_CROSS_TALL = ((-_ARM, -0.52), (_ARM, -0.52), (_ARM, 0.52), (-_ARM, 0.52))
_HEART_LOBES = ((-0.25, -0.2), (0.25, -0.2))  # centres of its discs
_HEART_RADIUS = 0.285
_HEART_TIP = ((-0.452, 0.0), (0.0, -0.28), (0.452, 0.0), (0.0, 0.56))

SHAPES = ("circle", "square", "rectangle", "triangle", "diamond", "star", "cross", "heart")


@dataclass(frozen=True)
class Stamp:
    """One drawn shape, not yet part of a picture.

    Attributes:
        coverage: (box height, box width) uint8, samples covered per pixel, 0 to SAMPLES ** 2.
        left: x of the box's left edge.
        top: y of the box's upper edge.
    """

    coverage: np.ndarray
    left: int
    top: int


def draw_shape(
    shape: str, x: float, y: float, size: float, tilt: float = 0.0, upright: bool = False
) -> Stamp:
    """The coverage of one shape.

    Args:
        shape: one of SHAPES.
        x: pixels, where the shape is pointed at.
        y: the same, downwards.
        size: nominal side in pixels.
        tilt: tangent of half the angle of rotation; a rational rotation needs no sine.
        upright: turn a rectangle on its short side.
    """
    reach = int(0.76 * size) + 2  # half the side of the box, in pixels
    left = int(x) - reach
    top = int(y) - reach
    ticks = (2 * np.arange(2 * reach * SAMPLES, dtype=np.float64) + 1) / (2 * SAMPLES)
    samples = _Samples(x=(left + ticks)[None, :], y=(top + ticks)[:, None])
    pose = _Pose(
        x=x,
        y=y,
        size=size,
        cosine=(1 - tilt * tilt) / (1 + tilt * tilt),
        sine=2 * tilt / (1 + tilt * tilt),
        upright=upright,
    )
    inside = _inside(shape, samples, pose)
    by_pixel = inside.reshape(2 * reach, SAMPLES, 2 * reach, SAMPLES)
    coverage = by_pixel.sum(axis=(1, 3), dtype=np.uint8)
    return Stamp(coverage, left, top)


def reach_of(shape: str, side: float) -> float:
    """Pixels around its point that a shape may need, however it is turned."""
    return (0.76 if shape == "rectangle" else 0.66) * side + 1


def paint(picture: np.ndarray, stamp: Stamp, colour: np.ndarray) -> np.ndarray:
    """Blends the part of a stamp that lies inside the picture into it, in place.

    Args:
        picture: (height, width, 3) int32, changed.
        stamp: what to draw.
        colour: (3,) int.

    Returns:
        (height, width) bool, the pixels that are at least half covered.
    """
    height, width = picture.shape[:2]
    coverage, window = clip_stamp(stamp, height, width)
    full = SAMPLES * SAMPLES
    weight = coverage[:, :, None].astype(np.int32)  # (rows, cols, 1)
    blended = picture[window] * (full - weight) + colour[None, None, :] * weight
    picture[window] = (blended + full // 2) // full
    mask = np.zeros(picture.shape[:2], dtype=bool)
    mask[window] = 2 * coverage >= full
    return mask


def clip_stamp(stamp: Stamp, height: int, width: int) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The part of a stamp that lies in the picture, empty where none does, and where that is."""
    rows, cols = stamp.coverage.shape
    top = min(max(stamp.top, 0), height)
    left = min(max(stamp.left, 0), width)
    bottom = max(min(stamp.top + rows, height), top)
    right = max(min(stamp.left + cols, width), left)
    # A stamp below or to the right of the picture begins behind the window, which is empty then.
    first_row = max(top - stamp.top, 0)
    first_col = max(left - stamp.left, 0)
    part = stamp.coverage[first_row : first_row + bottom - top, first_col : first_col + right - left]
    return part, (slice(top, bottom), slice(left, right))


def draw_background(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A plain, graded or grainy ground.

    Returns:
        (height, width, 3) int32 picture, and (2, 3) int32, its two extreme colours before the grain.
    """
    level = int(rng.integers(25, 236))
    ends = np.clip(level + rng.integers(-18, 19, size=(2, 3)), 0, 255).astype(np.int32)
    if rng.random() < 0.5:
        ends[1] = ends[0]
    else:
        ends[1] = np.clip(ends[1] + int(rng.integers(-40, 41)), 0, 255)
    slope_down, slope_right = rng.integers(-4, 5, size=2)
    down = slope_down * np.arange(height, dtype=np.int32)[:, None]
    across = slope_right * np.arange(width, dtype=np.int32)[None, :]
    ramp = down + across  # (height, width)
    ramp = (ramp - ramp.min()).astype(np.int32)
    span = max(int(ramp.max()), 1)
    share = ramp[:, :, None]  # (height, width, 1), of the span
    picture = (ends[0] * (span - share) + ends[1] * share) // span  # (height, width, 3)
    if rng.random() < 0.5:
        grain = int(rng.integers(2, 13))
        picture = picture + rng.integers(-grain, grain + 1, size=(height, width, 3), dtype=np.int32)
    return np.clip(picture, 0, 255).astype(np.int32), ends


_Corners = Sequence[tuple[float, float]]
"""x and y of each, in units of the size or in pixels."""


@dataclass(frozen=True)
class _Samples:
    """A grid of samples.

    Attributes:
        x: (1, columns) pixels.
        y: (rows, 1) pixels.
    """

    x: np.ndarray
    y: np.ndarray

    def in_disc(self, centre: tuple[float, float], radius: float) -> np.ndarray:
        """(rows, columns) bool: which lie in a disc."""
        x, y = centre
        return (self.x - x) ** 2 + (self.y - y) ** 2 <= radius * radius

    def in_convex(self, corners: _Corners) -> np.ndarray:
        """(rows, columns) bool: which lie on the inner side of every edge; corners run clockwise on the
        screen.
        """
        inside = np.ones((self.y.shape[0], self.x.shape[1]), dtype=bool)
        following = [*corners[1:], corners[0]]
        for (start_x, start_y), (end_x, end_y) in zip(corners, following, strict=True):
            inside &= (end_x - start_x) * (self.y - start_y) >= (end_y - start_y) * (self.x - start_x)
        return inside

    def in_star(self, corners: _Corners) -> np.ndarray:
        """(rows, columns) bool: which lie in the pentagon of the inner corners or in one of the five points."""
        inside = self.in_convex(corners[1::2])
        for tip in range(0, 10, 2):
            inside |= self.in_convex([corners[tip - 1], corners[tip], corners[tip + 1]])
        return inside


@dataclass(frozen=True)
class _Pose:
    """Where a shape lies, how large it is, and how it is turned.

    Attributes:
        x: pixels, of the point it is pointed at.
        y: the same, downwards.
        size: nominal side in pixels.
        cosine: of the angle.
        sine: of the angle.
        upright: turned by a right angle before.
    """

    x: float
    y: float
    size: float
    cosine: float
    sine: float
    upright: bool

    def place(self, corners: _Corners) -> list[tuple[float, float]]:
        """Corners in pixels, from corners in units of the size."""
        placed = []
        for u, v in corners:
            if self.upright:
                u, v = -v, u
            across = u * self.cosine - v * self.sine
            down = u * self.sine + v * self.cosine
            placed.append((_snap(self.x + self.size * across), _snap(self.y + self.size * down)))
        return placed


def _snap(value: float) -> float:
    return round(value * _GRID) / _GRID


def _inside(shape: str, samples: _Samples, pose: _Pose) -> np.ndarray:
    """(rows, columns) bool: which samples lie in the shape."""
    size = _snap(pose.size)
    if shape == "circle":
        [centre] = pose.place([(0.0, 0.0)])
        return samples.in_disc(centre, _snap(0.5 * size))
    if shape in _POLYGONS:
        return samples.in_convex(pose.place(_POLYGONS[shape]))
    if shape == "cross":
        flat = samples.in_convex(pose.place(_CROSS_FLAT))
        tall = samples.in_convex(pose.place(_CROSS_TALL))
        return flat | tall
    if shape == "heart":
        left, right = pose.place(_HEART_LOBES)
        radius = _snap(_HEART_RADIUS * size)
        body = samples.in_convex(pose.place(_HEART_TIP))
        return body | samples.in_disc(left, radius) | samples.in_disc(right, radius)
    return samples.in_star(pose.place(_STAR))


HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("green", "triangle"),
        ("blue", "heart"),
        ("yellow", "square"),
        ("purple", "cross"),
        ("black", "circle"),
    }
)
"""Pairs of colour and shape that no training scene shows or asks for: about a tenth of the 64."""

SIZE_BANDS = {"small": (0.10, 0.13), "medium": (0.15, 0.18), "big": (0.21, 0.28)}
"""Nominal sizes as parts of the picture's short side; the gaps keep "big" and "small" from being a matter of
taste.
"""

FRAME_SIDES = (144, 169)
"""Sides of a picture or a frame in pixels: at least, and below."""
_MIN_CONTRAST = 70
_JITTER = 16


def draw_palette(rng: np.random.Generator, ends: np.ndarray) -> tuple[list[str], list[str]]:
    """Colours that stand out from the ground, and shapes; few of each, so that things repeat."""
    visible = [name for name in COLOURS if _contrast(name, ends) >= _MIN_CONTRAST]
    num_colours = int(rng.integers(2, 6))
    num_shapes = int(rng.integers(2, 6))
    colours = [visible[i] for i in rng.permutation(len(visible))[:num_colours]]
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:num_shapes]]
    return colours, shapes


def _contrast(colour: str, ends: np.ndarray) -> int:
    """The largest difference of a channel to the nearer one of the two extreme colours (2, 3) of a ground."""
    differences = np.abs(np.array(COLOURS[colour]) - ends)  # (2, 3)
    return int(differences.max(axis=1).min())


def shade(rng: np.random.Generator, colour: str) -> np.ndarray:
    """(3,) int32: a shade of a colour."""
    jitter = rng.integers(-_JITTER, _JITTER + 1, size=3)
    return np.clip(np.array(COLOURS[colour]) + jitter, 0, 255).astype(np.int32)
