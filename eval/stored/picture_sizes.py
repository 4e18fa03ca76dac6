"""Sizes of the pictures an answer is about, where neither the answer nor the benchmark tells them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item
from molmopoint.eval.layouts.mask_files import UNREADABLE
from molmopoint.files import open_picture

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_ORIENTATION = 0x0112


def sizes_of(item: Item) -> tuple[tuple[int, int], ...]:
    """(width, height) of each displayed picture, or of the clip.

    Raises:
        EvaluationError: a picture cannot be read, or the size of a clip is not known.
    """
    if item.image_sizes:
        return item.image_sizes
    if item.clip is not None:
        raise EvaluationError(
            f'expected "image_sizes" in the stored answer to {item.item_id!r}: the benchmark does not tell the size of its clip'
        )
    return tuple(_size(path) for path in item.images)


@lru_cache(maxsize=4096)
def _size(path: Path) -> tuple[int, int]:
    """From the header; nothing is decoded."""
    try:
        with open_picture(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
    except UNREADABLE as error:
        raise EvaluationError(
            f'expected a picture at {path}, got {type(error).__name__}: {error}; write "image_sizes" into the stored answers to do without'
        ) from error
    return (height, width) if turned else (width, height)
