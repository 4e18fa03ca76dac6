"""Labels: words on a plate in the colour of their object, and the line that links them to their point."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from molmopoint.drawing.colours import DARK, LIGHT, Colour
from molmopoint.drawing.placing import nearest_in
from molmopoint.drawing.words import Font, font_for, in_lines

_LONGEST = 22
"""Width of a line at most, in heights of its letters: longer ones are hard to read."""

MOST_LINES = 3
"""Lines of a label at most."""

_OVERSAMPLING = 3
"""Plates and lines are drawn this much larger and shrunk, because Pillow draws without antialiasing."""

_CASING = 150
"""Opacity of the white along a line, of 255: less where many lines meet hides less."""

_LARGE_LINE = 1_000_000
"""Pixels of the box around a line beyond which it is thick enough to be drawn as it is."""

_LINE_PITCH = 1.2
"""From one line to the next, in heights of a line."""


@dataclass(frozen=True)
class Label:
    """The words about one point.

    Attributes:
        point: x and y in pixels.
        colour: of the object.
        lines: of words; none for a point without a label.
        font: they are written in.
        letters: size of the font in pixels.
        top: pixels from the line of the font to the top of the letters.
        size: width and height of the plate in whole pixels; 0 without lines.
    """

    point: tuple[float, float]
    colour: Colour
    lines: tuple[str, ...]
    font: Font
    letters: float
    top: float
    size: tuple[int, int]

    @classmethod
    def of(
        cls,
        point: tuple[float, float],
        colour: Colour,
        text: str,
        letters: float,
        width: float,
        font: str | os.PathLike[str] | None,
        most_lines: int = MOST_LINES,
    ) -> Label:
        """A label that is as wide as its words, or in several lines of at most a width in pixels."""
        written = font_for(text, letters, font)
        if not text:
            return cls(point, colour, (), written, letters, 0.0, (0, 0))
        margin = _margin(letters)
        room = min(width - 2 * margin, _LONGEST * letters)
        lines = tuple(in_lines(text, written, max(room, letters), most_lines))
        # Digits have nothing below the line; words get the same height whatever their letters are.
        sample = text if text.isdecimal() else text + "Ag"
        _, top, _, bottom = written.getbbox(sample)
        height = (bottom - top) * (1 + _LINE_PITCH * (len(lines) - 1))
        longest = max(written.getlength(line) for line in lines)
        size = (int(np.ceil(longest + 2 * margin)), int(np.ceil(height + 1.6 * margin)))
        return cls(point, colour, lines, written, letters, top, size)

    def paint_line(self, canvas: Image.Image, box: np.ndarray) -> None:
        """Links the point to a label at a box (4,)."""
        end = nearest_in(box[None], np.array(self.point))[0]
        ends = np.array([self.point, end])  # (2, 2)
        core = max(1.0, self.letters * 0.09)
        casing = core + 2 * max(0.7, self.letters * 0.05)
        low = np.floor(ends.min(axis=0) - casing).astype(int)
        high = np.ceil(ends.max(axis=0) + casing).astype(int)
        width, height = (high - low).tolist()
        scale = _OVERSAMPLING if width * height <= _LARGE_LINE else 1
        places = [tuple(place) for place in ((ends - low) * scale).tolist()]
        for thickness, colour, opacity in ((casing, LIGHT, _CASING), (core, self.colour, 255)):
            mask = Image.new("L", (width * scale, height * scale))
            ImageDraw.Draw(mask).line(places, fill=opacity, width=max(1, round(thickness * scale)))
            mask = mask.resize((width, height), Image.Resampling.BOX)
            canvas.paste(colour, (int(low[0]), int(low[1])), mask)

    def paint(self, canvas: Image.Image, box: np.ndarray) -> None:
        """Writes the words on a plate at a box (4,) of whole pixels."""
        left, top = int(box[0]), int(box[1])
        plate = _plate(self.size, self.colour, self.letters)
        canvas.paste(plate, (left, top), plate)
        margin = _margin(self.letters)
        pen = ImageDraw.Draw(canvas)
        line_height = (self.size[1] - 1.6 * margin) / (1 + _LINE_PITCH * (len(self.lines) - 1))
        y = top + 0.8 * margin - self.top
        for line in self.lines:
            pen.text((left + margin, y), line, font=self.font, fill=LIGHT)
            y += line_height * _LINE_PITCH


def _margin(letters: float) -> float:
    """Pixels between the words and the sides of the plate, rings included."""
    return max(2.5, letters * 0.32)


@lru_cache(maxsize=512)
def _plate(size: tuple[int, int], colour: Colour, letters: float) -> Image.Image:
    """An RGBA plate with round corners inside a white ring inside a dark ring."""
    width, height = size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING
    plate = Image.new("RGBA", (width, height), (*DARK, 0))
    pen = ImageDraw.Draw(plate)
    corner = min(letters * 0.35 * _OVERSAMPLING, height / 2)
    dark = max(0.6, letters * 0.04) * _OVERSAMPLING
    light = max(0.8, letters * 0.07) * _OVERSAMPLING
    for ring, fill in ((0.0, (*DARK, 170)), (dark, (*LIGHT, 255)), (dark + light, (*colour, 255))):
        box = (ring, ring, width - 1 - ring, height - 1 - ring)
        pen.rounded_rectangle(box, radius=max(corner - ring, 1), fill=fill)
    return plate.resize(size, Image.Resampling.BOX)
