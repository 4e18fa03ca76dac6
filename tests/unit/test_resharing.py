"""A run that goes on with another number of ranks or workers trains on every row exactly once."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest
from torch.utils.data import DataLoader

from molmopoint.errors import ProcessingError
from molmopoint.training.packed_dataset import Pack, PackedDataset
from molmopoint.training.packing import ExampleSize, PackingLimits
from molmopoint.training.sampling import Draw, DrawOrder, reshare

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def example(draw: Draw) -> ExampleSize:
    if draw.index == 9:
        raise OSError("no such picture")
    rng = draw.generator()
    return ExampleSize(int(rng.integers(5, 80)), int(rng.integers(0, 6)))


def size(made: ExampleSize) -> ExampleSize:
    return made


def datasets(num_ranks: int) -> list[PackedDataset]:
    order, limits = DrawOrder([60], seed=2, epochs=2), PackingLimits(100, 8, pool_size=5, max_stay=12)
    return [
        PackedDataset(order, example, limits, rank=rank, num_ranks=num_ranks, measure=size)
        for rank in range(num_ranks)
    ]


def train(data: PackedDataset, num_workers: int, steps: int | None = None) -> list[Pack]:
    packs = []
    for batch in islice(DataLoader(data, batch_size=1, num_workers=num_workers, collate_fn=list), steps):
        data.record([pack.progress for pack in batch])
        packs += batch
    return packs


@pytest.mark.parametrize("steps", [(0, 0), (1, 0), (5, 3), (2, 9), (1, None), (None, None)])
def test_every_row_comes_exactly_once(steps):
    before, middle, after = datasets(2), datasets(3), datasets(1)
    packs = [pack for data, count in zip(before, steps, strict=True) for pack in train(data, 0, count)]
    states = json.loads(json.dumps([data.state_dict() for data in before]))
    for data, state in zip(middle, reshare(states, num_ranks=3, num_workers=1), strict=True):
        data.load_state_dict(state)
        packs += train(data, 0, 2)
    [state] = reshare([data.state_dict() for data in middle], num_ranks=1, num_workers=2)
    after[0].load_state_dict(state)
    packs += train(after[0], 2)
    numbers = Counter(number for pack in packs for number in pack.draws)
    order = after[0].order
    assert numbers == {number: 1 for number in range(120) if order[number].index != 9}
    assert [skipped.index for skipped in after[0].skipped] == [9]


def test_what_was_dealt_out_survives_a_crash():
    first = datasets(2)
    packs = [pack for data in first for pack in train(data, 0, 4)]
    [state] = reshare([data.state_dict() for data in first], num_ranks=1, num_workers=1)
    whole = datasets(1)[0]
    whole.load_state_dict(state)
    expected = [pack.draws for pack in train(whole, 0)]
    used, resumed = datasets(1)[0], datasets(1)[0]
    used.load_state_dict(state)
    begun = [pack.draws for pack in train(used, 0, 1)]
    resumed.load_state_dict(json.loads(json.dumps(used.state_dict())))
    assert begun + [pack.draws for pack in train(resumed, 0)] == expected
    assert (
        len(
            {number for pack in packs for number in pack.draws}
            & {number for draws in expected for number in draws}
        )
        == 0
    )


def test_incomplete_or_mixed_positions_are_refused():
    states = [data.state_dict() for data in datasets(2)]
    with pytest.raises(ProcessingError, match=r"positions of 2 ranks, one each, got those of ranks \[0\]"):
        reshare(states[:1], 1, 1)
    with pytest.raises(ProcessingError, match="one or more ranks"):
        reshare([], 1, 1)
    with pytest.raises(ProcessingError, match="different data or limits"):
        reshare([states[0], states[1] | {"limits": {}}], 1, 1)
    with pytest.raises(ProcessingError, match="worker below 0"):
        reshare(states, 1, 0)
