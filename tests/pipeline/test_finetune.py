"""Fine-tuning from rows to an exported model through the command line, and what is refused before anything
trains.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from own_pictures import rows_of, write_rows
from safetensors import safe_open
from typer.testing import CliRunner

import molmopoint
from molmopoint.cli.app import app
from molmopoint.cli.console import NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.metrics import Calibration
from molmopoint.training.finetune import finetune

SMALL = (
    "steps=3", "dtype=float32", "bf16_weights=false", "gradient_checkpointing=false", "data.max_tokens=700",
    "data.max_crops=12", "data.pool=4", "data.held_out=3", "scoring.every=2", "scoring.examples=3", "scoring.max_new_tokens=12",
    "saving.every=2", "logging.every=1", "logging.to=[]", "groups.llm.peak=1e-3", "groups.point.peak=1e-3",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    return write_rows(folder / "data.jsonl", rows_of(folder))


def command(
    data: Path, model: Path, out: Path, *more: str, recipe: str = "full", changes: tuple[str, ...] = SMALL
):
    sets = [part for change in changes for part in ("--set", change)]
    words = [
        "finetune",
        str(data),
        "--model",
        str(model),
        "--out",
        str(out),
        "--recipe",
        recipe,
        *sets,
        *more,
    ]
    # No name is cut in two, however long the path before it.
    return CliRunner(env={"COLUMNS": "1000"}).invoke(app, words)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(str(folder / "model.safetensors"), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # the handle is no mapping


def test_pictures_become_a_model_that_points(toy_folder: Path, data: Path, tmp_path: Path):
    start = tmp_path / "start"
    shutil.copytree(toy_folder, start)
    Calibration(scores=(0.0, 1.0), chances=(0.5, 1.0)).save(start)
    done = command(data, start, tmp_path / "run", "--json")
    assert done.exit_code == OK, done.output
    told = json.loads(done.stdout)
    assert told["steps"] == 3 and told["skipped"] == 0
    assert (
        set(told["scores_before"])
        == set(told["scores_after"])
        >= {"point_f1", "count_accuracy", "over_count", "under_count"}
    )
    model = tmp_path / "run" / "model"
    before, after = stored(toy_folder), stored(model)
    assert {name: tensor.shape for name, tensor in before.items()} == {
        name: tensor.shape for name, tensor in after.items()
    }
    assert any(
        not torch.equal(before[name], after[name]) for name in before if "point" in name or "selector" in name
    )
    assert torch.equal(before["model.transformer.wte.embedding"], after["model.transformer.wte.embedding"]), (
        "base rows never train"
    )
    assert not (model / "calibration.json").exists(), "that of other weights"
    pointer = molmopoint.load(model)
    assert json.loads((model / "config.json").read_text(encoding="utf-8")).get("use_cache", True)
    result = pointer.point(data.parent / "00.png", "cups", max_new_tokens=40)
    assert result.image_sizes[0][0] >= 60
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "`data.jsonl`" in card and "point_f1" in card and str(tmp_path) not in card
    assert json.loads((tmp_path / "run" / "recipe.json").read_text(encoding="utf-8"))["steps"] == 3


def test_the_same_command_goes_on_and_another_is_refused(toy_folder: Path, data: Path, tmp_path: Path):
    run, once = tmp_path / "run", tmp_path / "once"
    assert command(data, toy_folder, once).exit_code == OK
    shutil.copytree(once, run)
    for folder in [run / "checkpoint-000003", run / "model"]:
        shutil.rmtree(folder)  # as if the run had been killed after step 2
    again = command(data, toy_folder, run)
    assert again.exit_code == OK, again.output
    first, second = stored(once / "model"), stored(run / "model")
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = command(data, toy_folder, run, changes=(*SMALL, "steps=4"))
    assert (
        other.exit_code == USAGE
        and "recipe.steps 3, now 4" in other.output
        and "choose another folder" in other.output
    )
    (run / "run.json").unlink()
    assert command(data, toy_folder, run).exit_code == USAGE, "a folder with foreign files"


def test_adapters_are_merged(toy_folder: Path, data: Path, tmp_path: Path):
    done = command(
        data, toy_folder, tmp_path / "run", recipe="lora", changes=(*SMALL, "lora.rank=2", "steps=2")
    )
    assert done.exit_code == OK, done.output
    before, after = stored(toy_folder), stored(tmp_path / "run" / "model")
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("att_proj" in name or "ff_proj" in name for name in changed) and not any(
        ".attn_norm" in name for name in changed
    )
    with safe_open(str(tmp_path / "run" / "adapter" / "adapter_model.safetensors"), "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118
    assert (
        molmopoint.load(tmp_path / "run" / "model")
        .point(data.parent / "01.png", "keys", max_new_tokens=8)
        .text
        is not None
    )


def test_text_rows_replay_held_out_rows_and_a_broken_picture(toy_folder: Path, tmp_path: Path):
    rows = rows_of(tmp_path, 8)
    rows.append({"prompt": "What is two and two?", "answer": "Four."})
    rows.append({"image": "01.png", "caption": "Noise."})
    (tmp_path / "cut.png").write_bytes((tmp_path / "02.png").read_bytes()[:900])
    rows.append(
        {
            "image": "cut.png",
            "label": "cups",
            "points": [{"x": 0.5, "y": 0.5}],
            "coords": "norm1",
            "source": "else",
        }
    )
    data = write_rows(tmp_path / "data.jsonl", rows)
    held = write_rows(
        tmp_path / "held.jsonl",
        [{"image": "again.png", "label": "cups", "points": [{"x": 5, "y": 5}], "coords": "pixel"}],
    )
    shutil.copy(tmp_path / "00.png", tmp_path / "again.png")
    changes = (*SMALL, "steps=4", "data.replay=0.4", "scoring.every=0")
    done = command(
        data, toy_folder, tmp_path / "run", "--held-out", str(held), "--replay", "synthetic", changes=changes
    )
    assert done.exit_code == SOME_FAILED, done.output
    assert (
        "1 examples skipped" in done.output and "cut.png" in done.output and "replay point f1" in done.output
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"coords": "percent"},
            r"row 1: 1 of 1 points lies outside 0\.\.100, 0\.\.100, .*they would fit 'norm1000', if coords is wrong",
        ),
        ({"points": [{"x": 500, "y": 5}]}, r"row 1: 1 of 1 points lies outside .* the first at \(500, 5\)"),
        (
            {"point": []},
            r"row 1, point: expected one of the columns .*got 'point', which is like 'points'; rename or remove it",
        ),
        ({"image": "nowhere.png"}, r"row 1: expected a picture, got no file .*nowhere\.png; check the path"),
        (
            {"answer": "two"},
            r"row 1: expected one of points .*got answer and points; write one row per target",
        ),
        ({"coords": None}, r"row 1, coords: expected"),
    ],
)
def test_faulty_rows_are_refused_before_training(
    data: Path, toy_folder: Path, tmp_path: Path, change: dict, message: str
):
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    rows[0] = {**rows[0], "points": [{"x": 101 if "coords" in change else 5, "y": 5}], **change}
    faulty = write_rows(data.parent / f"{tmp_path.name}.jsonl", rows)
    with pytest.raises(MolmoPointError, match=message):
        finetune(faulty, toy_folder, tmp_path / "run", "full", overrides=SMALL)
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_mixed_spaces_empty_files_and_trained_held_out_pictures_are_refused(
    data: Path, toy_folder: Path, tmp_path: Path
):
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    mixed = write_rows(
        data.parent / "mixed.jsonl", [*rows, {**rows[2], "points": [{"x": 0.5, "y": 0.5}], "coords": "norm1"}]
    )
    with pytest.raises(
        MolmoPointError,
        match=rf"row {len(rows) + 1}, coords: expected 'pixel' as in row 1 of .*got 'norm1'; bring",
    ):
        finetune(mixed, toy_folder, tmp_path / "run", "full", overrides=SMALL)
    empty = write_rows(data.parent / "empty.jsonl", [])
    with pytest.raises(MolmoPointError, match=r"expected one or more rows, got none"):
        finetune(empty, toy_folder, tmp_path / "run", "full", overrides=SMALL)
    with pytest.raises(
        MolmoPointError,
        match=r"row 1 of the held-out data: expected a picture that is not trained on, got 00\.png",
    ):
        finetune(data, toy_folder, tmp_path / "run", "full", overrides=SMALL, held_out=data)
    absent = command(data.parent / "nowhere.jsonl", toy_folder, tmp_path / "run")
    assert absent.exit_code == USAGE and "nowhere.jsonl" in absent.output


def test_models_that_cannot_be_trained_are_refused(data: Path, toy_folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "qwen3"}), encoding="utf-8")
    refused = command(data, other, tmp_path / "run")
    assert refused.exit_code == NO_MODEL
    with pytest.raises(
        CheckpointError,
        match=r"expected a checkpoint with a model_type of molmo_point, molmo2.*, got model_type 'qwen3'",
    ):
        finetune(data, other, tmp_path / "run", "full", overrides=SMALL)
    with pytest.raises(CheckpointError, match=r"expected a name of the zoo, .*got 'nanoo'"):
        finetune(data, "nanoo", tmp_path / "run", "full", overrides=SMALL)
    bare = shutil.copytree(toy_folder, tmp_path / "bare")
    tokenizer = json.loads((bare / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"] = [
        token for token in tokenizer["added_tokens"] if "im_patch" not in token["content"]
    ]
    (bare / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"tokenizer with the released special tokens, got one without .*im_patch"
    ):
        finetune(data, bare, tmp_path / "run", "full", overrides=SMALL)
