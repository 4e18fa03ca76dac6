"""What went wrong with an answer, in words that failures can be sorted by.

Beside it, what the gallery tells of responses that a reward model scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmopoint.eval.benchmark import Item, ParsedAnswer, ShownTarget, ShownTruth
from molmopoint.eval.outlines import distance
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


def shown_responses(item: Item, answer: ParsedAnswer | None) -> tuple[ShownResponse, ...]:
    """The responses of an item, the best first; none where it has none.

    Args:
        item: with ranks as its truth.
        answer: with scores; None if the model failed.
    """
    if not item.responses:
        return ()
    shown = []
    if answer is None or not answer.passes:
        for text, rank in zip(item.responses, item.truth, strict=True):
            shown.append(ShownResponse(text, rank, None))
    else:
        scores = np.array([each.scores for each in answer.passes])  # (passes, responses)
        means = mean_scores(scores)
        times = chosen(scores).sum(axis=0)
        for i, (text, rank) in enumerate(zip(item.responses, item.truth, strict=True)):
            shown.append(ShownResponse(text, rank, float(means[i]), int(times[i]), len(scores)))
    return tuple(sorted(shown, key=lambda response: response.rank))


def reward_faults(answer: ParsedAnswer | None) -> tuple[str, ...]:
    """Keys of `REWARD_FAULTS`.

    Args:
        answer: None if the model failed.
    """
    if answer is None or not answer.passes:
        return ("failed",)
    scores = np.array([each.scores for each in answer.passes])  # (passes, responses)
    faults = []
    if len(scores) > 1 and order_consistency(scores) < 1:
        faults.append("order decides")
    is_tied = chosen(scores).sum(axis=-1) > 1
    if is_tied.any():
        faults.append("tie")
    return tuple(faults)


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
        distance: of the point that is farthest from its nearest target, as a share of the diagonal; None
            without points or targets.
    """

    faults: tuple[str, ...]
    distance: float | None


def find_faults(
    answer: ParsedAnswer | None, truth: ShownTruth | None, size: tuple[int, int] | None
) -> Finding:
    """Sorts an answer.

    Args:
        answer: to an item; None if the model failed.
        truth: what is drawn; None where the benchmark shows nothing.
        size: (width, height) of the picture, where it is known.
    """
    if answer is None:
        return Finding(("failed",), None)
    faults: set[str] = set()
    farthest = None
    if answer.truncated:
        faults.add("truncated")
    if _has_duplicate(answer, truth, size):
        faults.add("duplicate point")
    if not len(answer):
        wants_points = truth is None or bool(truth.targets) or bool(truth.count)
        if wants_points:
            faults.add("no output")
    elif truth is not None:
        if truth.count is not None and len(answer) != truth.count:
            faults.add("wrong count")
        if truth.targets:
            misses, farthest = _misses(answer, truth, _diagonal(size, truth))
            faults |= misses
    return Finding(tuple(fault for fault in FAULTS if fault in faults), farthest)


def _misses(answer: ParsedAnswer, truth: ShownTruth, diagonal: float) -> tuple[set[str], float | None]:
    """Faults of points that hit nothing, and the largest distance to the nearest target of the same moment."""
    faults: set[str] = set()
    farthest = None
    for xy, moment in zip(answer.xy, answer.group, strict=True):
        there = [target for target in truth.targets if abs(target.group - moment) <= _SAME_TIME]
        if not there:
            faults.add("wrong time")
            continue
        nearest = min(_distance(target, xy) for target in there)
        farthest = max(farthest or 0.0, nearest / diagonal)
        if nearest > 0:
            is_near = nearest <= _NEAR * diagonal or any(_in_larger_box(target, xy) for target in there)
            faults.add("near miss" if is_near else "far miss")
    return faults, farthest


def _has_duplicate(answer: ParsedAnswer, truth: ShownTruth | None, size: tuple[int, int] | None) -> bool:
    diagonal = _diagonal(size, truth)
    for i in range(len(answer)):
        is_same_time = np.abs(answer.group[i + 1 :] - answer.group[i]) <= _SAME_TIME
        away = (answer.xy[i + 1 :] - answer.xy[i])[is_same_time]  # (later points, 2)
        if (np.hypot(away[:, 0], away[:, 1]) <= _SAME_PLACE * diagonal).any():
            return True
    if truth is None or truth.count != len(truth.targets):
        return False  # one outline may stand for several objects, or an object for several moments
    for target in truth.targets:
        points_inside = sum(_distance(target, xy) == 0 for xy in answer.xy)
        if points_inside > 1:
            return True
    return False


def _distance(target: ShownTarget, xy: np.ndarray) -> float:
    if target.rings:
        return float(distance(target.rings, xy[None])[0])
    if target.point is None:
        return float("inf")
    return float(np.hypot(*(xy - np.array(target.point))))


def _in_larger_box(target: ShownTarget, xy: np.ndarray) -> bool:
    if not target.rings:
        return False
    corners = np.concatenate(target.rings)
    low, high = corners.min(axis=0), corners.max(axis=0)
    from_middle = np.abs(xy - (low + high) / 2)
    return bool((from_middle <= _LARGER / 2 * (high - low)).all())


def _diagonal(size: tuple[int, int] | None, truth: ShownTruth | None) -> float:
    """Of the picture; where nobody knows its size, that of what is drawn."""
    if size is None and truth is not None:
        size = truth.size
    if size is not None:
        return float(np.hypot(*size)) or 1.0
    rings: list[np.ndarray] = []
    if truth is not None:
        for target in truth.targets:
            rings += target.rings
    if not rings:
        return 1000.0
    return float(np.hypot(*np.concatenate(rings).max(axis=0)))
