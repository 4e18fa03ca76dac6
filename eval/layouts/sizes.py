"""Sizes of pictures, and points of a picture that was stored in another size than its ground truth."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.eval.benchmark import Answer
from molmopoint.eval.layouts.mask_files import UNREADABLE
from molmopoint.files import open_picture

_ORIENTATION = 0x0112
_LARGEST = 1 << 31
"""Pixels; a side of more is no side."""
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@lru_cache(maxsize=8192)
def displayed_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of the displayed picture from its header; None where there is no readable one."""
    try:
        with open_picture(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
    except UNREADABLE:
        return None
    return (height, width) if turned else (width, height)


def stated_size(values: Any) -> tuple[int, int] | None:
    """(width, height) as a data set writes it, or None where it does not say a size."""
    if not isinstance(values, list | tuple) or len(values) != 2:
        return None
    if not all(isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= _LARGEST for value in values):
        return None
    return int(values[0]), int(values[1])


def in_size(answer: Answer, size: tuple[int, int] | None) -> tuple[np.ndarray, bool]:
    """Points of an answer in the pixels of the ground truth, and whether they had to be rescaled.

    Pictures that were fetched again years later may have another size than the annotators saw.

    Args:
        answer: to an item of one picture.
        size: (width, height) that the ground truth belongs to; None where nobody knows.

    Returns:
        (n, 2) float64 points, and True where the sizes differ.
    """
    if size is None or not answer.image_sizes or tuple(answer.image_sizes[0]) == size:
        return answer.xy, False
    return answer.xy * (np.array(size) / np.array(answer.image_sizes[0])), True
