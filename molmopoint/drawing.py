"""Numbered markers, captions and heatmaps on pictures, with nothing but PIL; and writing pictures to files.

Every marker is a coloured disc inside a white ring inside a dark ring, so it stays readable on any
background. All sizes follow the picture's size.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from molmopoint.errors import ProcessingError
from molmopoint.files import written_whole
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

_GLOW = (
    (60, 0, 120),
    (160, 0, 130),
    (230, 30, 70),
    (250, 110, 20),
    (255, 200, 40),
)
"""Colours of a heatmap from its coldest place to its hottest."""

_DARK = (20, 20, 24)
_LIGHT = (255, 255, 255)

_JPEG_OPTIONS = {"quality": 95, "subsampling": 0}

_TITLE_LETTERS = 200
"""Most letters of a title; a line of a thousand is no title."""


def draw_points(
    picture: Image.Image,
    points: Sequence[Point],
    *,
    numbers: bool = True,
    radius: float | None = None,
    labels: bool = False,
    scores: bool = False,
) -> Image.Image:
    """A copy of the picture with one marker per point.

    Args:
        picture: the displayed picture, any mode.
        points: points of this picture, `x` and `y` in its pixels.
        numbers: write the object id into the marker; equal ids share a colour either way.
        radius: of a marker, in pixels; by default about one fiftieth of the picture's mean side.
        labels: write the phrase of a point beside its marker.
        scores: write the score of a point beside its marker.

    Returns:
        An RGB picture of the same size.

    Raises:
        ProcessingError: the radius is not positive, or larger than the picture.
    """
    if radius is not None and not 0 < radius <= max(picture.size):
        raise ProcessingError(
            f"expected a radius above 0 and at most the longer side, {max(picture.size)} pixels, got {radius}"
        )
    canvas = picture.convert("RGB").copy()
    if radius is None:
        radius = marker_radius(canvas.size, len(points))
    for point in points:
        label = str(point.object_id) if numbers else ""
        stamp = _marker(radius, colour_of(point.object_id), label)
        left = round(point.x - stamp.width / 2)
        top = round(point.y - stamp.height / 2)
        canvas.paste(stamp, (left, top), stamp)
    # After all markers, so that words are never below one.
    for point in points:
        words = _caption(point, labels, scores)
        if words:
            _write_beside(canvas, point, words, radius)
    return canvas


def draw_title(picture: Image.Image, title: str) -> Image.Image:
    """The picture below a dark strip with a title, which is cut where it is wider than the picture.

    Returns:
        An RGB picture of the same width that is a little higher.
    """
    font = _font(round(marker_radius(picture.size, 0) * 1.2))
    text = " ".join(title.split())[:_TITLE_LETTERS]
    margin = font.getlength("n")
    while text and font.getlength(text) > picture.width - 2 * margin:
        text = text[:-1]
    _, _, _, letters = font.getbbox("Ag")
    strip = round(letters + margin)
    page = Image.new("RGB", (picture.width, picture.height + strip), _DARK)
    page.paste(picture, (0, strip))
    ImageDraw.Draw(page).text((margin, strip / 2), text, font=font, fill=_LIGHT, anchor="lm")
    return page


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


def write_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture in the format of the ending so that `path` is either the old file or the whole new
    one.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    file_format = Image.registered_extensions()[path.suffix.lower()]
    options = _JPEG_OPTIONS if file_format == "JPEG" else {}
    with written_whole(path) as beside:
        picture.save(beside, format=file_format, **options)


def picture_endings() -> set[str]:
    """Endings of the files that `write_picture` can write, such as ".png"."""
    Image.init()
    return {ending for ending, name in Image.registered_extensions().items() if name in Image.SAVE}


def marker_radius(size: tuple[int, int], num_points: int) -> float:
    """Radius of a marker in pixels for a picture of (width, height): smaller when there are very many points.

    >>> marker_radius((1000, 1000), 3)
    19.0
    """
    side = (size[0] * size[1]) ** 0.5
    crowd = min(1.0, (60 / max(num_points, 1)) ** 0.5)
    return max(5.0, side * 0.019 * max(crowd, 0.5))


def colour_of(object_id: int) -> tuple[int, int, int]:
    """Colour of an object, the same in every picture; beyond the palette the hue walks on by the golden
    angle.
    """
    index = object_id - 1
    if 0 <= index < len(_PALETTE):
        return _PALETTE[index]
    hue = (object_id * 0.381966) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.8)
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue
    # Greens and yellows are too bright for white digits.
    shade = min(1.0, 0.45 / brightness)
    return round(red * shade * 255), round(green * shade * 255), round(blue * shade * 255)


def _caption(point: Point, labels: bool, scores: bool) -> str:
    """What is written beside a point; empty for nothing."""
    words = []
    if labels and point.label:
        words.append(" ".join(point.label.split())[:_TITLE_LETTERS])
    if scores and not math.isnan(point.score):
        words.append(f"{point.score:.2f}")
    return "  ".join(words)


def _write_beside(canvas: Image.Image, point: Point, words: str, radius: float) -> None:
    """Words on a dark plate to the right of a marker; to its left where they would leave the picture."""
    font = _font(round(radius * 0.9))
    left, top, right, bottom = font.getbbox(words)
    margin = radius * 0.3
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    gap = radius * 1.4
    x = point.x + gap
    if x + width > canvas.width and point.x - gap - width >= 0:
        x = point.x - gap - width
    x = max(0.0, min(x, canvas.width - width))
    y = max(0.0, min(point.y - height / 2, canvas.height - height))
    pen = ImageDraw.Draw(canvas, "RGBA")
    pen.rounded_rectangle((x, y, x + width, y + height), radius=margin, fill=(*_DARK, 200))
    pen.text((x + margin - left, y + margin - top), words, font=font, fill=(*_LIGHT, 255))


@lru_cache(maxsize=512)
def _marker(radius: float, colour: tuple[int, int, int], label: str) -> Image.Image:
    """An RGBA stamp: a disc that names its object, or a long pill where the label has more than two
    characters.
    """
    scale = _OVERSAMPLING
    letter_height = 1.3 if len(label) < 2 else 1.08  # in radii
    font = _font(round(radius * letter_height * scale))
    text_width = font.getlength(label) / scale
    half_width = max(radius, text_width / 2 + radius * 0.45)
    light_ring = max(1.2, radius * 0.16)
    dark_ring = light_ring + max(0.8, radius * 0.1)
    width = 2 * (half_width + dark_ring) + 2
    height = 2 * (radius + dark_ring) + 2

    stamp = Image.new("RGBA", (round(width * scale), round(height * scale)), (*_DARK, 0))
    pen = ImageDraw.Draw(stamp)
    middle = (stamp.width / 2, stamp.height / 2)
    layers = ((dark_ring, (*_DARK, 170)), (light_ring, (*_LIGHT, 255)), (0.0, (*colour, 255)))
    for ring, fill in layers:
        reach = ((half_width + ring) * scale, (radius + ring) * scale)
        pen.rounded_rectangle(_box_around(middle, reach), radius=reach[1], fill=fill)
    if label:
        pen.text(middle, label, font=font, fill=(*_LIGHT, 255), anchor="mm")
    else:
        dot = radius * 0.28 * scale
        pen.ellipse(_box_around(middle, (dot, dot)), fill=(*_LIGHT, 255))
    return stamp.resize((round(width), round(height)), Image.Resampling.LANCZOS)


def _box_around(middle: tuple[float, float], reach: tuple[float, float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of a box that reaches so far from its middle, across and down."""
    return middle[0] - reach[0], middle[1] - reach[1], middle[0] + reach[0], middle[1] + reach[1]


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """PIL's own font: the same on every machine."""
    return ImageFont.load_default(size=max(size, 8))


@lru_cache(maxsize=1)
def _glow_colours() -> np.ndarray:
    """(256, 3) float32: from deep violet over red and orange to yellow."""
    levels = np.arange(256)
    positions = np.linspace(0, 255, len(_GLOW))
    channels = [np.interp(levels, positions, stops) for stops in zip(*_GLOW, strict=True)]
    return np.stack(channels, axis=1).astype(np.float32)
