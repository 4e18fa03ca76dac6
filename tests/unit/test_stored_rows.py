"""Rows of the public reference implementation, made again from their examples by our path from trees to
batches.

`training_rows.json` holds four packed rows of the reference: what their examples are (trunk, requests,
answers, places) and what it made of them (ids, targets with weights, positions, segments, places and pooling
tables counted over the row).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molmopoint.processing.grounding_answers import EncodedText
from molmopoint.processing.message_tree import LossWeighting, MessageTree, Turn, build_row
from molmopoint.processing.rows import Row
from molmopoint.tokens import NO_MORE_POINTS
from molmopoint.training.packed_dataset import Pack, PackCollator, Progress

STORED = json.loads((Path(__file__).parent / "training_rows.json").read_text())
PATCH, SUBPATCH, LOCATION = 331, 332, 333
END, PAD, PATCHES_PER_CROP = 258, 0, 16
EXAMPLE, TRUNK_SEGMENT = 100_000, 10_000
"""Steps of the reference's one number for example and branch."""
NO_MORE_STORED = 1_000_000


def row_of(example: dict[str, Any]) -> Row:
    """An example as a tree; the pixels count the crops of the row."""
    types = torch.tensor([value for value, count in example["types"] for _ in range(count)])
    pixels = torch.zeros(example["crops"], PATCHES_PER_CROP, 1)
    trunk = Row(torch.tensor(example["trunk"]), types, pixels, torch.tensor(example["pooling"]))
    branches = []
    for branch in example["branches"]:
        prompt = EncodedText(np.array(branch["prompt"]), np.full(len(branch["prompt"]), -1))
        branches.append(
            [Turn(prompt, EncodedText(np.array(branch["answer"]), np.array(branch["selections"])))]
        )
    return build_row(MessageTree(trunk, branches), END, LossWeighting(root_branches=True))


def batch_of_rows(name: str) -> dict[str, Any]:
    packs = []
    for row in STORED[name]:
        examples = tuple(row_of(example) for example in row["examples"])
        origins = tuple((0, number) for number in range(len(examples)))
        packs.append(Pack(examples, tuple(range(len(examples))), Progress(0, 1, 0, 0), origins))
    return PackCollator(PATCH, PAD)(packs)


def visible(examples: torch.Tensor, branches: torch.Tensor) -> torch.Tensor:
    """(queries, keys) by our two numbers."""
    return (examples[:, None] == examples) & ((branches == -1) | (branches[:, None] == branches))


def stored_visible(segments: torch.Tensor) -> torch.Tensor:
    """(queries, keys) by the reference's one: the trunk is seen by all branches, a branch by itself."""
    example, inside = segments // EXAMPLE, segments % EXAMPLE
    return (example[:, None] == example) & ((inside == TRUNK_SEGMENT) | (inside[:, None] == inside))


@pytest.mark.parametrize("name", STORED)
def test_stored_rows_come_out_of_our_path(name):
    batch = batch_of_rows(name)
    for i, row in enumerate(STORED[name]):
        stored, length = row["stored"], len(row["stored"]["input_ids"])
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * (
            batch["input_ids"].shape[1] - length
        )
        assert batch["input_ids"][i, :length].tolist() == stored["input_ids"]
        assert batch["position_ids"][i, :length].tolist() == stored["position_ids"]
        at = (batch["loss_weights"][i] > 0).nonzero()[:, 0].tolist()
        assert [[t, int(batch["shift_labels"][i, t])] for t in at] == [
            target[:2] for target in stored["targets"]
        ]
        assert batch["loss_weights"][i, at].tolist() == pytest.approx(
            [weight for *_, weight in stored["targets"]], abs=1e-6
        )


@pytest.mark.parametrize("name", STORED)
def test_stored_places_and_tables_come_out_of_our_path(name):
    batch = batch_of_rows(name)
    first_crop = first_token = 0
    for i, row in enumerate(STORED[name]):
        ids, selections = batch["input_ids"][i], batch["selection_ids"][i]
        for column, token in enumerate((PATCH, SUBPATCH, LOCATION)):
            places = [point[column] for point in row["stored"]["points"] if point[column] >= 0]
            expected = [NO_MORE_POINTS if place == NO_MORE_STORED else place for place in places]
            assert selections[ids == token].tolist() == expected
        table = torch.tensor(row["stored"]["pooling"])
        moved = torch.where(table >= 0, table + first_crop * PATCHES_PER_CROP, -1)
        assert torch.equal(batch["image_token_pooling"][first_token : first_token + len(table)], moved)
        first_token += len(table)
        first_crop += sum(example["crops"] for example in row["examples"])
    assert len(batch["pixel_values"]) == first_crop
    assert len(batch["image_token_pooling"]) == first_token


@pytest.mark.parametrize("name", STORED)
def test_who_sees_whom_is_as_stored(name):
    batch = batch_of_rows(name)
    for i, row in enumerate(STORED[name]):
        segments = torch.tensor([value for value, count in row["stored"]["segments"] for _ in range(count)])
        ours = visible(batch["example_ids"][i, : len(segments)], batch["branch_ids"][i, : len(segments)])
        earlier = torch.ones_like(ours).tril()
        assert torch.equal(ours & earlier, stored_visible(segments) & earlier)
