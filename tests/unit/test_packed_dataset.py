"""Packed examples out of loader workers: exactly once, the same after a crash, broken rows listed."""

from __future__ import annotations

import json
import logging
from collections import Counter
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from molmopoint.errors import ProcessingError
from molmopoint.processing.rows import IGNORED, TRUNK, Row
from molmopoint.tokens import NO_SELECTION
from molmopoint.training.packed_dataset import (
    PROGRESS,
    PackCollator,
    PackedDataset,
    SkippedExample,
    size_of_row,
)
from molmopoint.training.packing import ExampleSize, PackingLimits
from molmopoint.training.sampling import Draw, DrawOrder

LIMITS = PackingLimits(100, 8, pool_size=6, max_stay=12)
PATCH, PAD = 5, 0

# One core is enough for these tests, whatever the loader thinks of it.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def example(draw: Draw) -> tuple[Draw, ExampleSize]:
    rng = draw.generator()
    return draw, ExampleSize(int(rng.integers(5, 80)), int(rng.integers(0, 6)))


def broken_example(draw: Draw) -> tuple[Draw, ExampleSize]:
    """One row cannot be read, one is not what it says, one is too long."""
    if draw.index == 3:
        raise FileNotFoundError("no such picture: cup.png")
    if draw.index == 11:
        raise ProcessingError("expected a picture, got text")
    return example(draw) if draw.index != 17 else (draw, ExampleSize(101))


def size(made: tuple[Draw, ExampleSize]) -> ExampleSize:
    return made[1]


def dataset(
    prepare=example, *, epochs: int | None = 2, rates=None, sizes=(30, 13), rank=0, num_ranks=1, **options
) -> PackedDataset:
    order = DrawOrder(sizes, rates, seed=4, epochs=epochs)
    return PackedDataset(order, prepare, LIMITS, rank=rank, num_ranks=num_ranks, measure=size, **options)


def load(data: PackedDataset, num_workers: int, batch_size: int = 1) -> DataLoader:
    return DataLoader(data, batch_size=batch_size, num_workers=num_workers, collate_fn=list)


def draws(batches) -> list[list[tuple[int, ...]]]:
    return [[pack.draws for pack in batch] for batch in batches]


def test_two_ranks_with_two_workers_cover_everything_once():
    batches = [
        batch
        for rank in range(2)
        for batch in load(dataset(rank=rank, num_ranks=2), num_workers=2, batch_size=2)
    ]
    seen = Counter(
        (draw.source, draw.index, draw.epoch)
        for batch in batches
        for pack in batch
        for draw, _ in pack.examples
    )
    assert seen == {
        (source, index, epoch): 1
        for source, rows in ((0, 30), (1, 13))
        for index in range(rows)
        for epoch in range(2)
    }
    for batch in batches:
        for pack in batch:
            assert pack.draws == tuple(draw.number for draw, _ in pack.examples)
            assert sum(made[1].tokens for made in pack.examples) <= LIMITS.max_tokens
            assert sum(made[1].crops for made in pack.examples) <= LIMITS.max_crops


def used_until(data: PackedDataset, batches, count: int) -> dict:
    """Trains on some batches, and what is then saved."""
    for batch in islice(batches, count):
        data.record([pack.progress for pack in batch])
    return json.loads(json.dumps(data.state_dict()))


