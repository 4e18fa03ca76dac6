"""Pictures that are brought to one area before a model is asked, and its points back in those of the data.

The authors of GUI-Actor ask ScreenSpot-Pro so, with 3200 x 1800 pixels, before the model's own resizes. Source:
microsoft/GUI-Actor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.eval.datasets.rows import displayed_size
from molmopoint.eval.predictions.records import PredictedPoint
from molmopoint.processing.pictures import load_picture

Size = tuple[int, int]
"""(width, height)."""


def size_of_area(size: Size, area: int) -> Size:
    """(width, height) with at most an area and the shape of a picture; fractions of pixels are cut off.

    Args:
        size: (width, height) of the picture.
        area: width times height to come to.

    >>> size_of_area((3840, 2160), 3200 * 1800)
    (3200, 1800)
    """
    width, height = size
    if width * height == area:
        return size
    ratio = math.sqrt(area / (width * height))
    return max(1, int(width * ratio)), max(1, int(height * ratio))


def read_with_area(path: Path, area: int) -> Image.Image:
    """A picture as displayed, enlarged or shrunk to an area with Pillow's default filter.

    Raises:
        ProcessingError: it cannot be read; see `load_picture`.
    """
    picture = load_picture(path)
    return picture.resize(size_of_area(picture.size, area))


def displayed_sizes(paths: Sequence[Path]) -> tuple[Size, ...]:
    """(width, height) of pictures as displayed, from their headers.

    Raises:
        ProcessingError: a picture has gone since it was asked about.
    """
    sizes = []
    for path in paths:
        size = displayed_size(path)
        if size is None:
            raise ProcessingError(f"expected the picture {path.name} that was asked about, got none; keep it")
        sizes.append(size)
    return tuple(sizes)


def points_in(
    points: Sequence[PredictedPoint], seen: Sequence[Size], wanted: Sequence[Size]
) -> tuple[PredictedPoint, ...]:
    """Points in pixels of pictures of other sizes.

    Args:
        points: whose groups are numbers of pictures, from 0.
        seen: sizes of the pictures that the points belong to.
        wanted: sizes to bring them to.
    """
    moved = []
    for point in points:
        picture = int(point.group)
        across = wanted[picture][0] / seen[picture][0]
        down = wanted[picture][1] / seen[picture][1]
        moved.append(replace(point, x=point.x * across, y=point.y * down))
    return tuple(moved)
