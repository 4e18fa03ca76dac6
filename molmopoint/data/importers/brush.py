"""Brush masks of Label Studio: the run lengths of an RGBA picture as a list of bytes.

A bit stream, highest bit first: 32 bits number of values, 5 bits width of a value less one, four times 4 bits width of a count less
one. Then blocks: 1 bit whether it is a run, 2 bits which of the four widths, a count less one, and one value (a run) or as many as
counted. Source: the format of the JavaScript package @thi.ng/rle-pack, which Label Studio uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from molmopoint.data.importers.common import numbers
from molmopoint.data.importers.masks import check_mask_size
from molmopoint.errors import ProcessingError

_CHANNELS = 4
_ALPHA = 3


def decode_brush(values: Any, width: int, height: int) -> np.ndarray:
    """(height, width) bool: where the mask is opaque.

    Args:
        values: bytes of the run lengths, 0 to 255.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Raises:
        ProcessingError: the runs are cut off or are of a picture of another size, or the mask is too large.
    """
    check_mask_size(width, height)
    listed = numbers(values, "rle")
    if ((listed < 0) | (listed > 255) | (listed % 1 != 0)).any():
        raise ProcessingError("rle: expected bytes from 0 to 255, got other numbers; export the mask again")
    try:
        opaque = _opaque(_Bits(listed.astype(np.uint8).tobytes()), width * height)
    except EOFError as error:
        raise ProcessingError(f"rle: expected runs over {width} x {height} pixels, got fewer; export the mask again") from error
    return opaque.reshape(height, width)


class _Bits:
    """Reads whole numbers of any width, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, count: int) -> int:
        """The number in the next `count` bits.

        Raises:
            EOFError: there are not so many.
        """
        end = self._at + count
        if end > 8 * len(self._data):
            raise EOFError
        first, last = self._at // 8, (end + 7) // 8
        self._at = end
        return (int.from_bytes(self._data[first:last], "big") >> (8 * last - end)) & ((1 << count) - 1)


def _opaque(bits: _Bits, pixels: int) -> np.ndarray:
    """(pixels,) bool: of all values only the last channel of each pixel is kept."""
    expected = pixels * _CHANNELS
    if (total := bits.read(32)) != expected:
        raise ProcessingError(f"rle: expected a mask of {expected} values, got {total}; the size of the picture is another one")
    value_width = bits.read(5) + 1
    count_widths = [bits.read(4) + 1 for _ in range(4)]
    opaque = np.zeros(pixels, dtype=bool)
    at = 0
    while at < total:
        is_run = bits.read(1)
        count = min(1 + bits.read(count_widths[bits.read(2)]), total - at)
        skipped = (_ALPHA - at) % _CHANNELS  # values before the first of the last channel
        first, end = (at + skipped) // _CHANNELS, (at + count) // _CHANNELS  # pixels
        if is_run:
            opaque[first:end] = bits.read(value_width) > 0
        else:
            listed = [bits.read(value_width) for _ in range(count)]
            opaque[first:end] = [value > 0 for value in listed[skipped::_CHANNELS]]
        at += count
    return opaque
