"""What synthetic pictures and clips have in common: the pairs that are never trained, sizes, and colours that stand out."""

from __future__ import annotations

import numpy as np

from molmopoint.data.drawing import COLOURS, SHAPES

HELD_OUT_PAIRS = frozenset(
    {("red", "star"), ("green", "triangle"), ("blue", "heart"), ("yellow", "square"), ("purple", "cross"), ("black", "circle")}
)
"""Pairs of colour and shape that no training scene shows or asks for: about a tenth of the 64."""

SIZE_BANDS = {"small": (0.10, 0.13), "medium": (0.15, 0.18), "big": (0.21, 0.28)}
"""Nominal sizes as parts of the picture's short side; the gaps keep "big" and "small" from being a matter of taste."""

FRAME_SIDES = (144, 169)
"""Sides of a picture or a frame in pixels: at least, and below."""
_MIN_CONTRAST = 70
_JITTER = 16


def draw_palette(rng: np.random.Generator, ends: np.ndarray) -> tuple[list[str], list[str]]:
    """Colours that stand out from the ground, and shapes; few of each, so that things repeat."""
    visible = [name for name, rgb in COLOURS.items() if np.abs(np.array(rgb) - ends).max(axis=1).min() >= _MIN_CONTRAST]
    num_colours = int(rng.integers(2, 6))
    num_shapes = int(rng.integers(2, 6))
    colours = [visible[i] for i in rng.permutation(len(visible))[:num_colours]]
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:num_shapes]]
    return colours, shapes


def shade(rng: np.random.Generator, colour: str) -> np.ndarray:
    """(3,) int32: a shade of a colour."""
    return np.clip(np.array(COLOURS[colour]) + rng.integers(-_JITTER, _JITTER + 1, size=3), 0, 255).astype(np.int32)
