"""Grafts in training: in full, heads alone and with adapters; scored, stopped, exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_pictures import rows_of, write_rows
from safetensors.torch import load_file
from tiny_hosts import tiny_host

import molmopoint
from molmopoint.backends import backend_class_of
from molmopoint.checkpoints import graft
from molmopoint.errors import RecipeError
from molmopoint.training.finetune import finetune, make_trainable
from molmopoint.training.metrics import StepFlops
from molmopoint.training.optimiser import group_of
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.sources import SceneSource
from molmopoint.training.trees import training_row
from molmopoint.training.vocabulary_rows import join_output_rows

SMALL = (
    "steps=3", "dtype=float32", "bf16_weights=false", "data.max_tokens=900", "data.workers=0", "data.max_crops=12",
    "data.pool=4", "data.held_out=3", "scoring.every=2", "scoring.examples=2", "scoring.max_new_tokens=6", "saving.every=2",
    "logging.every=1", "logging.to=[]", "groups.point.peak=1e-3",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    return write_rows(folder / "data.jsonl", rows_of(folder))


def start(folder: Path, kind: str, **changes: Any) -> Path:
    host, native = tiny_host(kind, **changes)
    graft(host, processor=native, patch_embed_dim=32, point_tokens=300, out=folder)
    return folder


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp(request.param), request.param)


def moved(before: Path, after: Path) -> set[str]:
    """Names of the tensors that training has changed."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_all_of_a_graft_trains_and_goes_on(begun: Path, data: Path, tmp_path: Path):
    run, once = tmp_path / "run", tmp_path / "once"
    result = finetune(data, begun, once, recipe="full", overrides=(*SMALL, "residual_dropout=0.1"))
    assert result.steps == 3 and not result.skipped
    assert "point_f1" in result.scores_after
    changed = moved(begun, once / "model")
    assert {"model.visual.patch_embed.proj.weight", "model.visual.merger.mlp.0.weight"} & changed
    assert any("language_model.layers" in name for name in changed)
    line = json.loads((once / "log.jsonl").read_text().splitlines()[0])
    assert {"loss/text", "loss/patch", "loss/subpatch", "loss/location", "accuracy/patch"} <= set(line)

    shutil.copytree(once, run)
    for folder in (run / "checkpoint-000003", run / "model"):
        shutil.rmtree(folder)  # as if the run had been killed after step 2
    finetune(data, begun, run, recipe="full", overrides=(*SMALL, "residual_dropout=0.1"))
    assert not moved(once / "model", run / "model")
    pointer = molmopoint.load(run / "model")
    assert pointer.point(data.parent / "00.png", "cups", single=True, max_new_tokens=5).points


@pytest.mark.parametrize("begun", ["qwen2_5_vl"], indirect=True)
def test_heads_alone_leave_the_host_as_it_is(begun: Path, data: Path, tmp_path: Path):
    finetune(data, begun, tmp_path / "run", recipe="graft", overrides=SMALL)
    changed = moved(begun, tmp_path / "run" / "model")
    tables = {"lm_head.weight", "model.language_model.embed_tokens.weight"}
    assert any(name.startswith("point_predictor") for name in changed)
    others = {name for name in changed if not name.startswith(("point_predictor", "build_vit_embedding"))}
    assert others == tables
    config = json.loads((begun / "config.json").read_text())
    old, new = (load_file(folder / "model.safetensors") for folder in (begun, tmp_path / "run" / "model"))
    first = config["patch_token_id"]
    for name in tables:
        different = (old[name] != new[name]).any(1).nonzero().flatten().tolist()
        assert different and set(different) <= set(range(first, first + 4))


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["qwen2_5_vl"], indirect=True)
def test_heads_train_beside_a_rounded_host(begun: Path, data: Path, tmp_path: Path):
    changes = [change for change in SMALL if not change.startswith(("dtype", "bf16"))]
    finetune(data, begun, tmp_path / "run", recipe="graft", overrides=(*changes, "dtype=bfloat16"))
    model = molmopoint.load(tmp_path / "run" / "model").model
    host = load_file(begun / "model.safetensors")
    kept = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(dict(model.named_parameters())[kept], host[kept].bfloat16().float())


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["qwen3_vl"], indirect=True)
def test_adapters_go_on_the_text_model_of_the_host(begun: Path, data: Path, tmp_path: Path):
    finetune(data, begun, tmp_path / "run", recipe="graft-lora", overrides=(*SMALL, "lora.rank=4"))
    changed = moved(begun, tmp_path / "run" / "model")
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in changed
    assert not any("norm" in name and "language_model" in name for name in changed)
    adapters = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert adapters and all("language_model" in name for name in adapters)


