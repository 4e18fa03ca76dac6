"""Words on pictures: fonts, lines of a given width, and plates to write on.

Pillow's own font knows the Latin letters of English and its neighbours, and is the same on every machine. Words
with other letters are written in a font of the machine that has them, or in one that the caller names.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from molmopoint.errors import ProcessingError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SMALLEST_FONT = 8
"""Pixels below which letters of Pillow's font run into each other."""

_MOST_LETTERS = 200
"""Of a label or a title: a line of a thousand is none."""

_ELLIPSIS = "\u2026"

_OTHER_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc",
    "Arial Unicode.ttf", "PingFang.ttc", "AppleSDGothicNeo.ttc", "GeezaPro.ttc", "msyh.ttc", "YuGothM.ttc", "malgun.ttf",
    "Nirmala.ttf", "segoeui.ttf", "arial.ttf",
)  # fmt: skip
"""Fonts of Linux, macOS and Windows that are tried for letters that Pillow's font lacks, in this order."""

_NO_LETTER = "\U0010ffff"
"""Is in no font: what a font draws for it, it draws for everything that it lacks."""


def one_line(text: str) -> str:
    """Text without line ends and control characters, of 200 letters at most."""
    words = " ".join(text.split())
    shown = "".join(letter for letter in words if letter.isprintable())
    return shown if len(shown) <= _MOST_LETTERS else shown[: _MOST_LETTERS - 1].rstrip() + _ELLIPSIS


def check_font(font: str | os.PathLike[str] | None) -> None:
    """Refuses what is no font.

    Raises:
        ProcessingError: Pillow cannot read it.
    """
    if font is None:
        return
    try:
        ImageFont.truetype(os.fspath(font), SMALLEST_FONT)
    except (OSError, TypeError, ValueError) as error:
        raise ProcessingError(
            f"expected the path of a TrueType or OpenType font, got {str(font)!r} ({error}); leave font= out "
            "for the one of Pillow"
        ) from error


def font_for(text: str, size: float, named: str | os.PathLike[str] | None = None) -> Font:
    """The font in which a text is written.

    Args:
        text: what is written.
        size: pixels of a line; 8 at least.
        named: file of a font that is used whatever the text is.
    """
    pixels = max(round(size), SMALLEST_FONT)
    if named is not None:
        return _file_font(os.fspath(named), pixels)
    lacking = _letters_lacking(text)
    if not lacking:
        return own_font(pixels)
    name = _font_with(lacking)
    return own_font(pixels) if name is None else _file_font(name, pixels)


@lru_cache(maxsize=64)
def own_font(size: int) -> Font:
    """Pillow's own font: the same on every machine."""
    return ImageFont.load_default(size=max(size, SMALLEST_FONT))


@lru_cache(maxsize=64)
def _file_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size)


def _letters_lacking(text: str) -> str:
    """The letters of a text that Pillow's font does not have, each once, in order."""
    if text.isascii():
        return ""
    return "".join(letter for letter in dict.fromkeys(text) if not _has(own_font(16), letter))


def _has(font: Font, letter: str) -> bool:
    """Whether a font has a letter, and not only a box for it."""
    if letter.isspace():
        return True
    return _shape_of(letter, font) != _shape_of(_NO_LETTER, font)


def _shape_of(letter: str, font: Font) -> bytes:
    """The pixels that a font draws for a letter."""
    paper = Image.new("L", (48, 48))
    ImageDraw.Draw(paper).text((12, 12), letter, font=font, fill=255)
    return paper.tobytes()


@lru_cache(maxsize=256)
def _font_with(letters: str) -> str | None:
    """The font of this machine that has most of the letters, the earlier one of equals; None where none has
    one.
    """
    best, most = None, 0
    for name in _fonts_here():
        font = _file_font(name, 16)
        known = sum(_has(font, letter) for letter in letters)
        if known > most:
            best, most = name, known
        if most == len(letters):
            break
    return best


@lru_cache(maxsize=1)
def _fonts_here() -> tuple[str, ...]:
    """Names of those of the known fonts that this machine has."""
    return tuple(_existing_fonts())


def _existing_fonts() -> Iterator[str]:
    matplotlib = importlib.util.find_spec("matplotlib")  # brings a font along, and is not loaded
    beside = [] if matplotlib is None or matplotlib.origin is None else [Path(matplotlib.origin).parent]
    folders = [folder / "mpl-data" / "fonts" / "ttf" for folder in beside]
    for name in _OTHER_FONTS:
        places = [name, *(str(folder / name) for folder in folders)]
        for place in places:
            try:
                _file_font(place, 16)
            except OSError:
                continue
            yield place
            break


def in_lines(text: str, font: Font, width: float, most_lines: int) -> list[str]:
    """Text in lines of a width in pixels; what does not fit ends in an ellipsis.

    Words that are wider than a line, such as those of scripts without blanks, are broken between letters.
    """
    lines, rest = [], text
    while rest and len(lines) < most_lines:
        line, rest = _line_of(rest, font, width)
        lines.append(line)
    if rest:
        lines[-1] = _shortened(lines[-1], font, width)
    return lines


def _line_of(text: str, font: Font, width: float) -> tuple[str, str]:
    """The longest beginning that fits the width, to the end of a word if there is one, and the rest."""
    if font.getlength(text) <= width:
        return text, ""
    fitting = 1
    while fitting < len(text) and font.getlength(text[: fitting + 1]) <= width:
        fitting += 1
    blank = text.rfind(" ", 0, fitting + 1)
    end = blank if blank > 0 else fitting
    return text[:end].rstrip(), text[end:].lstrip()


def _shortened(line: str, font: Font, width: float) -> str:
    """A line that ends in an ellipsis and fits the width."""
    while line and font.getlength(line + _ELLIPSIS) > width:
        line = line[:-1]
    return line.rstrip() + _ELLIPSIS
