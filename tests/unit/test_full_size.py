"""Checkpoints of full size with random weights, and what models need in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import molmopoint
from molmopoint.checkpoints import registry
from molmopoint.eval.speed import subjects
from molmopoint.eval.speed.full import app, stored_shapes, write_random
from molmopoint.eval.speed.needs import BITS, memory_need
from molmopoint.load_checks import INDEX_FILE
from molmopoint.modeling import MolmoPointForConditionalGeneration


@pytest.mark.parametrize(("name", "gigabytes"), [("4b", 19.44), ("8b", 34.71)])
def test_shapes_are_those_of_the_released_files(name: str, gigabytes: float):
    """719 tensors of 19.4 and 34.7 GB, as on the hub."""
    shapes = stored_shapes(subjects.RANDOM[name]())
    assert len(shapes) == 719
    assert 4 * sum(torch.Size(shape).numel() for shape in shapes.values()) / 1e9 == pytest.approx(
        gigabytes, abs=0.01
    )


def test_a_random_checkpoint_is_read_from_its_shards(tmp_path: Path):
    config = subjects.toy_config()
    total = write_random(config, tmp_path, shard_bytes=100_000)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2 and index["metadata"]["total_size"] == total
    with safe_open(str(tmp_path / min(files)), "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118
    model = MolmoPointForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    norm = model.model.language_model.layers[0].input_layernorm.weight
    assert torch.equal(norm, torch.ones_like(norm)) and model.lm_head.weight.std() > 0.01


def test_the_command_on_toy_size():
    done = CliRunner().invoke(app, ["toy", "--json"])
    assert done.exit_code == 0, done.output
    (case,) = json.loads(done.stdout)["models"]
    assert case["tokens"] > 500 and case["own_while_pointing_gb"] >= case["weights_gb"] > 0
    refused = CliRunner().invoke(app, ["9b"])
    assert refused.exit_code == 2 and "expected models of" in refused.output


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_the_need_of_weights_is_what_a_loaded_model_has(quantize: str | None):
    if quantize is not None:
        pytest.importorskip("bitsandbytes")
    model = molmopoint.load("nano", device="cpu", dtype="bfloat16", quantize=quantize).model
    held = 0
    for parameter in model.parameters():
        held += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            held += state.absmax.nbytes
    need = memory_need(model.config, quantize=quantize)
    assert need.weights == pytest.approx(held, rel=0.02)


def test_the_need_of_a_prompt_is_what_its_state_holds():
    subject = subjects.build("toy", subjects.default_setting("toy", 1))
    inputs = subjects.picture_prompt(subject, 2, 96, 64)
    with torch.inference_mode():
        output = subject.model(**inputs, use_cache=True, logits_to_keep=1)
    rows, tokens = inputs["input_ids"].shape
    need = memory_need(
        subject.model.config,
        bytes_per_number=4,
        crops=len(inputs["pixel_values"]) // rows,
        tokens=tokens,
        rows=rows,
    )
    cached = [tensor for layer in output.cache.layers for tensor in (layer.keys, layer.values)]
    assert need.keys_and_values == sum(tensor.numel() * 4 for tensor in cached)
    assert need.features == output.grounding_state.vit_features.nbytes


def test_8b_in_few_bits_fits_where_it_is_said_to():
    config = subjects.large_config()
    weights = {form: memory_need(config, quantize=form).weights / 1e9 for form in (None, *BITS)}
    assert weights[None] == pytest.approx(17.36, abs=0.01)
    assert weights["nf4"] < weights["int4"] < weights["int8"] < 11
    assert registry.find("molmopoint-8b") is not None


def test_the_table_of_the_documents_is_computed():
    lines = (Path(__file__).resolve().parents[2] / "docs" / "tasks" / "large.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith(("| 4B |", "| 8B |"))]
    assert len(rows) == 10
    columns = ((0, 0, 1), (5, 800, 1), (25, 2850, 1), (25, 2850, 8), (128, 11_100, 1), (384, 33_000, 1))
    for size, form, *cells in rows:
        config = subjects.RANDOM[size.lower()]()
        settings = {
            "quantize": form if form in BITS else None,
            "bytes_per_number": 4 if form == "float32" else 2,
        }
        for cell, (crops, tokens, count) in zip(cells, columns, strict=True):
            need = memory_need(config, crops=crops, tokens=tokens, rows=count, **settings)
            assert f"{need.total / 1e9:.1f}" == cell, (size, form, crops)
