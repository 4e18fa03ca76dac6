"""What went wrong with an answer, in words that failures can be sorted by.

Scored responses as the gallery shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmopoint.eval.benchmark import Answer, Item, ShownTruth, Target
from molmopoint.eval.layouts.outlines import distance
from molmopoint.metrics.rankings import chosen, mean_scores, order_consistency

REWARD_FAULTS = {
    "failed": "the model or the media failed",
    "order decides": "another response is chosen when they stand in another order",
    "tie": "two or more responses share the highest score",
}
"""What may be said of scores beside right and wrong, in the order of the page."""


@dataclass(frozen=True)
class ShownResponse:
    """A response of a card.

    Attributes:
        text: of the response.
        rank: given by people, 1 is best.
        score: mean over the orders, each without its own mean; None if the model failed.
        times_chosen: in how many orders it has the highest score, alone or with others.
        orders: how many there are.
    """

    text: str
    rank: int
    score: float | None
    times_chosen: int = 0
    orders: int = 0


def shown_responses(item: Item, answer: Answer | None) -> tuple[ShownResponse, ...]:
    """The responses of an item, the best first; none where it has none.

    Args:
        item: with ranks as its truth.
        answer: with scores; None if the model failed.
    """
    if not item.responses:
        return ()
    if answer is None or not answer.passes:
        shown = [ShownResponse(text, rank, None) for text, rank in zip(item.responses, item.truth, strict=True)]
    else:
        scores = np.array([each.scores for each in answer.passes])
        means, times = mean_scores(scores), chosen(scores).sum(axis=0)
        shown = [ShownResponse(text, item.truth[i], float(means[i]), int(times[i]), len(scores)) for i, text in enumerate(item.responses)]
    return tuple(sorted(shown, key=lambda response: response.rank))


def reward_faults(answer: Answer | None) -> tuple[str, ...]:
    """Keys of `REWARD_FAULTS`.

    Args:
        answer: None if the model failed.
    """
    if answer is None or not answer.passes:
        return ("failed",)
    scores = np.array([each.scores for each in answer.passes])
    found = {"order decides": len(scores) > 1 and order_consistency(scores) < 1, "tie": bool((chosen(scores).sum(axis=-1) > 1).any())}
    return tuple(fault for fault, is_so in found.items() if is_so)


FAULTS = {
    "failed": "the model or the media failed",
    "no output": "no point, though there is something to point at",
    "wrong count": "another number of points than there are targets",
    "near miss": "a point beside a target: in its box made half as large again, or within 2 % of the diagonal",
    "far miss": "a point farther away from every target",
    "duplicate point": "two points at one place, or in one object",
    "wrong time": "a point at a moment without a target",
    "truncated": "the answer was cut by the limit of tokens",
}
"""Every fault and what it means, in the order of the page."""

_NEAR = 0.02
"""Of the diagonal."""
_SAME_PLACE = 0.005
"""Of the diagonal."""
_SAME_TIME = 0.1
"""Seconds. Models write times with one decimal."""
_LARGER = 1.5
"""Of a box's sides."""


@dataclass(frozen=True)
class Finding:
    """What is known about an answer beside its scores.

    Attributes:
        faults: keys of `FAULTS`, in their order.
        distance: of the point that is farthest from its nearest target, as a share of the diagonal; None without points or targets.
    """

    faults: tuple[str, ...]
    distance: float | None


def find_faults(answer: Answer | None, truth: ShownTruth | None, size: tuple[int, int] | None) -> Finding:
    """Sorts an answer.

    Args:
        answer: to an item; None if the model failed.
        truth: what is drawn; None where the benchmark shows nothing.
        size: (width, height) of the picture, where it is known.
    """
    if answer is None:
        return Finding(("failed",), None)
    faults, farthest = set(), None
    if not len(answer) and (truth is None or truth.targets or truth.count):
        faults.add("no output")
    if truth is not None and truth.count is not None and len(answer) and len(answer) != truth.count:
        faults.add("wrong count")
    if answer.truncated:
        faults.add("truncated")
    if truth is not None and truth.targets and len(answer):
        misses, farthest = _misses(answer, truth, _diagonal(size, truth))
        faults |= misses
    if _has_duplicate(answer, truth, size):
        faults.add("duplicate point")
    return Finding(tuple(fault for fault in FAULTS if fault in faults), farthest)


def _misses(answer: Answer, truth: ShownTruth, diagonal: float) -> tuple[set[str], float | None]:
    """Faults of points that hit nothing, and the largest distance to the nearest target of the same moment."""
    faults, farthest = set(), None
    for xy, moment in zip(answer.xy, answer.group, strict=True):
        there = [target for target in truth.targets if abs(target.group - moment) <= _SAME_TIME]
        if not there:
            faults.add("wrong time")
            continue
        away = [_distance(target, xy) for target in there]
        farthest = max(farthest or 0.0, min(away) / diagonal)
        if min(away) > 0:
            near = min(away) <= _NEAR * diagonal or any(_in_larger_box(target, xy) for target in there)
            faults.add("near miss" if near else "far miss")
    return faults, farthest


def _has_duplicate(answer: Answer, truth: ShownTruth | None, size: tuple[int, int] | None) -> bool:
    diagonal = _diagonal(size, truth)
    for i in range(len(answer)):
        same = np.abs(answer.group[i + 1 :] - answer.group[i]) <= _SAME_TIME
        if (np.hypot(*(answer.xy[i + 1 :] - answer.xy[i])[same].T) <= _SAME_PLACE * diagonal).any():
            return True
    if truth is None or truth.count != len(truth.targets):
        return False  # one outline may stand for several objects, or an object for several moments
    inside = [sum(_distance(target, xy) == 0 for xy in answer.xy) for target in truth.targets]
    return max(inside, default=0) > 1


def _distance(target: Target, xy: np.ndarray) -> float:
    if target.rings:
        return float(distance(target.rings, xy[None])[0])
    return float("inf") if target.point is None else float(np.hypot(*(xy - np.array(target.point))))


def _in_larger_box(target: Target, xy: np.ndarray) -> bool:
    if not target.rings:
        return False
    corners = np.concatenate(target.rings)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return bool((np.abs(xy - (low + high) / 2) <= _LARGER / 2 * (high - low)).all())


def _diagonal(size: tuple[int, int] | None, truth: ShownTruth | None) -> float:
    """Of the picture; where nobody knows its size, that of what is drawn."""
    known = size or (truth.size if truth is not None else None)
    if known is not None:
        return float(np.hypot(*known)) or 1.0
    rings = [ring for target in truth.targets for ring in target.rings] if truth is not None else []
    return float(np.hypot(*np.concatenate(rings).max(axis=0))) if rings else 1000.0
