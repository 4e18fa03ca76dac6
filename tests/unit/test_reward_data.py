"""Order and position of reward training: one kind per batch on all processes, every row once per epoch, and
resuming anywhere.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from molmopoint.errors import ProcessingError
from molmopoint.training.reward.dataset import MODALITIES, ModalityOrder, PreferenceDataset

KINDS = ["image"] * 7 + ["text"] * 4 + ["video"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(MODALITIES), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 5))
def test_an_epoch_has_every_row_and_batches_of_one_kind(kinds, width, seed):
    order = ModalityOrder(kinds, width, seed=seed)
    for epoch in range(2):
        batches = [order[epoch * order.batches_per_epoch + i] for i in range(order.batches_per_epoch)]
        seen = Counter(draw.index for batch in batches for draw in batch)
        assert set(seen) == set(range(len(kinds)))
        for kind, name in enumerate(MODALITIES):
            rows = [index for index, of in enumerate(kinds) if of == name]
            # at most the last batch of a kind repeats rows, to be whole
            assert sum(seen[row] for row in rows) == -(-len(rows) // width) * width
            assert max((seen[row] for row in rows), default=0) <= 1 + -(-width // max(len(rows), 1))
            assert {draw.source for batch in batches for draw in batch if kinds[draw.index] == name} <= {kind}
        for batch in batches:
            assert len(batch) == width and len({kinds[draw.index] for draw in batch}) == 1


def test_kinds_are_drawn_alike_until_one_is_used_up():
    order = ModalityOrder(["image"] * 3000 + ["text"] * 3000 + ["video"] * 300, 1, seed=1)
    first = Counter(order[i][0].source for i in range(600))
    assert all(abs(first[kind] - 200) < 50 for kind in range(3))
    late = Counter(order[i][0].source for i in range(4000, 6000))
    assert late[2] == 0 and abs(late[0] - late[1]) < 200
    assert [order[i][0].index for i in range(50)] != [
        order[order.batches_per_epoch + i][0].index for i in range(50)
    ]
    assert order[7] == ModalityOrder(["image"] * 3000 + ["text"] * 3000 + ["video"] * 300, 1, seed=1)[7]


def prepare(draw):
    if draw.index == 2:
        raise ProcessingError("expected a picture, got a cup")
    return (draw.index, draw.epoch)


def batches(dataset, number, workers=0):
    loader = iter(DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=lambda batch: batch[0]))
    made = []
    for _ in range(number):
        batch = next(loader)
        dataset.record([batch.progress])
        made.append(batch.rows)
    return made


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_position_goes_on_with_any_number_of_workers(workers):
    whole = PreferenceDataset(ModalityOrder(KINDS, 2, seed=3), prepare)
    wanted = batches(whole, 12)
    first = PreferenceDataset(ModalityOrder(KINDS, 2, seed=3), prepare)
    assert batches(first, 5, workers) == wanted[:5]
    then = PreferenceDataset(ModalityOrder(KINDS, 2, seed=3), prepare)
    then.go_to([json.loads(json.dumps(first.state_dict()))], 1)
    assert batches(then, 7, 2 - workers) == wanted[5:]
    assert [row.index for row in then.skipped] == [2] and then.state_dict() == whole.state_dict()
    assert (2, 0) not in {row for batch in wanted for row in batch} and all(
        len(batch) == 2 for batch in wanted
    )


def test_two_processes_share_the_batches_of_one():
    one = batches(PreferenceDataset(ModalityOrder(KINDS, 4, seed=3), prepare), 6)
    two = [
        PreferenceDataset(ModalityOrder(KINDS, 4, seed=3), prepare, rank=rank, num_ranks=2) for rank in (0, 1)
    ]
    halves = [batches(dataset, 6) for dataset in two]
    assert [a + b for a, b in zip(*halves, strict=True)] == one
    alone = PreferenceDataset(ModalityOrder(KINDS, 4, seed=3), prepare)
    alone.go_to([dataset.state_dict() for dataset in two], 1)
    assert alone.next_batch == 6 and {row.index for row in alone.skipped} == {2}


def test_another_order_or_hopeless_data_is_refused():
    dataset = PreferenceDataset(ModalityOrder(KINDS, 2, seed=3), prepare)
    with pytest.raises(
        ProcessingError,
        match=r"expected the order of the saved position, .*'seed': 4.* go on with the same data",
    ):
        dataset.go_to([PreferenceDataset(ModalityOrder(KINDS, 2, seed=4), prepare).state_dict()], 1)
    with pytest.raises(ProcessingError, match="expected rows that 2 processes can share, got 3 per batch"):
        PreferenceDataset(ModalityOrder(KINDS, 3), prepare, num_ranks=2)
    with pytest.raises(ProcessingError, match="expected one or more rows to train on"):
        ModalityOrder([], 1)
    broken = PreferenceDataset(ModalityOrder(["text"] * 3, 1), lambda draw: prepare(type(draw)(0, 0, 2, 0)))
    with pytest.raises(ProcessingError, match="got 20 of kind text that cannot"):
        batches(broken, 1)
