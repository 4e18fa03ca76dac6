"""From a file of preferences to a reward model on disk, with the embedded model as backbone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import molmopoint
from molmopoint.cli.app import app
from molmopoint.data.judging import sample_judgement
from molmopoint.errors import ProcessingError, RecipeError, TrainingError
from molmopoint.training.finetune import finetune
from molmopoint.training.reward.finetune import finetune_reward

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:accelerate"),
]

SMALL = [
    "steps=2", "data.rows=2", "data.held_out=2", "scoring.batch_size=2", "scoring.every=0", "saving.every=1", "logging.to=[]",
    "logging.every=1", "lora.rank=4", "lora.alpha=4", "dtype=float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    """Six judgements, one to a picture."""
    folder = tmp_path_factory.mktemp("preferences")
    rows = []
    for number in range(6):
        judgement = sample_judgement(np.random.default_rng([8, number]))
        judgement.image.save(folder / f"{number}.png")
        rows.append(
            {
                "image": f"{number}.png",
                "prompt": judgement.prompt,
                "responses": judgement.responses,
                "rankings": judgement.rankings,
            }
        )
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_file_becomes_a_model_that_judges(preferences, tmp_path):
    told = []
    result = finetune_reward(preferences, "nano", tmp_path / "out", overrides=SMALL, log=told.append)
    assert told[0] == "trained on: 4 rows; held out: 2 rows" and result.steps == 2
    assert (
        {"top1_accuracy", "margin", "order_consistency"}
        <= set(result.scores_before)
        == set(result.scores_after)
    )
    files = {file.name for file in (tmp_path / "out" / "model").iterdir()}
    assert files == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "reward.safetensors",
        "reward_config.json",
    }
    assert (
        "arXiv" not in (card := (tmp_path / "out" / "model" / "README.md").read_text())
        and str(tmp_path) not in card
    )
    judge = molmopoint.load_reward(tmp_path / "out" / "model")
    row = json.loads(preferences.read_text().splitlines()[0])
    scores = judge.score(row["prompt"], row["responses"], preferences.parent / row["image"])
    assert len(scores) == 4 and np.isfinite(scores).all() and len(set(scores)) == 4
    again = finetune_reward(preferences, "nano", tmp_path / "out", overrides=SMALL)
    assert again.scores_after == result.scores_after
    with pytest.raises(TrainingError, match=r"expected the run that .* was started with, got another"):
        finetune_reward(preferences, "nano", tmp_path / "out", overrides=[*SMALL, "seed=5"])


def test_recipes_of_the_other_kind_are_refused(preferences, tmp_path):
    with pytest.raises(RecipeError, match=r"expected a recipe with a table \[reward\], got one without"):
        finetune_reward(preferences, "nano", tmp_path / "a", "nano")
    with pytest.raises(
        RecipeError,
        match=r"expected a recipe for pointing, got one with a table \[reward\]; use finetune-reward",
    ):
        finetune(preferences, "nano", tmp_path / "b", "nano-reward")


def test_what_is_trained_on_is_not_scored_on(preferences, tmp_path):
    with pytest.raises(
        ProcessingError,
        match=r"row 1 of the held-out data: expected a picture, .* got that of row 1 of the training",
    ):
        finetune_reward(preferences, "nano", tmp_path / "out", overrides=SMALL, held_out=preferences)


def test_the_command_tells_faults_in_a_line(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a?", "responses": ["x", "y"], "rankings": [1]}\n', encoding="utf-8")
    done = CliRunner().invoke(app, ["finetune-reward", str(data), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "row 1, rankings: expected 2 numbers, one per answer, got 1" in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
