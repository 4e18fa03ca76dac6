"""Weights that are elsewhere: offloaded and loaded at every call, or sharded over ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import PATCHES_PER_CROP, Rows, batch_of, random_model
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from molmopoint import connector

accelerate = pytest.importorskip("accelerate")
MIX = [["image"], [], ["clip"]]


def answers(model, inputs) -> Any:
    return model.generate(**inputs, max_new_tokens=20, open_list=True, pad_token_id=0, eos_token_id=None)


def test_offloaded_weights_give_the_same_answers():
    """Weights are only there while their module runs, so nothing may look at those of another one."""
    model = random_model(0)
    inputs = batch_of(Rows(model.config, 0).prompts(MIX), model.config)
    words = {
        name: value[1:2]
        for name, value in inputs.items()
        if name in ("input_ids", "attention_mask", "mm_token_type_ids")
    }
    expected = answers(model, inputs), answers(model, words)
    accelerate.cpu_offload(model, torch.device("cpu"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert torch.equal(answers(model, inputs), expected[0])
    assert torch.equal(answers(model, words), expected[1])


@pytest.fixture
def sharded():
    """A model with the units that accelerate shards by default, on one rank, and its twin."""
    store = distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage] (documented, but not listed)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    model: Any = random_model(0)
    mesh = init_device_mesh("cpu", (1,))
    for module in reversed(list(model.modules())):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    yield model, random_model(0)
    distributed.destroy_process_group()


def test_sharded_training_is_plain_training(sharded):
    model, twin = (part.train() for part in sharded)
    samples = Rows(twin.config, 0).prompts(MIX)
    inputs = batch_of(samples, twin.config)
    for part in (model, twin):
        part(**inputs, labels=inputs["input_ids"]).loss.backward()
    for (name, ours), plain in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert isinstance(ours.grad, DTensor), name
        assert torch.allclose(ours.grad.full_tensor(), plain.grad, rtol=1e-3, atol=1e-4), name


@torch.no_grad()
def test_sharded_ranks_call_the_vit_equally_often(sharded, monkeypatch):
    """Once per batch, whatever is in it: another rank may have more crops, or none."""
    monkeypatch.setattr(connector, "CROPS_PER_PASS", 2)
    model, twin = sharded
    calls = []
    for part in sharded:
        part.model.vision_tower.register_forward_hook(lambda module, *_: calls.append(module))
    for rows in (MIX[:1] * 3, [[]]):
        inputs = batch_of(Rows(twin.config, 0).prompts(rows), twin.config)
        assert torch.allclose(model(**inputs).logits, twin(**inputs).logits, atol=1e-4)
    assert calls.count(model.model.vision_tower) == 2
    assert calls.count(twin.model.vision_tower) == 3, "six crops in threes; none for words alone"
    assert not twin.model.vision_tower.is_sharded
    assert len(twin.model.vision_tower.positional_embedding) == PATCHES_PER_CROP
