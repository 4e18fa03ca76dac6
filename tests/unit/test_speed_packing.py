"""The packing and scoring parts of the speed program: what they count is right, and they run."""

from __future__ import annotations

import numpy as np
import pytest

from molmopoint.eval.speed.example_rows import KINDS, MIXTURES, RowMaker, draw
from molmopoint.eval.speed.packing import (
    SMALL,
    batches_by_layout,
    describe,
    measure_fill,
    packs_of,
    train_pass,
)
from molmopoint.eval.speed.scoring import measure
from molmopoint.eval.speed.subjects import build
from molmopoint.eval.speed.timing import Setting
from molmopoint.training.packing import ExampleSize, PackingLimits


@pytest.mark.parametrize("mixture", range(len(MIXTURES)))
def test_shares_of_a_mixture_are_whole(mixture):
    assert sum(kind.shares[mixture] for kind in KINDS) == pytest.approx(1)


def test_fill_by_hand():
    sizes = [ExampleSize(60, 1), ExampleSize(40, 1), ExampleSize(100, 2), ExampleSize(50, 1)]
    limits = PackingLimits(100, 4, pool_size=2)
    packs = [keys for keys, _ in packs_of(sizes, limits, flush=True)]
    assert sorted(number for keys in packs for number in keys) == [0, 1, 2, 3]
    assert all(sum(sizes[number].tokens for number in keys) <= 100 for keys in packs)
    fill = measure_fill(sizes, limits)
    assert 0.5 <= fill.tokens <= 1 and fill.examples <= 4


def test_layouts_hold_the_same_labels_and_train():
    subject = build("nano", Setting())
    maker = RowMaker(subject.model.config, subject.image_processor)
    rng = np.random.default_rng(0)
    drawn = [draw(rng, MIXTURES[0], 0.1) for _ in range(5)]
    layouts = batches_by_layout(maker, drawn, SMALL)
    described = {name: describe(batches) for name, batches in layouts.items()}
    assert len({each["labelled"] for each in described.values()}) == 1
    assert described["packed"]["tokens"] <= described["trees"]["tokens"] <= described["expressions"]["tokens"]
    assert train_pass(subject, Setting(), layouts["packed"][:1])["labelled token"] > 0


def test_scoring_is_timed_on_right_answers():
    times = measure(20)
    assert times.items == 20 and times.score > 0 and times.megabytes < 1
