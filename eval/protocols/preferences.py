"""Reward benchmarks: responses with ranks, and numbers of how well a model's scores agree with them.

A model scores the responses of an item in several orders (`orders_of` in `runner/reward_predictor.py`). Rules
of making one number of them:

- `each`, the default: every order counts, and their mean is taken. It is what one pass in an order by chance
  can be expected to reach, so it is the rule to read beside published numbers, whose order is not stated.
- `mean`: scores are averaged over the orders, each pass without its own mean, and then compared once.
- `every`: only what is right in every order counts.

Whatever the rule, tables show how much the order decides: `same_choice`, accuracy by place of the better
response, and below the table how often each slot is chosen.

Letters: N responses, K passes over them in different orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from molmopoint.eval.benchmark import (
    Benchmark,
    GenerationSettings,
    Item,
    ItemScores,
    Metric,
    Need,
    ParsedAnswer,
)
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

Agreement = Callable[[np.ndarray, Sequence[int]], float]
"""How well scores (N,) agree with ranks (N,)."""

_SAME_CHOICE = Metric("same_choice", "mean", title="pairs of orders that choose the same response")
_TIE = Metric("tie", "mean", title="passes without a single best score")
_NAMED_SLOTS = 4
"""Slots with a number of their own; those behind them share one."""


class RewardBenchmark(Benchmark):
    """Base of benchmarks that want scores; `Item.truth` is the ranks (N,) of `Item.responses`, 1 is best,
    ties are equal.

    Attributes:
        agreements: the numbers of agreement, by name of their metric.
    """

    needs: ClassVar[Need] = "scores"
    # Files are read as the model was made for; of folders of frames, the reward model's authors take 16 at
    # most.
    generation: ClassVar[GenerationSettings] = GenerationSettings(max_new_tokens=0, max_frames=16)
    rules = ("each", "mean", "every")
    agreements: ClassVar[dict[str, Agreement]]

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """Agreement by the rule, and how much the order decides.

        Without scores, agreement is 0 and nothing else is known.
        """
        if not answer.passes:
            return dict.fromkeys(self.agreements, 0.0)
        scores = np.array([each.scores for each in answer.passes])  # (K, N)
        numbers = {}
        for name, agreement in self.agreements.items():
            numbers[name] = over_passes(agreement, scores, item.truth, rule)
        return numbers | self.habits(item, answer, scores)

    def habits(self, item: Item, answer: ParsedAnswer, scores: np.ndarray) -> ItemScores:
        """How much the order decides.

        Args:
            item: with ranks.
            answer: with orders.
            scores: (K, N).
        """
        shares = slot_shares(scores, [each.order for each in answer.passes])  # (N,)
        habits: ItemScores = {}
        for i in range(_NAMED_SLOTS):
            habits[f"chose_slot_{i + 1}"] = float(shares[i]) if i < len(shares) else 0.0
        habits["chose_later_slot"] = float(shares[_NAMED_SLOTS:].sum())
        is_tied = chosen(scores).sum(axis=-1) > 1  # (K,)
        habits["tie"] = float(is_tied.mean())
        if len(scores) > 1:
            habits["same_choice"] = order_consistency(scores)
        return habits


class PairBenchmark(RewardBenchmark):
    """Two responses per prompt. `correct`: the better one scores strictly higher; a tie is wrong, and counted
    as `tie`.
    """

    headline = ("correct", None)
    agreements = {"correct": pair_accuracy}
    metrics = (
        Metric("correct", "binary", title="better response strictly higher"),
        Metric("correct_when_first", "binary", title="the same, better response in the first slot"),
        Metric("correct_when_second", "binary", title="the same, better response in the second slot"),
        _SAME_CHOICE,
        _TIE,
    )
    shares = ("chose_slot_1", "chose_slot_2")

    def habits(self, item: Item, answer: ParsedAnswer, scores: np.ndarray) -> ItemScores:
        """Also accuracy by the slot of the better response."""
        better = int(np.argmin(item.truth))
        habits = super().habits(item, answer, scores)
        for slot, name in enumerate(("first", "second")):
            in_this_slot = []
            for one_pass, of_pass in zip(answer.passes, scores, strict=True):
                if one_pass.order[slot] == better:
                    in_this_slot.append(pair_accuracy(of_pass, item.truth))
            if in_this_slot:
                habits[f"correct_when_{name}"] = float(np.mean(in_this_slot))
        return habits


class ListBenchmark(RewardBenchmark):
    """Several responses per prompt with ranks. The headline is `best_of_n`; of k tied highest scores each
    counts 1/k.
    """

    headline = ("best_of_n", None)
    agreements = {
        "best_of_n": best_of_n,
        "pairs": pair_accuracy,
        "kendall": kendall_tau_b,
        "spearman": spearman,
    }
    metrics = (
        Metric("best_of_n", "binary", title="best response chosen"),
        Metric("pairs", "mean", title="better response of a pair strictly higher"),
        Metric("kendall", "mean", title="Kendall's tau-b"),
        Metric("spearman", "mean", title="Spearman's correlation"),
        _SAME_CHOICE,
        _TIE,
    )
    shares = (*(f"chose_slot_{i + 1}" for i in range(_NAMED_SLOTS)), "chose_later_slot")


def over_passes(agreement: Agreement, scores: np.ndarray, ranks: Sequence[int], rule: str) -> float:
    """One number of several passes.

    Args:
        agreement: of one pass.
        scores: (K, N).
        ranks: (N,).
        rule: "each", "mean" or "every"; see the module.
    """
    if rule == "mean":
        return agreement(mean_scores(scores), ranks)
    numbers = [agreement(one, ranks) for one in scores]
    if rule == "every":
        return float(min(numbers))
    return float(np.mean(numbers))
