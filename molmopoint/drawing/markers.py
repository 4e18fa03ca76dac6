"""Markers of points: how large they are, and what they look like.

A marker is a coloured shape inside a white ring inside a dark ring, so that it stays readable on any background.
All sizes follow the picture's size.

Letters: n points.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from molmopoint.drawing.colours import DARK, LIGHT, Colour
from molmopoint.drawing.words import SMALLEST_FONT, own_font
from molmopoint.errors import ProcessingError

STYLES = ("marker", "dot", "crosshair")
"""Shapes of markers: discs with numbers, small dots, and crosses with an open middle."""

_READABLE = 0.011
"""Smallest letters as a part of the picture's mean side: at the size of a screen they can be read."""

_EASY_FONT = 10
"""Pixels of letters that are read without effort, used where that is no more than a twentieth of the side."""

_DISC = 1.08
"""Letters of two digits in a disc, in radii."""

_OVERSAMPLING = 4
"""Markers are drawn this much larger and shrunk, because Pillow draws without antialiasing."""

_LARGE = 40
"""Pixels of radius beyond which half of that is enough."""

_SMALLEST_RADIUS = 1.5
"""Of markers, in pixels."""

_DOT = 0.45
"""Radius of a dot, as a part of that of a disc."""

_HOLLOW = 5.0
"""Pixels of radius from which a disc without a number has a white middle; smaller ones would be pale."""

_THINNEST = 0.8
"""Half the width of the arms of a cross in pixels, at least."""

_NARROW = 4
"""A picture this many times wider than high, or more, has the sizes of a shorter one."""

_TINY_PICTURE = 0.05
"""Radius as a part of the mean side at most; it matters on pictures of less than 150 pixels."""


def marker_radius(size: tuple[int, int], num_points: int) -> float:
    """Radius of a marker in pixels for a picture of (width, height): smaller when there are very many points,
    but large enough for two digits that can be read.

    >>> marker_radius((1000, 1000), 3)
    19.0
    """
    crowd = min(1.0, (60 / max(num_points, 1)) ** 0.5)
    return max(smallest_letters(size) / _DISC, mean_side(size) * 0.019 * max(crowd, 0.5))


def largest_radius(size: tuple[int, int]) -> float:
    """Radius in pixels beyond which a marker hides too much of a picture of (width, height)."""
    return max(_SMALLEST_RADIUS, mean_side(size) * _TINY_PICTURE)


def smallest_letters(size: tuple[int, int]) -> float:
    """Pixels of the smallest letters that can be read on a picture of (width, height) at the size of a screen."""
    side = mean_side(size)
    return max(SMALLEST_FONT, min(side * 0.05, _EASY_FONT), side * _READABLE)


def mean_side(size: tuple[int, int]) -> float:
    """Side of the square of the same area, in pixels; of very long pictures less."""
    width, height = size
    return min((width * height) ** 0.5, _NARROW * min(width, height))


def check_style(style: Any) -> None:
    """Refuses a style that there is not.

    Raises:
        ProcessingError: with the nearest one.
    """
    if style in STYLES:
        return
    near = difflib.get_close_matches(str(style), STYLES, n=1)
    hint = f"did you mean {near[0]}?" if near else "choose one of them"
    raise ProcessingError(
        f"expected the style {', '.join(STYLES[:-1])} or {STYLES[-1]}, got {style!r}; {hint}"
    )


