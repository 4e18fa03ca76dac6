"""From a map of scores over image tokens to regions and their centres, as GUI-Actor does it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used

RegionValue = Literal["mean", "max"]
"""What a region is worth: the mean score of its cells, or the largest."""

ACTIVE = 0.3
"""Part of the largest score above which a cell belongs to a region."""


class Region(NamedTuple):
    """Cells that touch each other and score high.

    Attributes:
        x: centre, weighted by the scores, as a fraction of the picture's width.
        y: the same of its height.
        value: what the region is worth.
        cells: how many there are.
    """

    x: float
    y: float
    value: float
    cells: int


def find_regions(scores: np.ndarray, value: RegionValue = "mean", active: float = ACTIVE) -> list[Region]:
    """Regions of a map, best first; of equals the one whose first cell comes first in reading order.

    Args:
        scores: (rows, cols) of one pointer, not negative.
        value: what a region is worth.
        active: part of the largest score above which a cell counts.

    Returns:
        At least one region, where any score is above 0. Cells belong together that share a side.

    Source: microsoft/GUI-Actor; comparing in single precision is part of its rule.
    """
    scores = np.asarray(scores, dtype=np.float32)
    rows, cols = scores.shape
    threshold = np.float32(float(scores.max()) * active)
    numbered, count = scipy.ndimage.label(scores > threshold)  # (rows, cols), from 1 in reading order
    found = []
    for number in range(1, count + 1):
        y, x = np.nonzero(numbered == number)  # (cells,) each
        weights = scores[y, x].astype(np.float64)
        total = weights.sum()
        found.append(
            Region(
                x=float(((x + 0.5) / cols) @ weights / total),
                y=float(((y + 0.5) / rows) @ weights / total),
                value=float(weights.mean() if value == "mean" else weights.max()),
                cells=len(x),
            )
        )
    return sorted(found, key=lambda region: region.value, reverse=True)