def test_a_host_with_linear_attention_trains_unpacked(data: Path, tmp_path: Path):
    begun = start(tmp_path / "start", "qwen3_5")
    with pytest.raises(RecipeError, match=r"data\.pool = 1"):
        finetune(data, begun, tmp_path / "run", recipe="graft", overrides=SMALL)
    result = finetune(data, begun, tmp_path / "run", recipe="graft", overrides=(*SMALL, "data.pool=1"))
    assert result.steps == 3 and not result.skipped
    assert any(name.startswith("point_predictor") for name in moved(begun, tmp_path / "run" / "model"))


@pytest.mark.slow
def test_a_host_with_tiles_trains(data: Path, tmp_path: Path):
    begun = start(tmp_path / "start", "internvl")
    result = finetune(data, begun, tmp_path / "run", recipe="full", overrides=SMALL)
    assert result.steps == 3 and not result.skipped
    changed = moved(begun, tmp_path / "run" / "model")
    assert any("vision_tower" in name for name in changed) and any(
        "multi_modal_projector" in name for name in changed
    )


def test_training_sees_the_ids_and_pixels_of_a_request(begun: Path):
    family = backend_class_of(str(begun))
    backend = family(family.read_processor(str(begun)))
    example = SceneSource().example(3)
    row = training_row(backend, example, np.random.default_rng(0))
    media = backend.requests.process_images(list(example.pictures))
    request = backend.requests.build_request(media, "Point to circles")
    trunk = int((row.branch_ids == -1).sum())
    assert torch.equal(row.input_ids[:trunk], request.input_ids[:trunk])
    assert torch.equal(row.pixel_values, media.pixels["pixel_values"])
    assert torch.equal(row.grids, media.pixels["image_grids"]) and row.num_crops == 1
    said = backend.decode(row.input_ids[trunk : trunk + 40].tolist())
    assert said.strip()


@pytest.mark.parametrize("tied", [False, True])
def test_split_tables_are_the_same_tables(tmp_path: Path, tied: bool):
    folder = start(tmp_path, "qwen2_5_vl", tie_word_embeddings=tied)
    model = molmopoint.load(folder).model
    ids = torch.arange(model.config.extended_start)[None]
    hidden = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows, logits = model.get_input_embeddings()(ids), model.lm_head(hidden)
        make_trainable(model, load_recipe("graft", SMALL))
        assert torch.equal(model.get_input_embeddings()(ids), rows)
        assert torch.allclose(model.lm_head(hidden), logits, atol=1e-5)
        trains = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert {name for name in trains if "point_predictor" not in name and "build_vit" not in name} == (
            {"model.language_model.embed_tokens.added"} | (set() if tied else {"lm_head.added"})
        )
        join_output_rows(model)
        assert torch.equal(model.get_input_embeddings()(ids), rows) and torch.equal(
            model.lm_head(hidden), logits
        )
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied


def test_every_weight_has_a_group_and_operations_are_counted(begun: Path):
    model = molmopoint.load(begun).model
    groups = {name: group_of(name) for name, _ in model.named_parameters()}
    mergers = {group for name, group in groups.items() if "merger" in name}
    assert mergers == {"connector"}
    assert groups["model.visual.blocks.0.attn.qkv.weight"] == "vit"
    assert set(groups.values()) == {"vit", "connector", "llm", "point", "frozen"}
    flops = StepFlops(model)
    batch = {"input_ids": torch.zeros(1, 20), "loss_weights": torch.ones(1, 20)}
    pictures = {"pixel_values": torch.zeros(16, 1, 4), "image_token_pooling": torch.zeros(4, 4)}
    one = flops({**batch, **pictures, "image_grids": torch.tensor([[0, 0, 2, 2]])})
    two = flops({**batch, **pictures, "image_grids": torch.tensor([[0, 0, 1, 2], [0, 0, 2, 1]])})
    assert one > two > flops(batch)


def test_heads_alone_and_adapters_are_not_both():
    with pytest.raises(RecipeError, match="heads_only"):
        load_recipe("graft-lora", ["heads_only=true"])