@dataclass(frozen=True)
class Marker:
    """One marker as it is drawn.

    Attributes:
        x: of its middle, in pixels.
        y: of its middle.
        radius: without its rings.
        colour: of the object.
        number: that is written into it; empty where it stands beside it.
        style: one of `STYLES`.
    """

    x: float
    y: float
    radius: float
    colour: Colour
    number: str
    style: str

    @property
    def reach(self) -> tuple[float, float]:
        """Pixels from the middle to the sides and up and down, rings included."""
        ring = sum(_rings(self.radius))
        return _half_width(self.radius, self.number) + ring, self.radius + ring

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        across, up = self.reach
        return self.x - across, self.y - up, self.x + across, self.y + up

    def paint(self, canvas: Image.Image) -> None:
        """Puts the marker on a picture, centred to a quarter of a pixel."""
        left, top = int(np.floor(self.x)), int(np.floor(self.y))
        part_x, part_y = round((self.x - left) * 4) / 4, round((self.y - top) * 4) / 4
        stamp = _stamp(self.radius, self.colour, self.number, self.style, part_x, part_y)
        canvas.paste(stamp, (left - stamp.width // 2, top - stamp.height // 2), stamp)


def size_markers(
    size: tuple[int, int],
    xy: np.ndarray,
    numbers: list[str],
    style: str,
    largest: float,
    smallest_text: float,
) -> list[tuple[float, str]]:
    """Radius of every marker, and what is written into it.

    Where neighbours are near, markers are smaller, so that none covers another. A number is written into a
    marker that lies whole inside the picture and is large enough for it; otherwise a dot is left.

    Args:
        size: width and height of the picture.
        xy: (n, 2) pixels.
        numbers: of the points; empty for none.
        style: one of `STYLES`.
        largest: radius where there is room.
        smallest_text: pixels of the smallest letters that are readable.
    """
    side = mean_side(size)
    room = _room(xy)  # (n,)
    tiny = max(_SMALLEST_RADIUS, side * 0.002)
    sized = []
    for (x, y), own_room, number in zip(xy.tolist(), room.tolist(), numbers, strict=True):
        radius = max(min(largest, own_room / (1 + sum(_rings(1.0)))), tiny)
        if style == "crosshair":
            sized.append((radius, ""))
            continue
        whole = Marker(x, y, radius, DARK, number, style)
        left, top, right, bottom = whole.box
        is_inside = left >= 0 and top >= 0 and right <= size[0] and bottom <= size[1]
        is_readable = radius * _letter_height(number) >= smallest_text
        is_apart = whole.reach[0] <= own_room  # a long number is wider than high
        if style == "marker" and is_inside and is_apart and (is_readable or not number):
            sized.append((radius, number))
        else:
            sized.append((max(min(radius, largest * _DOT), tiny), ""))
    return sized


def _room(xy: np.ndarray) -> np.ndarray:
    """(n,) half the distance of each point (n, 2) to its nearest neighbour; infinite for a single one."""
    if len(xy) < 2:
        return np.full(len(xy), np.inf)
    from scipy.spatial import cKDTree  # here, because it takes a while to load

    distance, _ = cKDTree(xy).query(xy, k=2)
    return np.asarray(distance)[:, 1] / 2  # the first is the point itself


def _rings(radius: float) -> tuple[float, float]:
    """Widths of the white ring and of the dark one around it."""
    return max(min(1.2, radius * 0.5), radius * 0.16), max(min(0.8, radius * 0.3), radius * 0.1)


def _letter_height(number: str) -> float:
    """Size of the letters in a disc, in radii."""
    if len(number) < 2:
        return 1.3
    return _DISC if len(number) == 2 else 0.86


def _half_width(radius: float, number: str) -> float:
    """Half the width of a disc, or of a pill where a number is longer than a disc is wide."""
    if len(number) < 3:
        return radius
    size = round(radius * _letter_height(number) * _OVERSAMPLING)
    return max(radius, own_font(size).getlength(number) / _OVERSAMPLING / 2 + radius * 0.3)


@lru_cache(maxsize=1024)
def _stamp(
    radius: float, colour: Colour, number: str, style: str, part_x: float, part_y: float
) -> Image.Image:
    """An RGBA picture of a marker, whose middle is this part of a pixel right of and below its own."""
    scale = _OVERSAMPLING if radius < _LARGE else _OVERSAMPLING // 2
    light, dark = _rings(radius)
    half_width = _half_width(radius, number)
    # One pixel more on every side, for the part of a pixel.
    half = (int(half_width + light + dark) + 2, int(radius + light + dark) + 2)
    stamp = Image.new("RGBA", (2 * half[0] * scale, 2 * half[1] * scale), (*DARK, 0))
    pen = ImageDraw.Draw(stamp)
    middle = ((half[0] + part_x) * scale, (half[1] + part_y) * scale)
    for ring, fill in ((light + dark, (*DARK, 170)), (light, (*LIGHT, 255)), (0.0, (*colour, 255))):
        if style == "crosshair":
            _cross(pen, middle, radius * scale, ring * scale, scale, fill)
        else:
            reach = ((half_width + ring) * scale, (radius + ring) * scale)
            pen.rounded_rectangle(_box_around(middle, reach), radius=reach[1], fill=fill)
    if number:
        size = max(round(radius * _letter_height(number) * scale), SMALLEST_FONT)
        pen.text(middle, number, font=own_font(size), fill=(*LIGHT, 255), anchor="mm")
    elif style == "marker" and radius >= _HOLLOW:
        dot = radius * 0.28 * scale
        pen.ellipse(_box_around(middle, (dot, dot)), fill=(*LIGHT, 255))
    return stamp.resize((2 * half[0], 2 * half[1]), Image.Resampling.BOX)


def _cross(
    pen: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    length: float,
    ring: float,
    scale: int,
    fill: tuple[int, int, int, int],
) -> None:
    """Four arms around an open middle, which leaves the very pixel to be seen; a ring widens them.

    All lengths are in pixels of the stamp, which is `scale` times as large as the picture.
    """
    thick = max(length * 0.09, _THINNEST * scale) + ring * 0.5
    x, y = middle
    inner, outer = length * 0.3 - ring * 0.5, length + ring * 0.5
    for sign in (-1, 1):
        near, far = sorted((sign * inner, sign * outer))
        pen.rectangle((x + near, y - thick, x + far, y + thick), fill=fill)
        pen.rectangle((x - thick, y + near, x + thick, y + far), fill=fill)


def _box_around(middle: tuple[float, float], reach: tuple[float, float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of a box that reaches so far from its middle, across and down."""
    return middle[0] - reach[0], middle[1] - reach[1], middle[0] + reach[0], middle[1] + reach[1]
