"""Losses of reward models: equal to slow, obvious definitions, to Bradley-Terry for pairs, and blind to
padding.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from molmopoint.training.reward.losses import LOSSES, is_right, margins, reward_losses

SCORE = st.floats(-5, 5, width=32)


@st.composite
def rows(draw):
    """Scores and ranks of one row with two or more ranks, the place of a best one, and places that are only
    padding.
    """
    ranks = draw(
        st.lists(st.integers(1, 4), min_size=2, max_size=6).filter(lambda values: len(set(values)) > 1)
    )
    scores = draw(st.lists(SCORE, min_size=len(ranks), max_size=len(ranks)))
    best = draw(st.sampled_from([i for i, rank in enumerate(ranks) if rank == min(ranks)]))
    return scores, ranks, best, draw(st.integers(0, 3))


def slow(kind, scores, ranks, best):
    """The definitions, in plain numbers."""
    places = range(len(scores))

    def log_probability(i, among):
        return scores[i] - math.log(sum(math.exp(scores[j]) for j in among))

    top = [i for i in places if ranks[i] == min(ranks)]
    if kind == "ce":
        return -log_probability(best, places)
    if kind == "ce_soft":
        return -sum(log_probability(i, places) for i in top) / len(top)
    if kind == "plackett_luce":
        return -sum(
            log_probability(i, [j for j in places if ranks[j] >= ranks[i]])
            for i in places
            if ranks[i] < max(ranks)
        )
    pairs = [(i, j) for i, j in itertools.permutations(places, 2) if ranks[i] < ranks[j]]
    return -sum(math.log(1 / (1 + math.exp(scores[j] - scores[i]))) for i, j in pairs) / len(pairs)


@pytest.mark.parametrize("kind", LOSSES)
@settings(deadline=None)
@given(row=rows())
def test_losses_are_what_they_say_and_padding_gets_no_gradient(kind, row):
    scores, ranks, best, padding = row
    padded = torch.tensor([[*scores, *[float("-inf"), 3.0, float("nan")][:padding]]], requires_grad=True)
    told = torch.tensor([[*ranks, *[0] * padding]])
    loss = reward_losses(kind, padded, told, torch.tensor([best]))
    assert loss.tolist() == pytest.approx([slow(kind, scores, ranks, best)], rel=1e-4, abs=1e-5)
    loss.sum().backward()
    assert padded.grad is not None and torch.isfinite(padded.grad).all()
    assert (padded.grad[0, len(scores) :] == 0).all()
    assert padded.grad.sum().abs() < 1e-5  # a constant on all scores changes nothing


@pytest.mark.parametrize("kind", LOSSES)
@settings(deadline=None)
@given(better=SCORE, worse=SCORE, first=st.booleans())
def test_pairs_are_bradley_terry(kind, better, worse, first):
    scores, ranks = ([better, worse], [1, 2]) if first else ([worse, better], [5, 2])
    loss = reward_losses(
        kind, torch.tensor([scores]), torch.tensor([ranks]), torch.tensor([0 if first else 1])
    )
    assert loss.item() == pytest.approx(-functional.logsigmoid(torch.tensor(better - worse)).item(), abs=1e-5)


@pytest.mark.parametrize("number", range(2, 9))
def test_equal_scores_cost_the_logarithm_of_their_number(number):
    scores, ranks, best = torch.zeros(1, number), torch.arange(1, number + 1)[None], torch.tensor([0])
    assert reward_losses("ce", scores, ranks, best).item() == pytest.approx(math.log(number))
    assert reward_losses("ce_soft", scores, ranks, best).item() == pytest.approx(math.log(number))
    assert reward_losses("plackett_luce", scores, ranks, best).item() == pytest.approx(
        math.lgamma(number + 1), rel=1e-5
    )
    assert reward_losses("pairwise", scores, ranks, best).item() == pytest.approx(math.log(2))


def test_the_last_layer_of_ties_is_never_pushed_apart():
    scores = torch.tensor([[2.0, 0.5, -0.5]], requires_grad=True)
    reward_losses("plackett_luce", scores, torch.tensor([[1, 2, 2]]), torch.tensor([0])).sum().backward()
    assert scores.grad is not None and scores.grad[0, 0] < 0 < min(scores.grad[0, 1:].tolist())


def test_what_is_logged():
    scores = torch.tensor([[1.0, 3.0, 2.0, float("-inf")], [0.0, 1.0, 5.0, 4.0]])
    ranks = torch.tensor([[2, 1, 1, 0], [1, 2, 3, 3]])
    assert is_right(scores, ranks).tolist() == [True, False]
    assert margins(scores, ranks).tolist() == [2.0, -5.0]
