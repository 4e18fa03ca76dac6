"""What reward benchmarks have in common: responses with ranks, and numbers of how well scores agree with them.

A model scores the responses of an item in several orders (`passes.py`). Rules of making one number of them:

- `each`, the default: every order is judged, and their mean counts. It is what one pass in an order by chance can be expected to
  reach, so it is the rule to read beside published numbers, whose order is not stated.
- `mean`: scores are averaged over the orders, each pass without its own mean, and then judged once.
- `every`: only what is right in every order counts.

Whatever the rule, tables show how much the order decides: `same_choice`, accuracy by place of the better response, and below the
table how often each slot is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np

from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Item, Metric, Need
from molmopoint.metrics.rankings import (
    best_of_n,
    chosen,
    kendall_tau_b,
    mean_scores,
    order_consistency,
    pair_accuracy,
    slot_shares,
    spearman,
)

Judging = Callable[[np.ndarray, Sequence[int]], float]
"""A number of scores (N,) and ranks (N,)."""

_SAME_CHOICE = Metric("same_choice", "mean", title="pairs of orders that choose the same response")
_TIE = Metric("tie", "mean", title="passes without a single best score")
_NAMED_SLOTS = 4
"""Slots with a number of their own; those behind them share one."""


class RewardBenchmark(Benchmark):
    """Base of benchmarks that want scores; `Item.truth` is the ranks (N,) of `Item.responses`, 1 is best, ties are equal.

    Attributes:
        judgings: the numbers of agreement, by name of their metric.
    """

    needs: ClassVar[Need] = "scores"
    # Files are read as the model was made for; of folders of frames, the reward model's authors take 16 at most.
    asking: ClassVar[Asking] = Asking(max_new_tokens=0, max_frames=16)
    rules = ("each", "mean", "every")
    judgings: ClassVar[dict[str, Judging]]

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """Agreement by the rule, and how much the order decides; without scores, agreement is 0 and nothing else is known."""
        if not answer.passes:
            return dict.fromkeys(self.judgings, 0.0)
        scores = np.array([each.scores for each in answer.passes])
        numbers = {name: over_passes(judging, scores, item.truth, rule) for name, judging in self.judgings.items()}
        return numbers | self.habits(item, answer, scores)

    def habits(self, item: Item, answer: Answer, scores: np.ndarray) -> dict[str, float]:
        """How much the order decides.

        Args:
            item: with ranks.
            answer: with orders.
            scores: (K, N) of K passes.
        """
        shares = slot_shares(scores, [each.order for each in answer.passes])
        named = np.concatenate([shares, np.zeros(_NAMED_SLOTS)])[:_NAMED_SLOTS]
        habits = {f"chose_slot_{i + 1}": float(share) for i, share in enumerate(named)}
        habits |= {"chose_later_slot": float(shares[_NAMED_SLOTS:].sum()), "tie": float((chosen(scores).sum(axis=-1) > 1).mean())}
        return habits | ({"same_choice": order_consistency(scores)} if len(scores) > 1 else {})


class PairBenchmark(RewardBenchmark):
    """Two responses per prompt. `correct`: the better one scores strictly higher; a tie is wrong, and counted as `tie`."""

    headline = ("correct", None)
    judgings = {"correct": pair_accuracy}
    metrics = (
        Metric("correct", "binary", title="better response strictly higher"),
        Metric("correct_when_first", "binary", title="the same, better response in the first slot"),
        Metric("correct_when_second", "binary", title="the same, better response in the second slot"),
        _SAME_CHOICE,
        _TIE,
    )
    shares = ("chose_slot_1", "chose_slot_2")

    def habits(self, item: Item, answer: Answer, scores: np.ndarray) -> dict[str, float]:
        """Also accuracy by the slot of the better response."""
        better = int(np.argmin(item.truth))
        habits = super().habits(item, answer, scores)
        for slot, name in enumerate(("first", "second")):
            there = [scores[i] for i, each in enumerate(answer.passes) if each.order[slot] == better]
            if there:
                habits[f"correct_when_{name}"] = float(np.mean([pair_accuracy(one, item.truth) for one in there]))
        return habits


class ListBenchmark(RewardBenchmark):
    """Several responses per prompt with ranks. The headline is `best_of_n`; of k tied highest scores each counts 1/k."""

    headline = ("best_of_n", None)
    judgings = {"best_of_n": best_of_n, "pairs": pair_accuracy, "kendall": kendall_tau_b, "spearman": spearman}
    metrics = (
        Metric("best_of_n", "binary", title="best response chosen"),
        Metric("pairs", "mean", title="better response of a pair strictly higher"),
        Metric("kendall", "mean", title="Kendall's tau-b"),
        Metric("spearman", "mean", title="Spearman's correlation"),
        _SAME_CHOICE,
        _TIE,
    )
    shares = (*(f"chose_slot_{i + 1}" for i in range(_NAMED_SLOTS)), "chose_later_slot")


def over_passes(judging: Judging, scores: np.ndarray, ranks: Sequence[int], rule: Literal["each", "mean", "every"] | str) -> float:
    """One number of several passes.

    Args:
        judging: of one pass.
        scores: (K, N).
        ranks: (N,).
        rule: see the module.
    """
    if rule == "mean":
        return judging(mean_scores(scores), ranks)
    numbers = [judging(one, ranks) for one in scores]
    return float(min(numbers) if rule == "every" else np.mean(numbers))
