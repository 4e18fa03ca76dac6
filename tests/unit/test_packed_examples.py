"""Examples of a user's file through the whole path to a batch: five packed in a row have the loss of the five
alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from toy_pointer import toy_pointer
from toy_processor import frames, picture

from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.data.records import parse_record
from molmopoint.training.packed_dataset import SOURCE_IDS, PackCollator, PackedDataset
from molmopoint.training.packing import PackingLimits
from molmopoint.training.prepare import ExamplePreparer
from molmopoint.training.rules import FormattingRules
from molmopoint.training.sampling import DrawOrder
from molmopoint.training.sources import GroupSource
from molmopoint.training.trees import group_records

ROWS: list[dict[str, Any]] = [
    {
        "image": "a.png",
        "label": "cups",
        "coords": "pixel",
        "points": [{"x": 10, "y": 12}, {"x": 90, "y": 60}, {"x": 40, "y": 70}],
    },
    {"image": "a.png", "label": "plates", "coords": "pixel", "points": [{"x": 33, "y": 5}]},
    {"image": "b.png", "label": "unicorns", "no_points": True},
    {"image": "c.png", "prompt": "What colour is the wall?", "answer": "It is grey."},
    {
        "video": "d.mp4",
        "label": "dogs",
        "coords": "percent",
        "points": [{"x": 20, "y": 30, "t": 0.5}, {"x": 80, "y": 40, "t": 1.0}],
    },
    {
        "images": ["a.png", "c.png"],
        "label": "lamps",
        "coords": "norm1",
        "points": [{"x": 0.2, "y": 0.9}, {"x": 0.7, "y": 0.3, "image": 1}],
    },
]
EXAMPLES = 5
CLIP_SLOTS = 9
PARTS = ("text", "patch", "subpatch", "location")


def write_clip(path: Path) -> None:
    """Two seconds."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames(20, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("packed")
    for seed, (name, size) in enumerate({"a": (80, 120), "b": (60, 60), "c": (150, 70)}.items()):
        picture(*size, seed).save(folder / f"{name}.png")
    write_clip(folder / "d.mp4")
    return folder


@pytest.fixture(scope="module")
def preparer(folder) -> ExamplePreparer:
    return preparer_of(ROWS, folder)


def preparer_of(rows: list[dict[str, Any]], folder: Path) -> ExamplePreparer:
    groups = group_records([parse_record(row, number) for number, row in enumerate(rows, 1)])
    assert len(groups) == EXAMPLES
    backend = MolmoPointBackend(toy_pointer().processor)
    return ExamplePreparer([GroupSource("mine", groups, folder)], backend, FormattingRules(), 4096)


def batches(preparer: ExamplePreparer, pool_size: int) -> list[dict[str, Any]]:
    """What the loader gives of one pass over the examples."""
    dataset = PackedDataset(
        DrawOrder([EXAMPLES], epochs=1), preparer, PackingLimits(4096, 64, pool_size=pool_size)
    )
    tokenizer = preparer.backend.processor.tokenizer
    collator = PackCollator(preparer.backend.patch_token_id, tokenizer.pad_token_id)
    made = list(DataLoader(dataset, batch_size=1, collate_fn=collator))
    assert not dataset.skipped
    return made


def arguments(batch: dict[str, Any], slots: int = CLIP_SLOTS) -> dict[str, torch.Tensor]:
    """Of the forward pass; tables as wide as those of clips, because the slots of a call are one softmax,
    empty ones included.

    That is how the published training counts them, and the stored tensors of the acceptance checks agree.
    """
    given = {
        name: value for name, value in batch.items() if isinstance(value, torch.Tensor) and name != SOURCE_IDS
    }
    if (table := given.get("image_token_pooling")) is not None:
        given["image_token_pooling"] = torch.nn.functional.pad(table, (0, slots - table.shape[1]), value=-1)
    return given


@torch.no_grad()
def losses(model: Any, batch: dict[str, Any], slots: int = CLIP_SLOTS) -> dict[str, float]:
    out = model(**arguments(batch, slots), z_loss=1e-4)
    return {part: float(out.loss_sums[part]) for part in PARTS} | {
        "z": float(out.loss_sums["z"]),
        "weight": float(out.weight_sum),
    }


def test_five_packed_examples_have_the_loss_of_the_five_alone(preparer):
    model = toy_pointer(3).model.train()
    [packed] = batches(preparer, pool_size=EXAMPLES)
    alone = batches(preparer, pool_size=1)
    assert len(packed["input_ids"]) == 1
    assert int(packed["example_ids"].max()) + 1 == len(alone) == EXAMPLES
    assert packed["image_token_pooling"].shape[1] == CLIP_SLOTS
    each = [losses(model, batch) for batch in alone]
    together = losses(model, packed)
    for part, value in together.items():
        assert value == pytest.approx(sum(one[part] for one in each), rel=1e-5), part
    # No place is chosen where nothing is there, nor for the question.
    assert sum(one["patch"] > 0 for one in each) == 3
    assert packed["input_ids"].shape[1] == sum(batch["input_ids"].shape[1] for batch in alone)


def test_five_packed_examples_of_pictures_have_the_loss_of_the_five_alone_as_they_come(folder):
    rows = [row for row in ROWS if "video" not in row] + [
        {"image": "e.png", "label": "spoons", "coords": "pixel", "points": [{"x": 5, "y": 80}]}
    ]
    picture(90, 90, 4).save(folder / "e.png")
    made, model = preparer_of(rows, folder), toy_pointer(3).model.train()
    [packed] = batches(made, pool_size=EXAMPLES)
    slots = packed["image_token_pooling"].shape[1]
    assert slots < CLIP_SLOTS
    each, together = (
        [losses(model, batch, slots) for batch in batches(made, pool_size=1)],
        losses(model, packed, slots),
    )
    for part, value in together.items():
        assert value == pytest.approx(sum(one[part] for one in each), rel=1e-5), part


def test_five_packed_examples_have_the_gradients_of_the_five_alone(preparer):
    found = []
    for pool_size in (EXAMPLES, 1):
        model: Any = toy_pointer(3).model.train()
        for batch in batches(preparer, pool_size):
            model(**arguments(batch), num_items_in_batch=10.0).loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    largest = max(float(grad.norm()) for grad in found[1].values())
    for name, grad in found[1].items():
        assert float((found[0][name] - grad).norm()) <= 1e-5 * max(float(grad.norm()), 1e-2 * largest), name
