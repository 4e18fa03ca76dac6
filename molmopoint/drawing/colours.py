"""The colour of an object, the same in every picture."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]
"""Red, green and blue in 0..255."""

DARK: Colour = (20, 20, 24)
LIGHT: Colour = (255, 255, 255)

_PALETTE: tuple[Colour, ...] = (
    (230, 40, 100), (0, 122, 255), (18, 150, 84), (255, 128, 0), (142, 68, 222),
    (0, 150, 170), (200, 30, 30), (90, 110, 20), (220, 60, 190), (60, 80, 200),
)  # fmt: skip
"""Strong colours on which white digits are readable; neighbours differ clearly."""


def colour_of(object_id: int) -> Colour:
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
