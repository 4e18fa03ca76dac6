"""How well scores of N responses agree with the ranks that people gave them, and which of two models people
prefer.

Scores: higher is better. Ranks: 1 is best, equal ranks are ties. Both are by response, never by slot,
whatever order a model saw them in.

Letters: N responses, K passes over the same responses in different orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Preference:
    """Attributes:
    win_rate: wins per win or loss; NaN if everything is a tie.
    tie_rate: ties per vote, "both good" and "both bad" alike; NaN without votes.
    low: lower end of the 95 % interval of the win rate.
    high: upper end.
    p_value: of the sign test, how likely so uneven votes are if both models are equally good.
    """

    win_rate: float
    tie_rate: float
    low: float
    high: float
    p_value: float


def tally(wins: int, losses: int, ties: int = 0) -> Preference:
    """Rates of one model against another one.

    The interval is the exact one of the sign test (Clopper and Pearson, 1934), which leaves ties out.

    Args:
        wins: votes for the model.
        losses: votes for the other one.
        ties: votes for both or none.

    Raises:
        ValueError: a number of votes is negative.
    """
    if min(wins, losses, ties) < 0:
        raise ValueError(f"expected numbers of votes, got {wins} wins, {losses} losses, {ties} ties")
    decided = wins + losses
    tie_rate = ties / (decided + ties) if decided + ties else float("nan")
    if not decided:
        return Preference(float("nan"), tie_rate, 0.0, 1.0, 1.0)
    test = scipy.stats.binomtest(wins, decided)
    interval = test.proportion_ci(0.95, method="exact")
    return Preference(wins / decided, tie_rate, float(interval.low), float(interval.high), float(test.pvalue))


def chosen(scores: ArrayLike) -> np.ndarray:
    """(..., N) bool: the responses with the highest score; several where they are exactly equal.

    Args:
        scores: (..., N).
    """
    values = np.asarray(scores, dtype=np.float64)
    return values == values.max(axis=-1, keepdims=True)


def best_of_n(scores: ArrayLike, ranks: Sequence[int]) -> float:
    """Whether the best response is chosen; of k responses with the same highest score, the share that is
    best.

    Args:
        scores: (N,).
        ranks: (N,); with several responses of the best rank, any of them is right.

    Source: RewardBench 2 gives 1/k where the best response is among k tied ones.
    """
    given = _checked_ranks(scores, ranks)
    is_best = given == given.min()
    return float(is_best[chosen(scores)].mean())


def pair_accuracy(scores: ArrayLike, ranks: Sequence[int]) -> float:
    """Share of the pairs of different rank whose better response has the strictly higher score; NaN without
    such pairs.

    Args:
        scores: (N,).
        ranks: (N,).
    """
    given = _checked_ranks(scores, ranks)
    better, worse = np.nonzero(given[:, None] < given[None, :])
    if not len(better):
        return float("nan")
    values = np.asarray(scores, dtype=np.float64)
    is_right = values[better] > values[worse]
    return float(is_right.mean())


def kendall_tau_b(scores: ArrayLike, ranks: Sequence[int]) -> float:
    """Kendall's tau-b between scores and ranks: 1 the same order, -1 the reverse, 0 where all scores are
    equal.

    Args:
        scores: (N,).
        ranks: (N,); NaN if all are equal.
    """
    return _correlation(scipy.stats.kendalltau, scores, ranks)


def spearman(scores: ArrayLike, ranks: Sequence[int]) -> float:
    """Spearman's correlation between scores and ranks, ties at their mean rank; 0 where all scores are equal.

    Args:
        scores: (N,).
        ranks: (N,); NaN if all are equal.
    """
    return _correlation(scipy.stats.spearmanr, scores, ranks)


def mean_scores(passes: ArrayLike) -> np.ndarray:
    """(N,) scores over all passes. A pass only says how its responses compare, so its own mean is taken off
    first.

    Args:
        passes: (K, N).
    """
    values = np.asarray(passes, dtype=np.float64)
    own_mean = values.mean(axis=-1, keepdims=True)  # (K, 1)
    return (values - own_mean).mean(axis=0)


def order_consistency(passes: ArrayLike) -> float:
    """Share of the pairs of passes that choose the same response; NaN for fewer than two passes.

    Args:
        passes: (K, N).
    """
    choices = chosen(passes)  # (K, N)
    first, second = np.triu_indices(len(choices), k=1)  # every pair of passes
    if not len(first):
        return float("nan")
    is_same = (choices[first] == choices[second]).all(axis=-1)
    return float(is_same.mean())


def slot_shares(passes: ArrayLike, orders: ArrayLike) -> np.ndarray:
    """(N,) how often the response in each slot is chosen; a tie is shared. Without a bias it is 1/N
    everywhere.

    That holds where every response has stood in every slot, as in cyclic shifts.

    Args:
        passes: (K, N) scores by response.
        orders: (K, N) response in each slot.
    """
    choices = chosen(passes)
    shares = choices / choices.sum(axis=-1, keepdims=True)
    return np.take_along_axis(shares, np.asarray(orders), axis=-1).mean(axis=0)


def _correlation(statistic: Callable[..., Any], scores: ArrayLike, ranks: Sequence[int]) -> float:
    """A rank correlation of scipy; NaN if all ranks are equal, 0 if only the scores are."""
    given = _checked_ranks(scores, ranks)
    values = np.asarray(scores, dtype=np.float64)
    if (given == given[0]).all():
        return float("nan")
    if (values == values[0]).all():
        return 0.0
    return float(statistic(values, -given).statistic)


def _checked_ranks(scores: ArrayLike, ranks: Sequence[int]) -> np.ndarray:
    if np.shape(scores) != (len(ranks),) or not len(ranks):
        raise ValueError(
            f"expected one score per rank, got scores of shape {np.shape(scores)} and {len(ranks)} ranks"
        )
    return np.asarray(ranks)
