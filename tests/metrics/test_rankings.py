"""Agreement of scores with ranks: by hand, against scipy, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

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


@st.composite
def scored_lists(draw):
    n = draw(st.integers(2, 7))
    scores = draw(st.lists(st.integers(-3, 3).map(float), min_size=n, max_size=n))
    ranks = draw(st.lists(st.integers(1, n), min_size=n, max_size=n))
    return scores, ranks


@pytest.mark.parametrize(
    ("scores", "ranks", "best", "pairs"),
    [
        ([3, 2, 1, 0], [1, 2, 3, 4], 1, 1),
        ([0, 1, 2, 3], [1, 2, 3, 4], 0, 0),
        ([2, 2, 1, 0], [1, 2, 3, 4], 1 / 2, 5 / 6),  # the best one shares the highest score
        ([1, 1, 1, 1], [1, 2, 3, 4], 1 / 4, 0),  # all tied: chance for the best, no pair told apart
        ([0, 5, 1, 0], [1, 1, 3, 4], 1, 3 / 5),  # any of two best ones will do, and they make no pair
        ([5, 5], [1, 2], 1 / 2, 0),  # a tie of two is no right pair
    ],
)
def test_by_hand(scores, ranks, best, pairs):
    assert best_of_n(scores, ranks) == pytest.approx(best)
    assert pair_accuracy(scores, ranks) == pytest.approx(pairs)


@given(scored_lists())
def test_correlations_are_those_of_scipy(lists):
    scores, ranks = lists
    if len(set(ranks)) == 1:
        assert (
            math.isnan(kendall_tau_b(scores, ranks))
            and math.isnan(spearman(scores, ranks))
            and math.isnan(pair_accuracy(scores, ranks))
        )
    elif len(set(scores)) == 1:
        assert kendall_tau_b(scores, ranks) == spearman(scores, ranks) == 0
    else:
        worse = [-rank for rank in ranks]
        assert kendall_tau_b(scores, ranks) == pytest.approx(kendalltau(scores, worse).statistic)
        assert spearman(scores, ranks) == pytest.approx(spearmanr(scores, worse).statistic)


@given(scored_lists(), st.integers(0, 99))
def test_the_order_of_the_list_does_not_matter(lists, seed):
    scores, ranks = lists
    order = np.random.default_rng(seed).permutation(len(ranks))
    for judge in (best_of_n, pair_accuracy, kendall_tau_b, spearman):
        assert judge([scores[i] for i in order], [ranks[i] for i in order]) == pytest.approx(
            judge(scores, ranks), nan_ok=True
        )


def test_a_pass_counts_by_its_differences_only():
    assert mean_scores([[1, 2], [101, 100]]) == pytest.approx([0, 0])
    assert mean_scores([[1, 2, 6], [11, 12, 16]]) == pytest.approx([-2, -1, 3])


def test_consistency_and_slots():
    # Whatever stands first wins.
    passes, orders = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert order_consistency(passes) == 0 and slot_shares(passes, orders).tolist() == [1, 0, 0]
    # The same response wins wherever it stands.
    passes = [[0, 3, 1]] * 3
    assert order_consistency(passes) == 1 and slot_shares(passes, orders) == pytest.approx([1 / 3] * 3)
    # Two of three agree; a tie is another choice, and shared among its slots.
    assert order_consistency([[0, 1, 0], [0, 1, 0], [1, 1, 0]]) == pytest.approx(1 / 3)
    assert slot_shares([[1, 1, 0]], [[2, 0, 1]]) == pytest.approx([0, 1 / 2, 1 / 2])
    assert math.isnan(order_consistency([[1, 2]]))
    assert chosen([[1, 2, 2], [3, 0, 0]]).tolist() == [[False, True, True], [True, False, False]]


def test_lengths_must_agree():
    for judge in (best_of_n, pair_accuracy, kendall_tau_b, spearman):
        with pytest.raises(ValueError, match=r"shape \(2,\) and 3 ranks"):
            judge([1, 2], [1, 2, 3])
