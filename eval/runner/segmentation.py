"""J&F beside the point scores of tracking benchmarks: a segmenter draws masks around an answer's points.

Scored are the moments a benchmark asks for; published J&F counts the frames between them as well, so the
numbers have names of their own and stand beside no published ones.

Points alone have no outline, so J&F depends on the model that draws it, on its version, on which points it is
given, and on the frame rate: a score without these four cannot be compared. Here every point with an id is a
positive click at its frame, masks are carried in both directions from the first click, and masks of several
ids are united. Published numbers use facebook/sam2.1-hiera-large and all frames of the video.
`molmopoint.segmentation.sam2` has the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from molmopoint.errors import EvaluationError, ProcessingError
from molmopoint.eval.benchmark import GenerationSettings, Item, ItemScores, Metric, ParsedAnswer
from molmopoint.eval.datasets.rows import in_size
from molmopoint.eval.datasets.videos import read_frames
from molmopoint.metrics.segmentation import outline_accuracy, region_similarity
from molmopoint.metrics.tracking import TrueTracks, at_frames
from molmopoint.segmentation import Segmenter
from molmopoint.segmentation.sam2 import FrameMask
from molmopoint.video import MAX_FRAMES


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
        if each.frame not in frames:
            continue
        if each.frame in united:
            united[each.frame] = united[each.frame] | each.mask
        else:
            united[each.frame] = each.mask
    return united


def true_masks(truth: TrueTracks) -> dict[int, np.ndarray]:
    """The masks of all objects together, by frame, at the moments a benchmark asks for.

    Published J&F needs those between too.
    """
    width, height = truth.size
    united = {}
    for number, frame in truth.frames.items():
        mask = np.zeros((height, width), dtype=bool)
        for each in frame.masks.values():
            if each >= 0:
                mask |= _resized(truth.index.mask(each), height, width)
        united[number] = mask
    return united


def segmentation_scores(
    drawn: Mapping[int, np.ndarray], true: Mapping[int, np.ndarray]
) -> SegmentationScores:
    """J&F of the masks of all objects together.

    Args:
        drawn: (height, width) bool by frame; a frame that is missing has an empty mask.
        true: (height, width) bool by frame; these frames are scored.

    Raises:
        EvaluationError: there is no true mask, or the masks are of other sizes.
    """
    if not true:
        raise EvaluationError(
            "expected true masks of at least one frame, got none; leave the question out of J&F"
        )
    regions, outlines = [], []
    for number, mask in true.items():
        united = drawn.get(number, np.zeros_like(mask))
        if united.shape != mask.shape:
            raise EvaluationError(
                f"expected masks of {mask.shape}, got {united.shape}; draw them on frames of the original "
                "size"
            )
        regions.append(region_similarity(united, mask))
        outlines.append(outline_accuracy(united, mask))
    j = float(np.mean(regions))
    f = float(np.mean(outlines))
    return SegmentationScores(j, f, (j + f) / 2)


def _resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest pixel of each."""
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    return mask[rows[:, None], columns]


METRICS = (
    Metric("jf_when_asked", "mean", title="J&F at the moments asked for"),
    Metric("j_when_asked", "mean", title="J at the moments asked for"),
    Metric("f_when_asked", "mean", title="F at the moments asked for"),
)

_ALL_FRAMES = MAX_FRAMES
"""Frames of a clip at most: as many as a clip may have."""


def segmentation_of(item: Item, answer: ParsedAnswer, segmenter: Segmenter) -> ItemScores:
    """J, F and their mean of one answer.

    Args:
        item: of a tracking benchmark; its clip is read at its own frame rate.
        answer: points with ids, and seconds as groups.
        segmenter: draws the masks.

    Raises:
        EvaluationError: the item has no masks of moving objects.
        ProcessingError: the clip cannot be read.
    """
    if not isinstance(item.truth, TrueTracks) or item.clip is None:
        raise EvaluationError(
            f"expected a question about moving objects, got {item.item_id!r}; J&F is for tracking benchmarks"
        )
    truth = item.truth
    every_frame = GenerationSettings(max_new_tokens=1, fps=truth.fps, max_frames=_ALL_FRAMES)
    frames, _ = read_frames(item.clip, every_frame)
    xy, _ = in_size(answer, truth.size)
    true = true_masks(truth)
    clicks = at_frames(xy, answer.group, answer.object_id, truth.fps)
    found = segmenter.follow_clicks(frames, clicks)
    scores = segmentation_scores(united_masks(found, true), true)
    return {"jf_when_asked": scores.jf, "j_when_asked": scores.j, "f_when_asked": scores.f}


def add_segmentation(
    items: Iterable[Item],
    answers: Mapping[str, ParsedAnswer],
    scores: dict[str, ItemScores],
    segmenter: Segmenter,
    on_progress: Callable[[str], None] = lambda item_id: None,
) -> list[str]:
    """Adds J&F to the numbers of every scored item; without an answer, or without a readable clip, they are
    0.

    Args:
        items: of the benchmark.
        answers: by item id; items whose model failed have none.
        scores: of the scored items; gets the new numbers.
        segmenter: draws the masks.
        on_progress: is told of every item.

    Returns:
        Ids of items whose clip could not be read.
    """
    unread = []
    for item in items:
        if item.item_id not in scores:
            continue
        numbers = {metric.name: 0.0 for metric in METRICS}
        if item.item_id in answers:
            try:
                numbers = segmentation_of(item, answers[item.item_id], segmenter)
            except (ProcessingError, OSError):
                unread.append(item.item_id)
        scores[item.item_id] |= numbers
        on_progress(item.item_id)
    return unread
