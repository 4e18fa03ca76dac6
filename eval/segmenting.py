"""J&F of the masks that a segmenter draws around points.

Points alone have no outline, so J&F depends on the model that draws it, on its version, on which points it is given, and on the
frame rate: a score without these four cannot be compared. Here every point with an id is a positive click at its frame, masks are
carried in both directions from the first click, and masks of several ids are united. Published numbers use
facebook/sam2.1-hiera-large and all frames of the video. `molmopoint.segmentation.clips` has the recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.metrics.segmentation import outline_accuracy, region_similarity
from molmopoint.metrics.tracking import TrueTracks
from molmopoint.segmentation.clips import FrameMask


class SegmentationScores(NamedTuple):
    """Means over frames.

    Attributes:
        j: intersection over union.
        f: accuracy of the outline.
        jf: mean of both.
    """

    j: float
    f: float
    jf: float


def united_masks(found: Iterable[FrameMask], frames: Collection[int]) -> dict[int, np.ndarray]:
    """The masks of all objects together (height, width) bool, by frame; one mask is held per frame.

    Args:
        found: of a segmenter, in any order.
        frames: that are wanted.
    """
    united: dict[int, np.ndarray] = {}
    for each in found:
        if each.frame in frames:
            united[each.frame] = united[each.frame] | each.mask if each.frame in united else each.mask
    return united


def true_masks(truth: TrueTracks) -> dict[int, np.ndarray]:
    """The masks of all objects together, by frame, at the moments a benchmark asks for; published J&F needs those between too."""
    height, width = truth.size[1], truth.size[0]
    united = {}
    for number, frame in truth.frames.items():
        mask = np.zeros((height, width), dtype=bool)
        for each in frame.masks.values():
            if each >= 0:
                mask |= _resized(truth.index.mask(each), height, width)
        united[number] = mask
    return united


def segmentation_scores(drawn: Mapping[int, np.ndarray], true: Mapping[int, np.ndarray]) -> SegmentationScores:
    """J&F of the masks of all objects together.

    Args:
        drawn: (height, width) bool by frame; a frame that is missing has an empty mask.
        true: (height, width) bool by frame; these frames are scored.

    Raises:
        EvaluationError: there is no true mask, or the masks are of other sizes.
    """
    if not true:
        raise EvaluationError("expected true masks of at least one frame, got none; leave the question out of J&F")
    regions, outlines = [], []
    for number, mask in true.items():
        united = drawn.get(number, np.zeros_like(mask))
        if united.shape != mask.shape:
            raise EvaluationError(f"expected masks of {mask.shape}, got {united.shape}; draw them on frames of the original size")
        regions.append(region_similarity(united, mask))
        outlines.append(outline_accuracy(united, mask))
    j, f = float(np.mean(regions)), float(np.mean(outlines))
    return SegmentationScores(j, f, (j + f) / 2)


def _resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest pixel of each."""
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    return mask[rows[:, None], columns]
