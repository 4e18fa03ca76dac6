"""Pictures that glow where a model looked."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

_BLUR = 0.02
"""Blur of heatmaps, as a share of the picture's mean side."""

_GLOW = (
    (60, 0, 120),
    (160, 0, 130),
    (230, 30, 70),
    (250, 110, 20),
    (255, 200, 40),
)
"""Colours of a heatmap from its coldest place to its hottest."""


def draw_heatmap(picture: Image.Image, heat: np.ndarray, *, strength: float = 0.75) -> Image.Image:
    """A copy of the picture that glows where the heat is.

    Args:
        picture: any mode.
        heat: (height, width) over the whole picture, in its pixels or coarser, 0 or more; only its shape
            matters, the largest value glows most.
        strength: opacity at the largest value, 0..1.

    Returns:
        An RGB picture of the same size.
    """
    canvas = picture.convert("RGB").copy()
    hottest = float(heat.max(initial=0.0))
    if hottest <= 0:
        return canvas
    # The square root lifts the second-best places, which is what one looks at a heatmap for.
    level = np.sqrt(np.clip(heat / hottest, 0.0, 1.0))
    mask = Image.fromarray(np.round(level * 255).astype(np.uint8))
    # A little blur hides the edges of the ViT patches, which mean nothing in the picture.
    blur = ImageFilter.GaussianBlur(_BLUR * (mask.width * mask.height) ** 0.5)
    glow = np.asarray(mask.filter(blur))  # (cells down, cells across) in 0..255
    # Colour and opacity are smooth: they are made small, and scaled to the picture.
    colours = Image.fromarray(np.round(_glow_colours()[glow]).astype(np.uint8))
    opacity = Image.fromarray(np.round(strength * glow.astype(np.float32)).astype(np.uint8))
    if colours.size != canvas.size:
        colours = colours.resize(canvas.size, Image.Resampling.BILINEAR)
        opacity = opacity.resize(canvas.size, Image.Resampling.BILINEAR)
    canvas.paste(colours, (0, 0), opacity)
    return canvas


@lru_cache(maxsize=1)
def _glow_colours() -> np.ndarray:
    """(256, 3) float32: from deep violet over red and orange to yellow."""
    levels = np.arange(256)
    positions = np.linspace(0, 255, len(_GLOW))
    channels = [np.interp(levels, positions, stops) for stops in zip(*_GLOW, strict=True)]
    return np.stack(channels, axis=1).astype(np.float32)
