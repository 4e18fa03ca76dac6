"""Packing: limits, exactly once, fill, the longest stay, and the knapsack against all subsets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.errors import ProcessingError
from molmopoint.training.packing import ExampleSize, Packer, PackingLimits, Waiting, best_subset

SIZES = st.builds(ExampleSize, st.integers(1, 40), st.integers(0, 6))


def run(sizes: list[ExampleSize], limits: PackingLimits) -> tuple[list[tuple[int, ...]], list[int]]:
    """All packs, and for each example how many came after it before it left (the flush counts as none)."""
    packer, packs, stays = Packer(limits), [], [0] * len(sizes)
    for key, size in enumerate(sizes):
        packer.add(key, size)
        while (pack := packer.take()) is not None:
            packs.append(pack)
            for member in pack:
                stays[member] = key - member
        assert len(packer.pool) < limits.pool_size
        assert all(key - waiting.key < limits.max_stay for waiting in packer.pool)
    while (pack := packer.take(flush=True)) is not None:
        packs.append(pack)
    return packs, stays


def total(sizes: list[ExampleSize], pack: tuple[int, ...] | list[int]) -> tuple[int, int]:
    return sum(sizes[i].tokens for i in pack), sum(sizes[i].crops for i in pack)


@given(st.lists(SIZES, max_size=60), st.integers(1, 9), st.integers(0, 9), st.booleans(), st.integers(40, 90))
def test_everything_comes_once_and_no_limit_is_passed(sizes, pool_size, patience, alone, max_tokens):
    limits = PackingLimits(max_tokens, 6, pool_size, max_stay=pool_size + patience, alone_at_max_crops=alone)
    packs, stays = run(sizes, limits)
    assert sorted(key for pack in packs for key in pack) == list(range(len(sizes)))
    assert all(pack and list(pack) == sorted(pack) for pack in packs)
    for pack in packs:
        tokens, crops = total(sizes, pack)
        assert tokens <= max_tokens
        assert crops <= 6
        if alone and len(pack) > 1:
            assert all(sizes[i].crops < 6 for i in pack)
    assert max(stays, default=0) <= limits.max_stay


@given(
    st.lists(st.builds(ExampleSize, st.integers(1, 3000), st.integers(0, 1200)), max_size=25),
    st.integers(3000, 9000),
)
@settings(max_examples=40)
def test_limits_that_are_no_multiple_of_their_unit_hold(sizes, max_tokens):
    limits = PackingLimits(max_tokens, 1201, 5, max_stay=7)
    packs, _ = run(sizes, limits)
    assert sorted(key for pack in packs for key in pack) == list(range(len(sizes)))
    for pack in packs:
        tokens, crops = total(sizes, pack)
        assert tokens <= max_tokens
        assert crops <= 1201


def test_lengths_are_rounded_up():
    """A unit of this limit is 5 tokens, so that rounding 9 tokens down would let almost twice as many in."""
    sizes = [ExampleSize(9)] * 700
    assert 0.85 * 3071 < total(sizes, best_subset(sizes, PackingLimits(3071, 0)))[0] <= 3071


@given(st.lists(SIZES, min_size=1, max_size=8), st.integers(0, 50), st.integers(6, 14), st.data())
def test_the_subset_is_the_best_of_all(sizes, crop_weight, max_crops, data):
    limits = PackingLimits(100, max_crops, crop_weight=crop_weight)
    required = data.draw(st.none() | st.integers(0, len(sizes) - 1))
    chosen = best_subset(sizes, limits, required)

    def value(subset) -> float:
        return sum(sizes[i].tokens + crop_weight * sizes[i].crops for i in subset)

    allowed = [
        subset
        for count in range(1, len(sizes) + 1)
        for subset in combinations(range(len(sizes)), count)
        if total(sizes, subset)[0] <= 100
        and total(sizes, subset)[1] <= max_crops
        and (required is None or required in subset)
    ]
    assert tuple(chosen) in allowed
    assert value(chosen) == max(map(value, allowed))


def test_between_equals_the_earlier_ones_leave():
    assert best_subset([ExampleSize(50)] * 5, PackingLimits(100, 0)) == [0, 1]


def test_nothing_starves():
    """Pairs that fill a row exactly always beat the odd one; it leaves all the same."""
    limits = PackingLimits(100, 0, pool_size=4, max_stay=12)
    sizes = [ExampleSize(33)] + [ExampleSize(50)] * 40
    packs, stays = run(sizes, limits)
    assert stays[0] == limits.max_stay
    assert packs[0] == (1, 2)


def test_an_example_in_a_stream_of_full_rows_leaves_too():
    """Full rows pass the pool by, so it never fills up; the clock goes on."""
    limits = PackingLimits(100, 0, pool_size=4, max_stay=10)
    packs, stays = run([ExampleSize(10)] + [ExampleSize(100)] * 30, limits)
    assert stays[0] == limits.max_stay
    assert packs[9:11] == [(10,), (0,)]


def realistic(rng: np.random.Generator, count: int) -> list[ExampleSize]:
    """The fine-tuning stage as its parts are described: 144 tokens per crop, 196 for the view of the whole,
    84 per frame.

    25 % captions (4 to 8 crops, 60 to 500 words), 35 % pointing trees (1 to 15 questions, 24 crops for three
    in ten), 10 % screens (24 to 48 crops, 5 to 80 elements), 20 % clips of 6 to 63 s at 2 frames a second, 10
    % text.
    """

    def picture(crops: int, text: int) -> ExampleSize:
        return ExampleSize(196 + 144 * crops + text, crops + 1)

    def one() -> ExampleSize:
        match rng.choice(5, p=[0.25, 0.35, 0.1, 0.2, 0.1]):
            case 0:
                return picture(int(rng.integers(4, 9)), int(rng.integers(60, 500)))
            case 1:
                crops = 24 if rng.random() < 0.3 else int(rng.integers(4, 9))
                return picture(crops, int(rng.integers(20, 260, rng.integers(1, 16)).sum()))
            case 2:
                return picture(int(rng.integers(24, 49)), 25 * int(rng.integers(5, 80)))
            case 3:
                frames = int(rng.integers(12, 127))
                return ExampleSize(84 * frames + int(rng.integers(40, 600)), frames)
            case _:
                return ExampleSize(min(6000, 20 + int(rng.lognormal(6, 1))))

    return [one() for _ in range(count)]


@pytest.mark.parametrize(("max_tokens", "max_crops"), [(16384, 128), (36864, 384)])
def test_a_realistic_mix_fills_the_rows(max_tokens, max_crops):
    limits = PackingLimits(max_tokens, max_crops)
    sizes = realistic(np.random.default_rng(0), 600)
    packer, tokens = Packer(limits), []
    for key, size in enumerate(sizes):
        packer.add(key, size)
        while (pack := packer.take()) is not None:
            tokens.append(total(sizes, pack)[0])
    assert np.mean(tokens) >= 0.95 * max_tokens


def test_the_pool_and_the_clock_are_the_whole_state():
    limits = PackingLimits(100, 6, pool_size=5, max_stay=9)
    rng = np.random.default_rng(1)
    sizes = [ExampleSize(int(rng.integers(1, 90)), int(rng.integers(0, 5))) for _ in range(60)]
    one, packs, others = Packer(limits), [], []
    for key, size in enumerate(sizes):
        other = Packer(limits, one.clock, [Waiting(w.key, w.size, w.since) for w in one.pool])
        for packer, taken in ((one, packs), (other, others)):
            packer.add(key, size)
            while (pack := packer.take()) is not None:
                taken.append(pack)
    assert packs == others


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (ExampleSize(101), "at most 100 tokens, got 101; raise max_tokens"),
        (ExampleSize(10, 7), "at most 6 crops and frames, got 7; raise max_crops"),
        (ExampleSize(0), "one or more tokens"),
        (ExampleSize(5, -1), "one or more tokens"),
    ],
)
def test_what_no_row_can_hold_is_refused(size, message):
    packer = Packer(PackingLimits(100, 6))
    with pytest.raises(ProcessingError, match=message):
        packer.add(0, size)
    assert packer.clock == 0
    assert packer.take(flush=True) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_tokens": 0}, "max_tokens of at least 1, got 0"),
        ({"max_crops": -1}, "max_crops of at least 0"),
        ({"pool_size": 0}, "pool_size of at least 1"),
        ({"crop_weight": -1.0}, "crop_weight of at least 0"),
        ({"pool_size": 48, "max_stay": 47}, "max_stay of at least 48, got 47"),
    ],
)
def test_limits_that_pack_nothing_are_refused(changed, message):
    with pytest.raises(ProcessingError, match=message):
        PackingLimits(**{"max_tokens": 100, "max_crops": 6, **changed})
