"""Shapes of objects: outlines as rings of corners, masks as run lengths or pictures, and a place inside of a
mask.

Masks come from elsewhere, and a file of a few bytes can claim any size: it is checked before anything is
allocated.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from molmopoint.data.importers.placement import Size
from molmopoint.data.importers.values import numbers, short
from molmopoint.data.interior import mask_interior
from molmopoint.errors import ProcessingError
from molmopoint.files import open_picture

_ELLIPSE_CORNERS = 32
"""Corners of the polygon that stands for an ellipse."""

_BOX = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
"""Corners of a box around its middle, in parts of its sides."""

MAX_MASK_PIXELS = 2**28
"""Pixels of a mask, 16,384 x 16,384 as a square; a file of a few bytes can claim any number of them."""

_MAX_BITS = 60
"""Of a run length in COCO's text; no mask has so many pixels."""

_SEARCHED_PIXELS = 2**22
"""Pixels among which a place is searched; of larger masks every second, third ... row and column is looked
at.
"""


def ellipse_ring(middle: tuple[float, float], radii: tuple[float, float], angle: float) -> np.ndarray:
    """(num_corners, 2) polygon that stands for an ellipse, turned clockwise about its middle by an angle in
    degrees.
    """
    around = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    along = np.stack([np.cos(around), np.sin(around)], axis=1) * radii
    return _turned(along, angle) + middle


def turned_box_ring(middle: tuple[float, float], size: Size, angle: float) -> np.ndarray:
    """(4, 2) corners of a box, turned clockwise about its middle by an angle in degrees."""
    return _turned(_BOX * size, angle) + middle


def ring_area(ring: np.ndarray) -> float:
    """Of a polygon (num_corners, 2)."""
    if len(ring) < 3:
        return 0.0
    here = ring - ring[0]
    there = np.roll(here, -1, axis=0)
    return abs(float((here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]).sum())) / 2


def clipped_ring(ring: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The part of a polygon (num_corners, 2) in 0..limit; parts that it falls into stay connected along the
    border.

    Source: Sutherland and Hodgman, "Reentrant polygon clipping" (1974).
    """
    for axis in (0, 1):
        for sign, edge in ((1.0, 0.0), (-1.0, -float(limit[axis]))):
            ring = _cut(ring, sign * ring[:, axis] - edge)
    return ring


def _cut(ring: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The part of a polygon (num_corners, 2) on the inner side of a border; (num_corners,) depth is how far
    inside each corner is.
    """
    if not len(ring) or (depth >= 0).all():
        return ring
    kept = []
    following = zip(np.roll(ring, -1, axis=0), np.roll(depth, -1), strict=True)
    for corner, here, (next_corner, there) in zip(ring, depth, following, strict=True):
        if here >= 0:
            kept.append(corner)
        if (here >= 0) != (there >= 0):  # the edge crosses the border
            kept.append(corner + (next_corner - corner) * (here / (here - there)))
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def check_mask_size(width: float, height: float) -> None:
    """Refuses a mask too large for memory.

    Raises:
        ProcessingError: it has no pixels, or more than `MAX_MASK_PIXELS`.
    """
    if width < 1 or height < 1 or width != int(width) or height != int(height):
        raise ProcessingError(f"expected a mask of whole pixels, got {width:g} x {height:g}; export it again")
    if width * height > MAX_MASK_PIXELS:
        got = f"{width:,.0f} x {height:,.0f}"
        raise ProcessingError(
            f"expected a mask of at most {MAX_MASK_PIXELS:,} pixels, got {got}; scale the picture and its "
            "mask"
        )


def decoded_runs(runs: Sequence[float] | np.ndarray, width: float, height: float) -> np.ndarray:
    """(height, width) bool from lengths of runs along the rows, the outside first.

    Runs along the columns, as COCO has them, are those along the rows of the transposed mask: exchange width
    and height, and transpose the result.

    Raises:
        ProcessingError: the runs do not fill the mask, or it is too large.
    """
    check_mask_size(width, height)
    # Sums of any size, where whole numbers of 64 bits would wrap around.
    lengths = np.asarray(runs, dtype=np.float64)
    if (
        lengths.ndim != 1
        or (lengths < 0).any()
        or (lengths % 1 != 0).any()
        or lengths.sum() != width * height
    ):
        total = f"{lengths.sum():.0f}"
        raise ProcessingError(
            f"expected runs over {width:g} x {height:g} pixels, got {total} pixels; export the mask again"
        )
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths.astype(np.int64))
    return flat.reshape(int(height), int(width))


