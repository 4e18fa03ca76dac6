"""Preference graphs: order recovered, cycles broken at the lightest place, checked by brute force on up to
seven responses.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.metrics.preference_graphs import (
    merge_graphs,
    rank_acyclic,
    rank_by_preferences,
    votes_to_graph,
    without_cycles,
)


def lightest(weights: np.ndarray) -> float:
    """The least weight that must go, over all orders."""
    n = len(weights)
    orders = np.array(list(permutations(range(n))))
    places = np.argsort(orders, axis=1)
    against = places[:, :, None] > places[:, None, :]
    return float((against * weights).sum(axis=(1, 2)).min())


def graph(rng: np.random.Generator, n: int, density: float = 1.0) -> np.ndarray:
    """Weights 1 to 5, one direction per pair."""
    weights = np.triu(rng.integers(1, 6, (n, n)) * (rng.random((n, n)) < density), k=1).astype(float)
    flip = np.triu(rng.random((n, n)) < 0.5, k=1)
    return np.where(flip, 0, weights) + np.where(flip, weights, 0).T


def is_acyclic(weights: np.ndarray) -> bool:
    return not np.linalg.matrix_power((weights > 0).astype(float), len(weights)).any()


@pytest.mark.parametrize("n", range(2, 8))
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_the_lightest_set_goes(n, density):
    for seed in range(12 if n < 7 else 4):
        weights = graph(np.random.default_rng([n, seed]), n, density)
        kept = without_cycles(weights)
        assert is_acyclic(kept)
        assert weights.sum() - kept.sum() == pytest.approx(lightest(weights))
        assert ((kept == weights) | (kept == 0)).all(), "arcs go whole or stay whole"


def test_the_heuristic_is_near_the_lightest_set_and_drops_nothing_in_vain():
    worse = []
    for seed in range(40):
        weights = graph(np.random.default_rng([99, seed]), 6)
        kept = without_cycles(weights, exact=0)
        assert is_acyclic(kept)
        gone = weights.sum() - kept.sum()
        worse.append(gone - lightest(weights))
        # An order or its reverse keeps at least half of the weight; the heuristic is no worse.
        assert worse[-1] >= -1e-9 and gone <= weights.sum() / 2
        for a, b in np.argwhere((weights > 0) & (kept == 0)):
            with_it = kept.copy()
            with_it[a, b] = weights[a, b]
            assert not is_acyclic(with_it), "an arc that closes no cycle stays"
    assert np.mean(np.array(worse) < 1e-9) > 0.5


def test_a_triangle_loses_its_lightest_side():
    assert rank_by_preferences(3, [[(0, 1, 3), (1, 2, 2), (2, 0, 1)]]) == [0, 1, 2]
    assert rank_by_preferences(3, [[(0, 1, 1), (1, 2, 3), (2, 0, 2)]]) == [1, 2, 0]
    for exact in (0, 10):
        assert is_acyclic(without_cycles(votes_to_graph(3, [(0, 1, 1), (1, 2, 1), (2, 0, 1)]), exact=exact))


@given(st.permutations(range(6)), st.sampled_from([0, 10]))
def test_clean_orders_are_recovered(order, exact):
    votes = [(order[i], order[j], 1.0) for i in range(6) for j in range(i + 1, 6)]
    assert rank_by_preferences(6, [votes], exact=exact) == list(order)
    neighbours = [(order[i], order[i + 1], 1.0) for i in range(5)]
    assert rank_by_preferences(6, [neighbours], exact=exact) == list(order), (
        "what is not compared follows from the chain"
    )


@pytest.mark.parametrize("exact", [0, 10])
def test_many_noisy_judges_find_the_order(exact):
    rng = np.random.default_rng(0)
    order = [3, 0, 4, 1, 5, 2]
    judges = []
    for _ in range(30):
        pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
        judges.append(
            [
                (order[i], order[j], 1.0) if rng.random() < 0.75 else (order[j], order[i], 1.0)
                for i, j in pairs
            ]
        )
    assert rank_by_preferences(6, judges, exact=exact) == order
    assert sum(rank_by_preferences(6, [judge]) == order for judge in judges) < 10, "one judge alone does not"


def test_a_field_of_nineteen_models():
    rng = np.random.default_rng(1)
    votes = [(i, j, 1.0) if rng.random() < 0.9 else (j, i, 1.0) for i in range(19) for j in range(i + 1, 19)]
    ranking = rank_by_preferences(19, [votes])
    assert sorted(ranking) == list(range(19))
    assert np.abs(np.argsort(ranking) - np.arange(19)).mean() < 3


def test_opposite_votes_cancel_and_equals_follow_their_numbers():
    assert votes_to_graph(2, [(0, 1, 2.0), (1, 0, 0.5)]).tolist() == [[0, 1.5], [0, 0]]
    one, other = votes_to_graph(2, [(0, 1, 1.0)]), votes_to_graph(2, [(1, 0, 3.0)])
    assert merge_graphs([one, other]).tolist() == [[0, 0], [2, 0]]
    assert rank_by_preferences(4, [[]]) == [0, 1, 2, 3]
    assert rank_acyclic(votes_to_graph(3, [(2, 0, 1.0)])) == [2, 0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: votes_to_graph(2, [(0, 2, 1.0)]), "two of 2 responses"),
        (lambda: votes_to_graph(2, [(1, 1, 1.0)]), "two of 2 responses"),
        (lambda: votes_to_graph(2, [(0, 1, 0.0)]), "strength above 0"),
        (lambda: votes_to_graph(2, [(0, 1, float("nan"))]), "strength above 0"),
        (lambda: merge_graphs([]), "one or more"),
        (lambda: merge_graphs([np.zeros((2, 2)), np.zeros((3, 3))]), "same responses"),
        (lambda: merge_graphs([np.array([[0, -1], [0, 0]])]), "0 or more"),
        (lambda: rank_acyclic(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])), "without_cycles first"),
    ],
)
def test_what_is_no_graph_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
