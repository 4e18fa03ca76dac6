"""The training of the embedded reward model: its short cuts change nothing, and its stages work on little
data.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import molmopoint
from molmopoint.data.preferences import read_preferences
from molmopoint.data.vague import VAGUE_FAMILIES
from molmopoint.reward import collate
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.reward.finetune import new_network
from molmopoint.training.reward.prepare import Budget, PreferencePreparer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with two questions each."""
    out = tmp_path_factory.mktemp("judging")
    run("data", out, "--pictures", "4", "--questions", "2")
    return out


def run(stage: str, out: Path, *more: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        patch.setattr(sys, "argv", ["train_nano_reward.py", stage, "--folder", str(out), *more])
        runpy.run_path(str(EXAMPLES / "train_nano_reward.py"), run_name="__main__")


def test_short_cuts_do_not_change_a_score(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    training = importlib.import_module("nano_reward.training")
    torch.manual_seed(0)
    network, builder = new_network("nano", load_recipe("nano-reward"))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name or "value" in name:
                parameter.normal_(std=0.5 if "value" in name else 0.02)
    data = read_preferences(folder / "data.jsonl")
    names = sorted({str(record.images[0]) for record in data.records})
    features = training.see_pictures(folder / "seen.pt", folder, names, network.backbone, builder)
    assert torch.equal(features, training.see_pictures(folder / "seen.pt", folder, names, None, builder)), (
        "read from the file"
    )
    given = (data.records, folder, builder, Budget(1024, 16384, 0, (1,), 8))
    plain, seen = PreferencePreparer(*given), training.SeenPreparer(features, names, *given)

    def scores(preparer: PreferencePreparer) -> torch.Tensor:
        rows = [builder.row(preparer.prompt(record), record.responses) for record in data.records]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = network.eval()(**collate(rows, 0)).scores
        assert found is not None
        return found

    expected = scores(plain)
    training.add_up_first(network.backbone)
    spread = float(expected[expected.isfinite()].std())
    assert spread > 0.1
    torch.testing.assert_close(scores(seen), expected, atol=0.2 * spread, rtol=0)


@pytest.mark.filterwarnings("ignore::FutureWarning:accelerate")
def test_a_run_goes_on_and_is_released_in_16_bit(folder: Path, tmp_path: Path):
    changes = [
        f"--set={change}"
        for change in (
            "steps=2",
            "epochs=false",
            "data.rows=2",
            "data.held_out=1",
            "scoring.examples=2",
            "saving.every=1",
        )
    ]
    run("train", folder, *changes)
    first = load_file(folder / "run" / "model" / "reward.safetensors")
    run("train", folder, *changes)
    again = load_file(folder / "run" / "model" / "reward.safetensors")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    run("release", folder, "--target", str(tmp_path / "judge"))
    adapters = load_file(tmp_path / "judge" / "adapter_model.safetensors")
    assert adapters and all(tensor.dtype == torch.bfloat16 for tensor in adapters.values())
    assert (
        len(molmopoint.load_reward(tmp_path / "judge", device_map="cpu").score("Where?", ["Left.", "Right."]))
        == 2
    )


def test_a_run_begins_with_a_judge_that_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    training = importlib.import_module("nano_reward.training")
    network, _builder = new_network("nano", load_recipe("nano-reward"))
    training.start_from(network, "nano-reward")
    stored = load_file(ROOT / "checkpoints" / "nano_reward" / "reward.safetensors")
    assert torch.equal(network.separator, stored["separator"])
    assert torch.equal(network.value.state_dict()["layers.2.weight"], stored["value.layers.2.weight"])
    adapters = load_file(ROOT / "checkpoints" / "nano_reward" / "adapter_model.safetensors")
    name = "model.language_model.layers.0.mlp.up_proj.lora_B"
    own = dict(network.backbone.named_parameters())[f"{name}.default.weight"]
    assert torch.equal(own, adapters[f"base_model.model.{name}.weight"].float())


def test_every_family_is_measured(tmp_path: Path):
    run("measure", tmp_path, "--model", "nano-reward", "--number", "2")
    scores = json.loads((tmp_path / "scores.json").read_text())
    families = {f"vague_{family}{end}" for family in VAGUE_FAMILIES for end in ("", "_unseen")}
    assert families | {"accuracy", "accuracy_without_picture", "order_consistency"} <= set(scores)
