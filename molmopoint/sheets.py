"""Sheets: small pictures side by side, each with lines of text below, on one page. PIL only, so that they
look the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GREY, ALARM = (246, 246, 248), (28, 28, 32), (110, 112, 120), (214, 20, 50)
_HEADER = 34
"""Height of the title's line."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Caption:
    """A line of text below a picture.

    Attributes:
        text: cut with dots where it is too long.
        size: of the letters, in pixels.
        colour: of the letters.
        note: a few words at the right edge of the same line, in the colour of alarm.
    """

    text: str
    size: int = 13
    colour: tuple[int, int, int] = INK
    note: str = ""


def draw_sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[Sequence[Caption]],
    title: str,
    *,
    columns: int,
    gap: int = 14,
    line: int = 22,
) -> Image.Image:
    """All pictures on one page.

    Args:
        pictures: one or more, all of one size.
        captions: lines below each of them, as many for each.
        title: above them all.
        columns: pictures side by side.
        gap: pixels between them.
        line: height of a line of text.

    Returns:
        An RGB picture.
    """
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    width, height = pictures[0].size
    across = width + gap
    down = height + line * len(captions[0]) + gap
    sheet = Image.new("RGB", (columns * across + gap, _HEADER + rows * down + gap), PAPER)
    pen = ImageDraw.Draw(sheet)
    title_font = font_of(17)
    pen.text(
        (gap, _HEADER / 2 + 2),
        fitted(title, title_font, sheet.width - 2 * gap),
        font=title_font,
        fill=INK,
        anchor="lm",
    )
    for i, (picture, lines) in enumerate(zip(pictures, captions, strict=True)):
        left = gap + (i % columns) * across
        top = _HEADER + (i // columns) * down
        sheet.paste(picture, (left, top))
        for number, caption in enumerate(lines):
            middle = top + height + line * (number + 0.5) + 3
            _write(pen, caption, left, left + width, middle)
    return sheet


def _write(pen: ImageDraw.ImageDraw, caption: Caption, left: float, right: float, middle: float) -> None:
    """One line of text between two edges, its note first, because that must be whole."""
    font = font_of(caption.size)
    end = right - 2
    if caption.note:
        pen.text((end, middle), caption.note, font=font, fill=ALARM, anchor="rm")
        end -= font.getlength(caption.note) + caption.size
    pen.text(
        (left + 2, middle),
        fitted(caption.text, font, end - left - 2),
        font=font,
        fill=caption.colour,
        anchor="lm",
    )


def fitted(text: str, font: Font, width: float) -> str:
    """The text on one line, cut with dots where it is wider than `width` pixels."""
    line = " ".join(text.split())[:400]
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip() + "..."


@lru_cache(maxsize=64)
def font_of(size: int) -> Font:
    """PIL's own font: the same on every machine."""
    return ImageFont.load_default(size=size)
