"""The colour that a person would call an element by, read from the picture."""

from __future__ import annotations

import numpy as np

from molmopoint.screens.elements import Box

COLOURS = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink")
"""Names of colours."""

_FILL, _GLYPH = 0.42, 0.6
"""Share of an element that one colour must have: of a surface, and of what is drawn on a surface."""
_APART = 40
"""A pixel belongs to the drawing if a channel differs by more than this from the ground."""
_SURFACE = 12
"""A surface is seen if a channel differs by more than this from the ground."""
_EVEN = 6
"""Steps of a channel that nobody tells apart."""
_MOST = 20_000
"""Pixels that are looked at."""
_SMALLEST_DRAWING = 8
"""Pixels of a drawing below which its colour is not told."""

_HUES = (
    (13, "red"), (18, None), (40, "orange"), (45, None), (66, "yellow"), (72, None), (163, "green"), (188, None), (252, "blue"),
    (258, None),
    (288, "purple"), (300, None), (342, "pink"), (347, None), (361, "red"),
)  # fmt: skip
"""Where each colour ends on the circle of hues, in degrees; None lies between two names."""

_HUE_ENDS = np.array([end for end, _ in _HUES])
_HUE_NAMES = np.array([-1 if name is None else COLOURS.index(name) for _, name in _HUES])
_BLACK, _WHITE, _GRAY = (COLOURS.index(name) for name in ("black", "white", "gray"))


def name_of(rgb: np.ndarray) -> np.ndarray:
    """Index into `COLOURS` of each colour.

    Args:
        rgb: (..., 3) uint8.

    Returns:
        (...) int64; -1 for what lies between two names.
    """
    values = np.asarray(rgb, dtype=np.float64)
    high = values.max(axis=-1)
    low = values.min(axis=-1)
    spread = high - low
    saturation = np.where(high > 0, spread / np.maximum(high, 1), 0)
    by_hue = _HUE_NAMES[
        np.minimum(np.searchsorted(_HUE_ENDS, _hue(values), side="right"), len(_HUE_ENDS) - 1)
    ]
    # Pale and dull colours have no sure name, unless they are so pale that they are a grey.
    is_dull = (saturation < 0.25) | (spread < 40)
    is_grey = (saturation < 0.16) | (spread < 22)
    grey = np.select([high < 60, low > 238, (high > 90) & (low < 215)], [_BLACK, _WHITE, _GRAY], -1)
    return np.where(is_grey, grey, np.where(is_dull, -1, by_hue))


def _hue(values: np.ndarray) -> np.ndarray:
    """(...) degrees on the circle of hues, red at 0, of colours (..., 3) float64."""
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    high = values.max(axis=-1)
    spread = np.maximum(high - values.min(axis=-1), 1e-9)
    if_red = (green - blue) / spread % 6
    if_green = (blue - red) / spread + 2
    if_blue = (red - green) / spread + 4
    return 60 * np.select([high == red, high == green], [if_red, if_green], if_blue)


def colour_of(pixels: np.ndarray, box: Box, is_surface: bool) -> str | None:
    """The colour of what is in a box, or None where no single one prevails.

    A surface that looks like the ground around it, such as a button with nothing but words, is called by what
    is drawn on it.

    Args:
        pixels: (height, width, 3) uint8 RGB of the picture.
        box: of the element.
        is_surface: whether the element has a surface of its own; else only what is drawn counts, as of icons.
    """
    inside = cut(pixels, box)
    if not inside.size:
        return None
    ground = _commonest(_rim(pixels, box))  # (3,)
    flat = inside.reshape(-1, 3)
    flat = flat[:: max(1, len(flat) // _MOST)]  # (n, 3)
    if is_surface and _apart(_commonest(flat), ground) > _SURFACE:
        return _prevailing(flat, _FILL)
    drawn = flat[np.abs(flat.astype(np.int64) - ground).max(axis=1) > _APART]
    if len(drawn) < _SMALLEST_DRAWING:
        return None
    return _prevailing(drawn, _GLYPH)


def has_surface(pixels: np.ndarray, box: Box) -> bool:
    """Whether most of a box has another colour than the ground around it."""
    inside = cut(pixels, box).reshape(-1, 3)
    if not len(inside):
        return False
    return _apart(_commonest(inside), _commonest(_rim(pixels, box))) > _SURFACE


def is_blank(pixels: np.ndarray, box: Box) -> bool:
    """Whether nothing can be told from the ground in a box: it has one colour, and that of its surroundings."""
    inside = cut(pixels, box).reshape(-1, 3).astype(np.int64)
    if not len(inside):
        return True
    if _apart(inside.max(axis=0), inside.min(axis=0)) > _EVEN:
        return False
    return _apart(inside[0], _commonest(_rim(pixels, box))) <= _EVEN


def cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The part of a picture in a box."""
    left, top, right, bottom = (round(value) for value in box)
    return pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]


def _rim(pixels: np.ndarray, box: Box) -> np.ndarray:
    """(n, 3) pixels of a frame around a box."""
    left, top, right, bottom = box
    parts = [
        cut(pixels, (left - 3, top - 3, right + 3, top - 1)),
        cut(pixels, (left - 3, bottom + 1, right + 3, bottom + 3)),
        cut(pixels, (left - 3, top, left - 1, bottom)),
        cut(pixels, (right + 1, top, right + 3, bottom)),
    ]
    rim = np.concatenate([part.reshape(-1, 3) for part in parts])
    return rim if len(rim) else cut(pixels, box).reshape(-1, 3)


def _apart(first: np.ndarray, second: np.ndarray) -> int:
    """By how much two colours (3,) int64 differ in the channel in which they differ most."""
    return int(np.abs(first - second).max())


def _commonest(colours: np.ndarray) -> np.ndarray:
    """(3,) int64: the commonest colour of (n, 3), coarsely."""
    coarse = (colours.astype(np.int64) >> 3) @ np.array(
        [1 << 10, 1 << 5, 1]
    )  # (n,): five bits of each channel
    values, counts = np.unique(coarse, return_counts=True)
    most = colours[coarse == values[counts.argmax()]]
    return most.astype(np.float64).mean(axis=0).round().astype(np.int64)


def _prevailing(colours: np.ndarray, share: float) -> str | None:
    """The name that at least a share of the colours has."""
    names = name_of(colours)
    counts = np.bincount(names[names >= 0], minlength=len(COLOURS))
    best = int(counts.argmax())
    if counts[best] < share * len(names):
        return None
    return COLOURS[best]
