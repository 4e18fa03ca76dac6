"""Equal crops are looked at once, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy_pointer import toy_pointer
from toy_processor import picture

from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.data.records import parse_record
from molmopoint.geometry import EMPTY_SLOT
from molmopoint.processing.rows import Row, collate, pack
from molmopoint.training.prepare import share_equal_crops
from molmopoint.training.sources import Example
from molmopoint.training.trees import training_row


@pytest.fixture(scope="module")
def backend() -> MolmoPointBackend:
    return MolmoPointBackend(toy_pointer().processor)


def row_of(backend: MolmoPointBackend, sizes: list[tuple[int, int]], seeds: list[int]) -> Any:
    """A `Row`."""
    fields = {
        "images": [f"{i}.png" for i in range(len(sizes))],
        "label": "cups",
        "coords": "norm1",
        "points": [{"x": 0.3, "y": 0.6}],
    }
    record = parse_record(fields, 1)
    pictures = tuple(picture(*size, seed) for size, seed in zip(sizes, seeds, strict=True))
    return training_row(backend, Example((record,), pictures), np.random.default_rng(0), max_length=4096)


def losses(model: Any, rows: list[Row], backend: MolmoPointBackend) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**collate(rows, backend.processor.tokenizer.pad_token_id)).loss
    loss.backward()
    return float(loss.detach()), {
        name: parameter.grad.clone() for name, parameter in model.named_parameters()
    }


def test_a_small_picture_is_looked_at_once(backend):
    row = row_of(backend, [(20, 20)], [1])
    shared: Any = share_equal_crops(row)
    assert len(row.pixel_values) == 2 and len(shared.pixel_values) == 1
    assert share_equal_crops(shared) is shared
    model: Any = toy_pointer(3).model.train()
    (loss, grads), (again, same) = losses(model, [row], backend), losses(model, [shared], backend)
    assert loss == pytest.approx(again, rel=1e-6)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, same[name], rtol=1e-4, atol=1e-6, msg=name)


def test_large_pictures_stay_as_they_are(backend):
    row = row_of(backend, [(90, 120)], [1])
    assert len(row.pixel_values) > 2 and share_equal_crops(row) is row


def test_repeated_pictures_and_empty_slots(backend):
    row = row_of(backend, [(20, 20), (90, 120), (20, 20)], [1, 2, 1])
    shared: Any = share_equal_crops(row)
    assert len(shared.pixel_values) == len(row.pixel_values) - 3
    patches = lambda r: r.pixel_values.flatten(0, 1)[r.pooling.clamp(min=0)]  # noqa: E731
    assert torch.equal(patches(row)[row.pooling >= 0], patches(shared)[shared.pooling >= 0])
    assert torch.equal(row.pooling == EMPTY_SLOT, shared.pooling == EMPTY_SLOT)


def test_it_packs_and_half_precision_is_fine(backend):
    row = row_of(backend, [(20, 20)], [1])
    half = replace(row, pixel_values=row.pixel_values.bfloat16())
    shared: Any = share_equal_crops(half)
    assert len(shared.pixel_values) == 1
    packed: Any = pack([share_equal_crops(row)] * 2, backend.patch_token_id)
    assert len(packed.pixel_values) == 2


def test_text_rows_pass(backend):
    row = replace(row_of(backend, [(20, 20)], [1]), pixel_values=None, pooling=None)
    assert share_equal_crops(row) is row
