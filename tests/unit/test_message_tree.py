"""Rows from trees: targets, weights, positions, branches, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.errors import ProcessingError
from molmopoint.processing.grounding_answers import EncodedText
from molmopoint.processing.message_tree import LossWeighting, MessageTree, Turn, build_row
from molmopoint.processing.rows import IGNORED, TRUNK, Row

END = 99


def text(*ids):
    return EncodedText(np.array(ids, dtype=np.int64), np.full(len(ids), -1))


def trunk(length=3):
    return Row(
        torch.arange(length),
        torch.tensor([0] + [1] * (length - 1)),
        torch.zeros(2, 4, 5),
        torch.arange(8).reshape(2, 4),
    )


def turn(prompt, answer):
    return Turn(text(*prompt), text(*answer))


TREE = MessageTree(
    trunk(), [[turn([10, 11], [12, 13])], [turn([20], [21])], [turn([30], [31]), turn([32, 33], [34])]]
)


def test_the_layout_of_a_tree():
    row = build_row(TREE, END)
    no = IGNORED
    assert row.input_ids.tolist() == [0, 1, 2, 10, 11, 12, 13, 20, 21, 30, 31, 32, 33, 34]
    assert row.shift_labels.tolist() == [no, no, no, no, 12, 13, END, 21, END, 31, END, no, 34, END]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 4, 3, 4, 5, 6, 7]
    assert row.branch_ids.tolist() == [TRUNK] * 3 + [0] * 4 + [1] * 2 + [2] * 5
    assert row.mm_token_type_ids.tolist() == [0, 1, 1] + [0] * 11
    assert row.example_ids.tolist() == [0] * 14
    assert row.loss_weights.tolist() == (row.shift_labels != IGNORED).float().tolist()
    assert row.pooling is TREE.trunk.pooling


def test_a_branch_is_supervised_as_the_same_conversation_alone():
    row = build_row(TREE, END)
    for i, branch in enumerate(TREE.branches):
        alone = build_row(MessageTree(TREE.trunk, [branch]), END)
        of_branch = (row.branch_ids == TRUNK) | (row.branch_ids == i)
        for name in (
            "input_ids",
            "selection_ids",
            "shift_labels",
            "loss_weights",
            "position_ids",
            "mm_token_type_ids",
        ):
            assert torch.equal(getattr(row, name)[of_branch], getattr(alone, name)), name


@pytest.mark.parametrize(
    ("weighting", "num_targets", "num_branches", "weight"),
    [
        (LossWeighting(), 9, 3, 1.0),
        (LossWeighting(factor=0.2), 9, 3, 0.2),  # pointing data
        (LossWeighting(root_length=2.0), 16, 1, 0.5),  # a single conversation counts its end
        (LossWeighting(root_length=2.0), 17, 4, 0.5),  # a branch of a tree does not
        (LossWeighting(root_length=4.0, root_branches=True), 17, 4, 0.5),
        (LossWeighting(root_branches=True), 5, 2, 1 / math.sqrt(2)),
        (LossWeighting(root_length=2.0), 1, 2, 2.0),  # nothing but the end: no division by zero
    ],
)
def test_weights(weighting, num_targets, num_branches, weight):
    assert weighting.of_branch(num_targets, num_branches) == pytest.approx(weight)


def test_weights_reach_every_target_of_their_branch():
    row = build_row(TREE, END, LossWeighting(root_length=2.0, root_branches=True))
    expected = {0: 2 / math.sqrt(2 * 3), 1: 2 / math.sqrt(3), 2: 2 / math.sqrt(3 * 3)}
    for branch, weight in expected.items():
        weights = row.loss_weights[(row.branch_ids == branch) & (row.shift_labels != IGNORED)]
        torch.testing.assert_close(weights, torch.full_like(weights, weight))
    assert (row.loss_weights[row.shift_labels == IGNORED] == 0).all()


@given(st.integers(0, 16))
def test_cutting_leaves_out_branches_without_a_target(max_length):
    if max_length < 5:
        with pytest.raises(ProcessingError, match="max_length"):
            build_row(TREE, END, max_length=max_length)
        return
    whole, row = (
        build_row(TREE, END),
        build_row(TREE, END, LossWeighting(root_branches=True), max_length=max_length),
    )
    assert len(row) <= max_length
    for name in ("input_ids", "shift_labels", "position_ids", "branch_ids", "mm_token_type_ids"):
        assert torch.equal(getattr(row, name), getattr(whole, name)[: len(row)])
    branches = row.branch_ids[row.branch_ids >= 0].unique()
    for branch in branches:
        assert (row.shift_labels[row.branch_ids == branch] != IGNORED).any()
    assert row.loss_weights.max() == pytest.approx(1 / math.sqrt(len(branches)))


def test_branches_are_shuffled_by_the_callers_generator():
    orders = {
        tuple(build_row(TREE, END, rng=np.random.default_rng(seed)).input_ids.tolist()) for seed in range(20)
    }
    assert len(orders) == 6
    again = [build_row(TREE, END, rng=np.random.default_rng(4)).input_ids for _ in range(2)]
    assert torch.equal(*again)


def test_selections_stay_with_their_tokens():
    answer = EncodedText(np.array([50, 51, 52, 7, 50]), np.array([4, 1, 8, -1, -2]))
    row = build_row(MessageTree(trunk(), [[Turn(text(10), answer)]]), END)
    assert row.selection_ids.tolist() == [-1, -1, -1, -1, 4, 1, 8, -1, -2]


@pytest.mark.parametrize("branches", [[], [[]], [[turn([10], [])]]])
def test_empty_conversations_are_refused(branches):
    with pytest.raises(ProcessingError, match="expected"):
        MessageTree(trunk(), branches)


def test_an_answer_needs_a_prompt():
    with pytest.raises(ProcessingError, match="prompt before every answer"):
        build_row(MessageTree(trunk(), [[turn([], [1])]]), END)


def processed(**changes):
    ids = torch.tensor([[5, 6, 7]])
    return {"input_ids": ids, "mm_token_type_ids": torch.tensor([[0, 1, 1]])} | changes


def test_trunks_come_from_the_processor():
    pixels, pooling = torch.zeros(2, 4, 5), torch.arange(8, dtype=torch.int32).reshape(2, 4)
    for kind, table in (
        ("pixel_values", "image_token_pooling"),
        ("pixel_values_videos", "video_token_pooling"),
    ):
        made = Row.from_processor(processed(**{kind: pixels, table: pooling}))
        assert made.input_ids.tolist() == [5, 6, 7]
        assert made.pooling is not None and made.pooling.dtype == torch.int64
    assert Row.from_processor(processed()).pixel_values is None
    both = {
        "pixel_values": pixels,
        "image_token_pooling": pooling,
        "pixel_values_videos": pixels,
        "video_token_pooling": pooling,
    }
    with pytest.raises(ProcessingError, match="pictures or a clip"):
        Row.from_processor(processed(**both))
    with pytest.raises(ProcessingError, match="one sample"):
        Row.from_processor(processed(input_ids=torch.zeros(2, 3)))
