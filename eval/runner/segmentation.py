"""J&F beside the point scores of tracking benchmarks: masks are drawn around an answer's points by a segmenter.

Scored are the moments a benchmark asks for; published J&F counts the frames between them as well, so the numbers have names of
their own and stand beside no published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from molmopoint.errors import EvaluationError, ProcessingError
from molmopoint.eval.benchmark import Answer, Asking, Item, Metric
from molmopoint.eval.layouts.sizes import in_size
from molmopoint.eval.runner.clips import cut_clip
from molmopoint.eval.segmenting import segmentation_scores, true_masks, united_masks
from molmopoint.metrics.tracking import TrueTracks, at_frames
from molmopoint.segmentation import Segmenter
from molmopoint.video import MAX_FRAMES

METRICS = (
    Metric("jf_when_asked", "mean", title="J&F at the moments asked for"),
    Metric("j_when_asked", "mean", title="J at the moments asked for"),
    Metric("f_when_asked", "mean", title="F at the moments asked for"),
)

_ALL_FRAMES = MAX_FRAMES
"""Frames of a clip at most: as many as a clip may have."""


def segmentation_of(item: Item, answer: Answer, segmenter: Segmenter) -> dict[str, float]:
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
        raise EvaluationError(f"expected a question about moving objects, got {item.item_id!r}; J&F is for tracking benchmarks")
    truth = item.truth
    frames, _ = cut_clip(item.clip, Asking(max_new_tokens=1, fps=truth.fps, max_frames=_ALL_FRAMES))
    xy, _ = in_size(answer, truth.size)
    true = true_masks(truth)
    found = segmenter.follow_clicks(frames, at_frames(xy, answer.group, answer.object_id, truth.fps))
    scores = segmentation_scores(united_masks(found, true), true)
    return {"jf_when_asked": scores.jf, "j_when_asked": scores.j, "f_when_asked": scores.f}


def add_segmentation(
    items: Iterable[Item],
    answers: Mapping[str, Answer],
    scores: dict[str, dict[str, float]],
    segmenter: Segmenter,
    watch: Callable[[str], None] = lambda item_id: None,
) -> list[str]:
    """Adds J&F to the numbers of every scored item; without an answer, or without a readable clip, they are 0.

    Args:
        items: of the benchmark.
        answers: by item id; items whose model failed have none.
        scores: of the judged items; gets the new numbers.
        segmenter: draws the masks.
        watch: is told of every item.

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
        watch(item.item_id)
    return unread
