"""The order of draws: every row once per epoch, every draw in one share, the same from anywhere."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.errors import ProcessingError
from molmopoint.training.sampling import BLOCK, DrawOrder, Share, ShareSampler

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(SIZES, st.integers(1, 3), st.integers(0, 5), st.integers(1, 3), st.integers(1, 3))
def test_all_shares_together_draw_every_row_once_per_epoch(sizes, epochs, seed, num_ranks, num_workers):
    order = DrawOrder(sizes, seed=seed, epochs=epochs)
    shares = [
        Share.of(rank, num_ranks, worker, num_workers)
        for rank in range(num_ranks)
        for worker in range(num_workers)
    ]
    draws = [draw for share in shares for draw in ShareSampler(order, share)]
    rows = {(source, index) for source, size in enumerate(sizes) for index in range(size)}
    assert sorted(draw.number for draw in draws) == list(range(epochs * sum(sizes)))
    assert Counter((draw.source, draw.index, draw.epoch) for draw in draws) == {
        (*row, epoch): 1 for row in rows for epoch in range(epochs)
    }
    assert all(draw.epoch == draw.number // sum(sizes) for draw in draws)


def test_a_mixture_keeps_its_rates_and_its_rows_come_equally_often():
    order = DrawOrder([10, 40, 1000], rates=[1, 2, 5], seed=3)
    draws = [order[n] for n in range(2 * BLOCK + 100)]
    sources = Counter(draw.source for draw in draws)
    for source, rate in enumerate([1 / 8, 2 / 8, 5 / 8]):
        assert sources[source] / len(draws) == pytest.approx(rate, abs=0.02)
        rows = Counter(draw.index for draw in draws if draw.source == source)
        assert len(rows) == order.sizes[source]
        assert max(rows.values()) - min(rows.values()) <= 1
    assert Counter((draw.source, draw.index, draw.epoch) for draw in draws).most_common(1)[0][1] == 1


@pytest.mark.parametrize("rates", [None, [1, 3]])
def test_any_draw_can_be_asked_for_first(rates):
    order = DrawOrder([7, 500], rates, seed=1)
    numbers = [3 * BLOCK + 5, 0, 2 * BLOCK - 1, 2 * BLOCK, 17]
    asked = [order[n] for n in numbers]
    assert asked == [DrawOrder([7, 500], rates, seed=1)[n] for n in numbers]
    assert asked == [pickle.loads(pickle.dumps(order))[n] for n in numbers]  # as it is sent to loader workers
    forward = list(islice(ShareSampler(order), 3 * BLOCK + 6))
    assert asked == [forward[n] for n in numbers]


def test_the_seed_decides():
    def rows(seed):
        return [(draw.source, draw.index) for draw in ShareSampler(DrawOrder([20, 20], seed=seed, epochs=2))]

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)
    assert rows(0)[:40] != rows(0)[40:]


def test_randomness_of_an_example_follows_its_row_and_epoch():
    one = {
        (d.index, d.epoch): d.generator().random() for d in ShareSampler(DrawOrder([20], seed=0, epochs=2))
    }
    other = {
        (d.index, d.epoch): d.generator().random()
        for d in ShareSampler(DrawOrder([20], seed=9, epochs=2), Share(1, 3))
    }
    assert len(set(one.values())) == 40
    assert other == {key: one[key] for key in other}


@given(st.integers(0, 30), st.sampled_from([None, (1.0, 2.0)]), st.integers(0, 2))
@settings(max_examples=30)
def test_resuming_continues_with_the_same_rows(stop, rates, index):
    order = DrawOrder([8, 30], rates, seed=5)
    sampler = ShareSampler(order, Share(index, 3))
    list(islice(sampler, stop))
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = list(islice(sampler, 40))
    resumed = ShareSampler(DrawOrder([8, 30], rates, seed=5), Share(index, 3))
    resumed.load_state_dict(state)
    assert list(islice(resumed, 40)) == expected


def test_an_order_ends():
    order = DrawOrder([3], epochs=2)
    assert order.end == 6
    for number in (6, -1):
        with pytest.raises(IndexError, match="below 6"):
            order[number]
    assert list(ShareSampler(order, Share(7, 8))) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": []}, "one or more sources"),
        ({"sizes": [3, 0]}, "leave empty sources out"),
        ({"sizes": [3], "seed": -1}, "seed of at least 0"),
        ({"sizes": [3], "epochs": 0}, "one or more epochs"),
        ({"sizes": [3, 4], "rates": [1]}, "2 rates above 0"),
        ({"sizes": [3, 4], "rates": [1, 0]}, "leave out sources"),
        ({"sizes": [3, 4], "rates": [1, float("nan")]}, "rates above 0"),
        ({"sizes": [3, 4], "rates": [1, 1], "epochs": 2}, "limit the training steps instead"),
    ],
)
def test_impossible_orders_are_refused(arguments, message):
    with pytest.raises(ProcessingError, match=message):
        DrawOrder(**arguments)


@pytest.mark.parametrize(("rank", "worker"), [(2, 0), (0, 2), (-1, 0)])
def test_shares_that_do_not_exist_are_refused(rank, worker):
    with pytest.raises(ProcessingError, match="count from 0"):
        Share.of(rank, 2, worker, 2)


def test_positions_of_another_order_or_share_are_refused():
    state = ShareSampler(DrawOrder([3, 4], seed=1)).state_dict()
    with pytest.raises(ProcessingError, match="seed 1, now 2"):
        ShareSampler(DrawOrder([3, 4], seed=2)).load_state_dict(state)
    with pytest.raises(ProcessingError, match=r"sizes \[3, 4\], now \[3, 5\]"):
        ShareSampler(DrawOrder([3, 5], seed=1)).load_state_dict(state)
    with pytest.raises(ProcessingError, match="as many ranks and workers"):
        ShareSampler(DrawOrder([3, 4], seed=1), Share(0, 2)).load_state_dict(state)
    ShareSampler(DrawOrder([3, 4], seed=1, epochs=9)).load_state_dict(state)