@pytest.mark.parametrize(("epochs", "rates"), [(2, None), (None, (1.0, 2.0))])
def test_killed_after_any_batch_it_goes_on_with_the_same_rows(epochs, rates):
    def fresh() -> PackedDataset:
        return dataset(epochs=epochs, rates=rates, rank=1, num_ranks=2)

    whole = draws(islice(load(fresh(), 0), 40))
    for killed_after in range(len(whole) + 1):
        used = fresh()
        state = used_until(used, iter(load(used, 0)), killed_after)
        resumed = fresh()
        resumed.load_state_dict(state)
        assert draws(islice(load(resumed, 0), len(whole) - killed_after)) == whole[killed_after:]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_with_workers_the_batches_go_on_in_the_same_order(batch_size):
    """Killed in the middle, when the worker whose turn it is is the second one, and when only one worker has
    rows left.
    """
    whole = draws(load(dataset(), 2, batch_size))
    assert len(whole) >= 8
    for killed_after in (1, len(whole) // 2, len(whole) - 1):
        used = dataset()
        state = used_until(used, iter(load(used, 2, batch_size)), killed_after)
        resumed = dataset()
        resumed.load_state_dict(state)
        assert draws(load(resumed, 2, batch_size)) == whole[killed_after:]


def test_what_was_prepared_ahead_but_not_used_is_not_lost():
    used = dataset()
    batches = iter(load(used, 0))
    state = used_until(used, batches, 3)
    ahead = draws(islice(batches, 4))
    assert used.state_dict() == state
    assert draws(islice(load(used, 0), 4)) == ahead


def test_two_crashes_are_one():
    whole = draws(load(dataset(), 0))
    parts, state = [], None
    for _ in range(3):
        data = dataset()
        if state is not None:
            data.load_state_dict(state)
        for batch in islice(load(data, 0), 5):
            data.record([pack.progress for pack in batch])
            parts.append([pack.draws for pack in batch])
        state = data.state_dict()
    assert parts == whole[:15]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_examples_are_skipped_logged_and_listed_once(num_workers, caplog):
    data = dataset(broken_example, sizes=(40,))
    with caplog.at_level(logging.WARNING):
        for batch in load(data, num_workers):
            data.record([pack.progress for pack in batch])
    listed = sorted(data.skipped, key=lambda skipped: skipped.index)
    assert listed[0] == SkippedExample(0, 3, "FileNotFoundError: no such picture: cup.png")
    assert [skipped.index for skipped in listed] == [3, 11, 17]
    assert "at most 100 tokens, got 101" in listed[2].reason
    if num_workers == 0:
        assert "skipped row 3 of source 0" in caplog.text
    resumed = dataset(broken_example, sizes=(40,))
    resumed.load_state_dict(json.loads(json.dumps(data.state_dict())))
    assert resumed.skipped == data.skipped


def test_a_broken_data_set_is_given_up():
    def fails(draw: Draw) -> None:
        raise OSError("disk gone")

    data = dataset(fails, epochs=None, give_up_after=7)
    with pytest.raises(ProcessingError, match=r"7 broken ones in a row.*disk gone.*check the data"):
        next(iter(data))


def test_faults_of_the_program_are_not_skipped():
    def wrong(draw: Draw) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        next(iter(dataset(wrong)))


def test_positions_that_do_not_fit_are_refused():
    used = dataset(num_ranks=2)
    state = used_until(used, iter(load(used, 2)), 3)
    with pytest.raises(ProcessingError, match="rank 1 of 2, got that of rank 0 of 2"):
        dataset(rank=1, num_ranks=2).load_state_dict(state)
    with pytest.raises(ProcessingError, match="another order"):
        dataset(sizes=(30, 14), num_ranks=2).load_state_dict(state)
    with pytest.raises(ProcessingError, match="limits of the saved position"):
        PackedDataset(used.order, example, PackingLimits(200, 8), num_ranks=2).load_state_dict(state)
    resumed = dataset(num_ranks=2)
    resumed.load_state_dict(state)
    with pytest.raises(ProcessingError, match="expected 2 loader workers"):
        list(load(resumed, 0))
    with pytest.raises(ProcessingError, match="count from 0"):
        dataset(rank=2, num_ranks=2)


def row(draw: Draw) -> Row:
    """A picture of 4 ViT patches per crop, one image token per crop, and text."""
    rng = draw.generator()
    crops, length = int(rng.integers(0, 4)), int(rng.integers(5, 40))
    ids = torch.from_numpy(rng.integers(6, 50, crops + length))
    return Row(
        input_ids=ids,
        selection_ids=torch.full_like(ids, NO_SELECTION),
        shift_labels=torch.where(torch.arange(len(ids)) < crops, IGNORED, ids),
        loss_weights=torch.ones(len(ids)),
        position_ids=torch.arange(len(ids)),
        example_ids=torch.zeros_like(ids),
        branch_ids=torch.full_like(ids, TRUNK),
        mm_token_type_ids=(torch.arange(len(ids)) < crops).long(),
        pixel_values=torch.from_numpy(rng.random((crops, 4, 3), dtype="float32")) if crops else None,
        pooling=torch.arange(crops * 4).view(crops, 4) if crops else None,
    )


def test_training_rows_become_batches_of_packed_rows():
    order = DrawOrder([50], epochs=1)
    data = PackedDataset(order, row, LIMITS)
    tokens = 0
    for batch in DataLoader(data, batch_size=2, num_workers=0, collate_fn=PackCollator(PATCH, PAD)):
        progress = batch.pop(PROGRESS)
        data.record(progress)
        assert batch["input_ids"].shape[0] == len(progress)
        assert batch["input_ids"].shape[1] <= LIMITS.max_tokens
        assert batch["mm_token_type_ids"].sum() == len(batch["image_token_pooling"])
        tokens += int(batch["attention_mask"].sum())
    assert tokens == sum(size_of_row(row(order[n])).tokens for n in range(50))
    assert list(data) == []
