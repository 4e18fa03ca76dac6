"""Other families of the zoo with weights in fewer bits: what is stored so, what answers, and what is refused by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_actor import tiny_actor
from tiny_hosts import tiny_host
from tiny_locators import tiny_florence

import molmopoint
from molmopoint.checkpoints import graft
from molmopoint.checkpoints.quantising import FORMS, matrices
from molmopoint.errors import CheckpointError

WIDE = {"intermediate_size": 128, "num_key_value_heads": 4}
"""Widths that all forms take."""

BLOCK = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def saved(parts: tuple[Any, Any], folder: Path) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def grafted(kind: str, folder: Path, **text_changes: Any) -> Path:
    host = saved(tiny_host(kind, **text_changes), folder / "host")
    graft(str(host), out=folder / "graft")
    return folder / "graft"


MODELS: dict[str, tuple[Callable[[Path], Path], set[str]]] = {
    "actor": (lambda path: tiny_actor("qwen2_5_vl", path / "actor", **WIDE), BLOCK),
    "graft": (lambda path: grafted("qwen3_vl", path, **WIDE), BLOCK),
    "linear graft": (
        lambda path: grafted("qwen3_5", path, linear_key_head_dim=32, linear_value_head_dim=32, **WIDE),
        BLOCK | {"in_proj_qkv", "in_proj_z", "out_proj"},
    ),
    "coordinates": (lambda path: saved(tiny_host("qwen3_vl", **WIDE), path / "host"), BLOCK),
    "encoder": (
        lambda path: saved(tiny_florence(64, 128), path / "florence"),
        {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    ),
}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    make, stored = MODELS[request.param]
    return make(tmp_path_factory.mktemp("model")), stored


def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (84, 112, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_matrices_of_the_text_model_alone_are_stored_so(form: str, model: tuple[Path, set[str]]):
    if importlib.util.find_spec(FORMS[form].package) is None:
        pytest.skip(f"needs {FORMS[form].package}")
    folder, expected = model
    plain = molmopoint.load(folder, device="cpu", dtype="bfloat16")
    pointer = molmopoint.load(folder, device="cpu", quantize=form)
    stored = {name for name, _ in matrices(plain.model)}
    assert {name.rpartition(".")[2] for name in stored} == expected
    assert all("language_model" in name for name in stored)
    kept = dict(plain.model.named_parameters())
    changed = dict(pointer.model.named_parameters())
    for name, parameter in kept.items():
        if name.rpartition(".")[0] not in stored:
            assert torch.equal(changed[name], parameter), name
    result = pointer.point(picture(), "the button", max_new_tokens=6)
    assert result.image_sizes == ((112, 84),) and pointer.model.stored_as == form


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: grafted("qwen3_vl_moe", path, **WIDE), "a model without experts .* one with 4"),
        (
            lambda path: saved(tiny_host("qwen3_vl_moe", **WIDE), path),
            "a model without experts .* one with 4",
        ),
        (lambda path: saved(tiny_florence(), path), "multiples of 64 .* got hidden_size=32"),
        (lambda path: saved(tiny_florence(64), path), "multiples of 64 .* got encoder_ffn_dim=48"),
        (lambda path: grafted("qwen3_5", path, **WIDE), "multiples of 64 .* got linear_num_key_heads"),
        (lambda path: tiny_actor("qwen2_vl", path), "multiples of 64 .* got num_key_value_heads"),
    ],
)
def test_what_cannot_be_stored_so_is_told_by_its_config(
    tmp_path: Path, make: Callable[[Path], Path], reason: str
):
    folder = make(tmp_path / "model")
    (folder / "model.safetensors").unlink()  # the config alone decides
    with pytest.raises(CheckpointError, match=reason):
        molmopoint.load(folder, device="cpu", quantize="nf4")