def decode_counts(counts: str | bytes | Sequence[int], height: float, width: float) -> np.ndarray:
    """(height, width) bool mask from COCO run lengths, compressed text or plain numbers.

    Runs go down the columns and begin with the outside.

    Raises:
        ProcessingError: the runs do not fill the mask, or it is too large.
    """
    runs = _compressed_runs(counts) if isinstance(counts, str | bytes) else numbers(counts, "counts")
    return decoded_runs(runs, height, width).T


def embedded_mask(text: Any, channel: str, check: Callable[[int, int], None] | None = None) -> np.ndarray:
    """(height, width) bool from a picture in base64.

    Args:
        text: the picture, with or without `data:image/png;base64,` in front.
        channel: "L" for masks that are bright inside, "A" for those that are opaque inside.
        check: is given width and height before anything is decoded, and raises a `ProcessingError` where they
            cannot be right.

    Raises:
        ProcessingError: it is no picture, has no such channel, or is too large.
    """
    try:
        data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
        with open_picture(io.BytesIO(data)) as picture:
            # What decoding takes, not only what comes of it.
            check_mask_size(picture.width, picture.height * len(picture.getbands()))
            if check is not None:
                check(picture.width, picture.height)
            if channel == "A" and not picture.has_transparency_data:
                raise ProcessingError(
                    "expected a mask that is transparent outside, got a picture without transparency; "
                    "export it again"
                )
            decoded = picture.convert("RGBA").getchannel("A") if channel == "A" else picture.convert("L")
            return np.asarray(decoded) > 0
    except ProcessingError:
        raise
    except Exception as error:  # decoders raise nearly anything on broken pictures
        raise ProcessingError(
            f"expected a mask as a picture in base64, got {error}; export it again"
        ) from error


def mask_place(mask: np.ndarray) -> tuple[float, float, int]:
    """A place inside a mask (height, width), and how many pixels it has.

    Returns:
        x and y of the centre of a pixel of the mask, far from the edge, and the number of pixels inside.

    Raises:
        ProcessingError: the mask is empty.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        raise ProcessingError("expected a mask with a pixel inside, got an empty one; drop the object")
    left, top = int(columns[0]), int(rows[0])
    window = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    num_inside = int(np.count_nonzero(window))
    step = int(np.ceil((window.size / _SEARCHED_PIXELS) ** 0.5))
    coarse = window[::step, ::step]
    if coarse.any():
        x, y = mask_interior(coarse)
        return left + (x - 0.5) * step + 0.5, top + (y - 0.5) * step + 0.5, num_inside
    within = np.flatnonzero(window)  # thin enough to slip through: any place in it is as good as the next
    row, column = np.unravel_index(within[len(within) // 2], window.shape)
    return left + float(column) + 0.5, top + float(row) + 0.5, num_inside


def _compressed_runs(text: str | bytes) -> list[int]:
    """Run lengths from COCO's text.

    Each is groups of 5 bits, the lowest first, with sign; from the fourth on it is the difference to the run
    two before.

    Raises:
        ProcessingError: characters that mean no bits, or a run without end.
    """
    characters = text.encode("ascii", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for character in characters:
        bits = character - 48
        if not 0 <= bits < 64 or shift > _MAX_BITS:
            raise ProcessingError(
                f"expected run lengths as COCO writes them, got {short(text)}; export the mask again"
            )
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _turned(offsets: np.ndarray, angle: float) -> np.ndarray:
    """(n, 2) turned clockwise about the origin by an angle in degrees; y goes down."""
    # Whole turns change nothing, and odd files hold numbers without radians.
    turn = np.radians(np.fmod(angle, 360.0))
    return offsets @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
