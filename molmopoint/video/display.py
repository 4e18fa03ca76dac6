"""How the frames of a video are shown: turned or mirrored as the file says, and with pixels that are as wide
as high.

Telephones store what the sensor sees and write beside it how to turn it; cameras for the front mirror it. Old
formats (DV, DVD, HDV) have pixels that are wider or narrower than high.

PyAV tells the display matrix of a file. torchcodec tells how a video is turned, but not that it is mirrored,
so where PyAV is not installed the matrix is read from the boxes of the file itself, for files of the MP4 and
QuickTime family.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

_MATRIX_AT = {0: 40, 1: 52}
"""Where the matrix stands in the header of a track, by the version of that header."""

_MOST_BOXES = 4096
"""Boxes that are looked at on a level; a file with more is not taken at its word."""


_QUARTER_TURNS = ((False, False, False), (True, False, True), (False, True, True), (True, True, False))
"""Whether rows become columns, and whether left and right, and top and bottom are exchanged after that, by
quarters to the left.
"""


@dataclass(frozen=True)
class Display:
    """From frames as stored to frames as displayed: first stretched, then transposed, then mirrored.

    Attributes:
        stored: (width, height) of a frame in the file.
        pixel_aspect: width of a stored pixel, in heights of it.
        transposed: rows become columns, so that the upper left corner stays.
        left_right: the sides are exchanged, after that.
        top_bottom: top and bottom are exchanged.
    """

    stored: tuple[int, int]
    pixel_aspect: Fraction = Fraction(1)
    transposed: bool = False
    left_right: bool = False
    top_bottom: bool = False

    @classmethod
    def of(
        cls,
        stored: tuple[int, int],
        matrix: Sequence[int] | None = None,
        pixel_aspect: Fraction | None = None,
    ) -> Display:
        """What a file says.

        Args:
            stored: (width, height) of its frames.
            matrix: the nine numbers of its display matrix, row by row: a stored place (p, q) is shown at (a p
                + c q + x, b p + d q + y) of (a, b, u, c, d, v, x, y, w). The nearest of the eight ways to lay
                a frame is taken. None for upright.
            pixel_aspect: None, or 0 or less, where it is not known.
        """
        aspect = Fraction(1)
        if pixel_aspect is not None and pixel_aspect > 0:
            aspect = pixel_aspect
        if matrix is None:
            return cls(stored, aspect)
        a, b, _, c, d = matrix[:5]
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(stored, aspect, left_right=a < 0, top_bottom=d < 0)
        return cls(stored, aspect, transposed=True, left_right=c < 0, top_bottom=b < 0)

    @classmethod
    def turned(cls, stored: tuple[int, int], turns: int, pixel_aspect: Fraction = Fraction(1)) -> Display:
        """Turned to the left by quarters of a circle, and not mirrored."""
        transposed, left_right, top_bottom = _QUARTER_TURNS[turns % 4]
        return cls(stored, pixel_aspect, transposed, left_right, top_bottom)

    @property
    def stretched(self) -> tuple[int, int]:
        """(width, height) with square pixels, before it is turned: the height stays, as players do it."""
        width, height = self.stored
        return max(1, round(width * self.pixel_aspect)), height

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as displayed."""
        width, height = self.stretched
        return (height, width) if self.transposed else (width, height)

    @property
    def is_mirrored(self) -> bool:
        """Whether no turning alone makes the frame what is displayed."""
        return self.transposed ^ self.left_right ^ self.top_bottom

    @property
    def note(self) -> str | None:
        """What a user should know of it: points are not in stored pixels."""
        if self.stretched == self.stored:
            return None
        aspect = f"{self.pixel_aspect.numerator}:{self.pixel_aspect.denominator}"
        width, height = self.size
        stored_width, stored_height = self.stored
        return (
            f"pixels are not square (aspect ratio {aspect}): points are in the displayed size of {width} x "
            f"{height}, "
            f"not in the stored one of {stored_width} x {stored_height}"
        )

    def show(self, frame: np.ndarray) -> np.ndarray:
        """A frame (height, width, 3) uint8 as stored, as it is displayed."""
        if self.stretched != self.stored:
            frame = np.asarray(Image.fromarray(frame).resize(self.stretched, Image.Resampling.BILINEAR))
        return self.lay(frame)

    def lay(self, frame: np.ndarray) -> np.ndarray:
        """The same without stretching."""
        if self.transposed:
            frame = frame.swapaxes(0, 1)
        if self.left_right:
            frame = frame[:, ::-1]
        return frame[::-1] if self.top_bottom else frame


# ---- The display matrix of MP4 and QuickTime files
def read_matrix(path: str | Path) -> list[int] | None:
    """The nine numbers of the display matrix of the first video track; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        end = file.seek(0, 2)
        for kind, start, stop in _boxes(file, 0, end):
            if kind == b"moov":
                return _of_movie(file, start, stop)
    return None


def _of_movie(file: BinaryIO, start: int, stop: int) -> list[int] | None:
    for kind, track_start, track_stop in _boxes(file, start, stop):
        if kind != b"trak" or _handler(file, track_start, track_stop) != b"vide":
            continue
        for inner, header_start, header_stop in _boxes(file, track_start, track_stop):
            if inner == b"tkhd":
                return _matrix(_read(file, header_start, min(header_stop, header_start + 96)))
    return None


def _handler(file: BinaryIO, start: int, stop: int) -> bytes:
    """What a track holds: b"vide", b"soun" and others; empty where that is not said."""
    for kind, media_start, media_stop in _boxes(file, start, stop):
        if kind != b"mdia":
            continue
        for inner, body, _ in _boxes(file, media_start, media_stop):
            if inner == b"hdlr":
                return _read(file, body + 8, body + 12)
    return b""


def _matrix(header: bytes) -> list[int] | None:
    """The nine numbers in the body of a track's header."""
    at = _MATRIX_AT.get(header[0]) if header else None
    if at is None or len(header) < at + 36:
        return None
    return list(struct.unpack_from(">9i", header, at))


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and start and end of the body, of the boxes in a stretch of the file."""
    for _ in range(_MOST_BOXES):
        head = _read(file, start, start + 16)
        if start + 8 > stop or len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        body = start + 8
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
            body = start + 16
        end = stop if size == 0 else start + size
        if not body <= end <= stop:
            return
        yield kind, body, end
        start = end


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(max(stop - start, 0))
