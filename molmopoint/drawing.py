"""Numbered markers and heatmaps on pictures, with nothing but PIL.

Every marker is a coloured disc inside a white ring inside a dark ring, so it stays readable on any background. All sizes
follow the picture's size.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from molmopoint.errors import ProcessingError
from molmopoint.points import Point

_PALETTE = (
    (230, 40, 100), (0, 122, 255), (18, 150, 84), (255, 128, 0), (142, 68, 222),
    (0, 150, 170), (200, 30, 30), (90, 110, 20), (220, 60, 190), (60, 80, 200),
)  # fmt: skip
"""Strong colours on which white digits are readable; neighbours differ clearly."""

_OVERSAMPLING = 4
"""Markers are drawn this much larger and shrunk, because PIL draws without antialiasing."""

_BLUR = 0.012
"""Blur of heatmaps, as a share of the picture's mean side."""

_DARK, _LIGHT = (20, 20, 24), (255, 255, 255)


def draw_points(picture: Image.Image, points: Sequence[Point], *, numbers: bool = True, radius: float | None = None) -> Image.Image:
    """A copy of the picture with one marker per point.

    Args:
        picture: the displayed picture, any mode.
        points: points of this picture, `x` and `y` in its pixels.
        numbers: write the object id into the marker; equal ids share a colour either way.
        radius: of a marker, in pixels; by default about one fiftieth of the picture's mean side.

    Returns:
        An RGB picture of the same size.

    Raises:
        ProcessingError: the radius is not positive, or larger than the picture.
    """
    if radius is not None and not 0 < radius <= max(picture.size):
        raise ProcessingError(f"expected a radius above 0 and at most the longer side, {max(picture.size)} pixels, got {radius}")
    canvas = picture.convert("RGB").copy()
    size = radius if radius is not None else marker_radius(canvas.size, len(points))
    for point in points:
        stamp = _marker(size, colour_of(point.object_id), str(point.object_id) if numbers else "")
        left, top = round(point.x - stamp.width / 2), round(point.y - stamp.height / 2)
        canvas.paste(stamp, (left, top), stamp)
    return canvas


def draw_heatmap(picture: Image.Image, heat: np.ndarray, *, strength: float = 0.75) -> Image.Image:
    """A copy of the picture that glows where the heat is.

    Args:
        picture: any mode.
        heat: (height, width) of the picture, 0 or more; only its shape matters, the largest value glows most.
        strength: opacity at the largest value, 0..1.

    Returns:
        An RGB picture of the same size.
    """
    base = np.asarray(picture.convert("RGB"), dtype=np.float32)
    top = float(heat.max(initial=0.0))
    # The square root lifts the second-best places, which is what one looks at a heatmap for.
    level = np.sqrt(np.clip(heat / top, 0.0, 1.0)) if top > 0 else np.zeros(base.shape[:2])
    mask = Image.fromarray(np.round(level * 255).astype(np.uint8))
    # A little blur hides the edges of the ViT patches, which mean nothing in the picture.
    glow = np.asarray(mask.filter(ImageFilter.GaussianBlur(_BLUR * (mask.width * mask.height) ** 0.5)))
    colours = _glow_colours()[glow]
    opacity = (strength / 255 * glow.astype(np.float32))[..., None]
    return Image.fromarray(np.round(base * (1 - opacity) + colours * opacity).astype(np.uint8))


def marker_radius(size: tuple[int, int], num_points: int) -> float:
    """Radius of a marker in pixels for a picture of (width, height): smaller when there are very many points.

    >>> marker_radius((1000, 1000), 3)
    19.0
    """
    side = (size[0] * size[1]) ** 0.5
    crowd = min(1.0, (60 / max(num_points, 1)) ** 0.5)
    return max(5.0, side * 0.019 * max(crowd, 0.5))


def colour_of(object_id: int) -> tuple[int, int, int]:
    """Colour of an object, the same in every picture; beyond the palette the hue walks on by the golden angle."""
    index = object_id - 1
    if 0 <= index < len(_PALETTE):
        return _PALETTE[index]
    red, green, blue = colorsys.hsv_to_rgb((object_id * 0.381966) % 1.0, 0.85, 0.8)
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue
    shade = min(1.0, 0.45 / brightness)  # greens and yellows need it: the digits are white
    return round(red * shade * 255), round(green * shade * 255), round(blue * shade * 255)


@lru_cache(maxsize=512)
def _marker(radius: float, colour: tuple[int, int, int], label: str) -> Image.Image:
    """An RGBA stamp: a disc that names its object, or a long pill where the label has more than two characters."""
    scale = _OVERSAMPLING
    ring, halo = max(1.2, radius * 0.16), max(0.8, radius * 0.1)
    font = _font(round(radius * (1.3 if len(label) < 2 else 1.08) * scale))
    text_width = font.getlength(label) / scale
    half_width = max(radius, text_width / 2 + radius * 0.45)
    outer = ring + halo
    width, height = 2 * (half_width + outer) + 2, 2 * (radius + outer) + 2
    stamp = Image.new("RGBA", (round(width * scale), round(height * scale)), (*_DARK, 0))
    pen = ImageDraw.Draw(stamp)
    middle_x, middle_y = stamp.width / 2, stamp.height / 2
    for grow, fill in ((outer, (*_DARK, 170)), (ring, (*_LIGHT, 255)), (0.0, (*colour, 255))):
        x, y = (half_width + grow) * scale, (radius + grow) * scale
        pen.rounded_rectangle((middle_x - x, middle_y - y, middle_x + x, middle_y + y), radius=y, fill=fill)
    if label:
        pen.text((middle_x, middle_y), label, font=font, fill=(*_LIGHT, 255), anchor="mm")
    else:
        dot = radius * 0.28 * scale
        pen.ellipse((middle_x - dot, middle_y - dot, middle_x + dot, middle_y + dot), fill=(*_LIGHT, 255))
    return stamp.resize((round(width), round(height)), Image.Resampling.LANCZOS)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """PIL's own font: the same on every machine."""
    return ImageFont.load_default(size=max(size, 8))


@lru_cache(maxsize=1)
def _glow_colours() -> np.ndarray:
    """(256, 3) float32: from deep violet over red and orange to yellow."""
    stops = np.array([[60, 0, 120], [160, 0, 130], [230, 30, 70], [250, 110, 20], [255, 200, 40]], dtype=np.float32)
    at = np.linspace(0, 255, len(stops))
    return np.stack([np.interp(np.arange(256), at, stops[:, channel]) for channel in range(3)], axis=1).astype(np.float32)
