"""Scored responses as the gallery shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmopoint.eval.benchmark import Answer, Item
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
