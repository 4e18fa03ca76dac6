"""The reward model that comes with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import molmopoint
from molmopoint.checkpoints import registry
from molmopoint.cli.app import app
from molmopoint.cli.console import OK
from molmopoint.data.judging import NUM_RESPONSES, sample_judgement
from molmopoint.errors import CheckpointError
from molmopoint.reward import Judge

NUMBER = 60


@pytest.fixture(scope="module")
def judge() -> Judge:
    return molmopoint.load_reward("nano-reward", device_map="cpu")


def test_it_finds_the_right_answer(judge: Judge):
    drawn = [np.random.default_rng([2_311, i]) for i in range(NUMBER)]
    judgements = [sample_judgement(rng) for rng in drawn]
    orders = [rng.permutation(NUM_RESPONSES).tolist() for rng in drawn]
    answers = [
        [judgement.responses[i] for i in order] for judgement, order in zip(judgements, orders, strict=True)
    ]
    scores = judge.score_batch(
        [j.prompt for j in judgements], answers, [j.image for j in judgements], batch_size=20
    )
    right = [
        judgement.rankings[order[int(np.argmax(line))]] == 1
        for judgement, order, line in zip(judgements, orders, scores, strict=True)
    ]
    assert np.mean(right) >= 0.7


def test_its_folder_is_small_and_stands_on_nano(judge: Judge):
    folder = Path(registry.resolve("nano-reward"))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6e6
    assert judge.model.base == "nano"
    assert not (folder / "config.json").exists()


@pytest.mark.parametrize("by_folder", [False, True])
def test_it_does_not_point(by_folder: bool):
    name = registry.resolve("nano-reward") if by_folder else "nano-reward"
    with pytest.raises(
        CheckpointError,
        match=r"expected a model that points, got the reward model '.*nano.reward'; load it with molmopoint",
    ):
        molmopoint.load(name)


def test_reward_benchmarks_take_it_by_default(tmp_path: Path):
    result = CliRunner().invoke(app, ["eval", "vl_rewardbench", "--data", "fixture", "--out", str(tmp_path)])
    assert result.exit_code == OK, result.output
    assert '"nano-reward"' in (tmp_path / "vl_rewardbench" / "manifest.json").read_text()
