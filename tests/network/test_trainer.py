"""Runs of the trainer on the tiny model: the same weights however rows are divided, and the same curve after
a stop.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import random_model
from tiny_run import RECIPE, curve, tiny_trainer, training_row
from transformers import TrainerCallback

from molmopoint.errors import RecipeError, TrainingError
from molmopoint.losses import IGNORED
from molmopoint.training.recipe import Groups, GroupSettings, Saving, Scoring
from molmopoint.training.run_checkpoints import complete_checkpoints

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # accelerate looks at the frequency of the processor and at what is installed.
    pytest.mark.filterwarnings("ignore::FutureWarning:accelerate"),
]

TESTS = Path(__file__).resolve().parent.parent


class StopAfter(TrainerCallback):
    """Dies in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_stops_anywhere_goes_on_bit_by_bit(tmp_path, workers):
    recipe = replace(RECIPE, accumulation=2, data=replace(RECIPE.data, workers=workers))
    through = tiny_trainer(tmp_path / "through", recipe, score=lambda model: {"score": torch.rand(()).item()})
    through.train()
    for stop in (3, 4):
        with pytest.raises(KeyboardInterrupt):
            tiny_trainer(tmp_path / "stopped", recipe, callbacks=[StopAfter(stop)]).train()
    again = tiny_trainer(tmp_path / "stopped", recipe)
    again.train()
    assert curve(tmp_path / "stopped") == curve(tmp_path / "through")
    assert [step for step, _ in curve(tmp_path / "stopped")] == [1, 2, 3, 4, 5, 6]
    assert_equal(weights(again), weights(through))
    assert again.dataset.state_dict() == through.dataset.state_dict()
    assert [skipped.index for skipped in again.dataset.skipped] == [5]


def test_a_finished_run_has_nothing_to_do_and_keeps_the_best(tmp_path):
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.2, 0.2])
    recipe = replace(RECIPE, scoring=Scoring(every=1), saving=Saving(every=3, keep=1))
    trainer = tiny_trainer(
        tmp_path, recipe, score=lambda model: {"point_f1": next(scores), "count_accuracy": 1.0}
    )
    trainer.train()
    assert list(complete_checkpoints(tmp_path)) == [2, 6]
    last = weights(trainer)
    again = tiny_trainer(tmp_path, recipe)
    assert again.train().global_step == 6
    assert_equal(weights(again), last)
    best = again.load_best()
    assert best is not None and best.name == "checkpoint-000002"
    assert not torch.equal(weights(again)["lm_head.base"], last["lm_head.base"])


def test_the_newest_step_as_good_as_the_best_within_its_error_is_kept_over_a_stop(tmp_path):
    scores = {1: (0.4, 0.1), 2: (0.9, 0.1), 3: (0.7, 0.3), 4: (0.85, 0.1), 5: (0.75, 0.3), 6: (0.1, 0.3)}
    recipe = replace(RECIPE, scoring=Scoring(every=1), saving=Saving(every=3, keep=1))

    def trainer(**more):
        def score(model):
            return dict(zip(("point_f1", "point_f1_error"), scores[made.state.global_step], strict=True))

        made = tiny_trainer(tmp_path, recipe, score=score, **more)
        return made

    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[StopAfter(3)]).train()
    assert list(complete_checkpoints(tmp_path)) == [2, 3]
    trainer().train()
    assert list(complete_checkpoints(tmp_path)) == [4, 6]
    again = trainer()
    again.train()
    best = again.load_best()
    assert best is not None and best.name == "checkpoint-000004"


def test_another_recipe_or_other_data_is_another_run(tmp_path):
    tiny_trainer(tmp_path, steps=2).train()
    other = replace(
        RECIPE,
        groups=replace(RECIPE.groups, llm=replace(RECIPE.groups.llm, peak=0.5)),
        data=replace(RECIPE.data, seed=9),
    )
    with pytest.raises(
        TrainingError, match=r"recipe\.groups\.llm\.peak 0\.001, now 0\.5; recipe\.data\.seed 1, now 9"
    ):
        tiny_trainer(tmp_path, other, steps=2).train()
    with pytest.raises(TrainingError, match="model nothing, now big"):
        tiny_trainer(tmp_path, steps=2, identity={"model": "big"}).train()


def test_more_processes_or_workers_go_on_with_the_rows_that_are_left(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path, callbacks=[StopAfter(4)]).train()
    trainer = tiny_trainer(tmp_path, replace(RECIPE, data=replace(RECIPE.data, workers=1)))
    trainer.train()
    two = tiny_trainer(tmp_path / "b", replace(RECIPE, data=replace(RECIPE.data, workers=2)))
    two.train()
    assert trainer.state.global_step == two.state.global_step == 6


def test_the_run_ends_where_the_data_ends(tmp_path):
    trainer = tiny_trainer(
        tmp_path, replace(RECIPE, accumulation=3), steps=500, epochs=1, score=lambda model: {"score": 1.0}
    )
    result = trainer.train()
    assert 1 <= result.global_step < 20
    assert list(complete_checkpoints(tmp_path))[-1] == result.global_step
    assert json.loads((tmp_path / f"checkpoint-{result.global_step:06d}" / "run.json").read_text())[
        "finished"
    ]
    assert (
        tiny_trainer(tmp_path, replace(RECIPE, accumulation=3), steps=500, epochs=1).train().global_step
        == result.global_step
    )


def test_one_by_four_rows_equal_four_by_one(tmp_path):
    """Packs come in one order, so four at once and four in turn are the same rows."""
    recipe = replace(RECIPE, residual_dropout=0.0)
    at_once = tiny_trainer(tmp_path / "a", replace(recipe, data=replace(recipe.data, rows=4)), steps=2)
    in_turn = tiny_trainer(tmp_path / "b", replace(recipe, accumulation=4), steps=2)
    at_once.train()
    in_turn.train()
    before, other = random_model(7).state_dict(), weights(in_turn)
    for name, weight in weights(at_once).items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=2e-5, msg=name)
    moved = [
        name
        for name, weight in weights(at_once).items()
        if name in before and not torch.equal(weight, before[name])
    ]
    assert len(moved) > 50
    for (_, one), (_, two) in zip(curve(tmp_path / "a"), curve(tmp_path / "b"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)


class Poisoned:
    """A picture with a value that is no number."""

    def __call__(self, draw):
        made = training_row(draw)
        return (
            made
            if made.pixel_values is None or draw.index != 2
            else replace(made, pixel_values=made.pixel_values * torch.nan)
        )


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_reached(tmp_path):
    trainer = tiny_trainer(tmp_path, replace(RECIPE, saving=Saving(every=1)), steps=30, prepare=Poisoned())
    with pytest.raises(
        TrainingError, match=r"nan or inf in step \d+, in a batch with .*\(0, 2\).*lower the peaks"
    ):
        trainer.train()
    assert all(torch.isfinite(weight).all() for weight in _saved(tmp_path))


def _saved(out):
    newest = list(complete_checkpoints(out).values())
    return load_file(newest[-1] / "model.safetensors").values() if newest else []


def test_what_cannot_be_trained_is_refused(tmp_path):
    still = replace(RECIPE, groups=Groups(*[GroupSettings(0)] * 4))
    with pytest.raises(RecipeError, match="a peak above 0"):
        tiny_trainer(tmp_path, still)
    with pytest.raises(TrainingError, match="one or more steps, got 0"):
        tiny_trainer(tmp_path, steps=0)
    with pytest.raises(TrainingError, match="rows of process 0 of 1, got those of 1 of 2"):
        tiny_trainer(tmp_path, rank=1, num_ranks=2)


def _start(*arguments: object, script: str = "tiny_run.py", **variables: object) -> subprocess.Popen:
    own = {name: str(value) for name, value in variables.items()}
    shared = {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / script), *map(str, arguments)]
    return subprocess.Popen(
        command, env=os.environ | own | shared, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_moment_the_same_command_goes_on(tmp_path, workers):
    steps = 30
    whole = _start("kill", tmp_path / "whole", workers, steps)
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output
    expected, out = curve(tmp_path / "whole"), tmp_path / "killed"
    kills = 0
    for least in (2, 8, 15, 22):
        run = _start("kill", out, workers, steps)
        while run.poll() is None and (
            not (out / "log.jsonl").exists() or len((out / "log.jsonl").read_text().splitlines()) < least
        ):
            time.sleep(0.01)
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.communicate()
    last = _start("kill", out, workers, steps)
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output
    assert kills >= 2
    assert curve(out) == expected
    assert not list(out.glob(".saving-*"))


def _together(out: Path, num_ranks: int, rows: int, accumulation: int, epochs: int | None = None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": num_ranks,
        "LOCAL_WORLD_SIZE": num_ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    own = (
        [{"RANK": rank, "LOCAL_RANK": rank, **shared} for rank in range(num_ranks)] if num_ranks > 1 else [{}]
    )
    runs = [_start("together", out, rows, accumulation, epochs, **variables) for variables in own]
    for run in runs:
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """One of the two has neither points nor pictures in any of its rows."""
    for name, arguments in {"rows": (1, 4, 1), "processes": (2, 2, 1), "both": (2, 1, 2)}.items():
        _together(tmp_path / name, *arguments)
    expected = load_file(tmp_path / "rows" / "checkpoint-000002" / "model.safetensors")
    start = random_model(7).state_dict()
    moved = [name for name in expected if name in start and not torch.equal(expected[name], start[name])]
    assert {"model.point_predictor.patch.query.weight", "model.vision_tower.patch_embedding.weight"} <= set(
        moved
    )
    for name in ("processes", "both"):
        got = load_file(tmp_path / name / "checkpoint-000002" / "model.safetensors")
        for key, weight in expected.items():
            torch.testing.assert_close(got[key], weight, rtol=0, atol=2e-5, msg=f"{name}: {key}")
        for (_, one), (_, two) in zip(curve(tmp_path / name), curve(tmp_path / "rows"), strict=True):
            assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.slow
def test_processes_end_together_where_the_data_ends(tmp_path):
    """One has 12 rows, the other 7, in batches of 2: four steps each, and nobody waits for a fifth."""
    _together(tmp_path, 2, 2, 1, epochs=1)
    assert [step for step, _ in curve(tmp_path)] == [1, 2, 3, 4]
    assert list(complete_checkpoints(tmp_path)) == [2, 4]


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """A limit on the size of files is what a full disk looks like to the writer."""
    run = _start(tmp_path, script="tiny_full_disk.py")
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert "expected to write checkpoint-000004" in output
    assert "it goes on from checkpoint-000002" in output
    assert list(complete_checkpoints(tmp_path)) == [2]
    assert not list(tmp_path.glob(".saving-*"))


def test_labels_are_what_the_divisor_counts():
    from molmopoint.training.metrics import weight_of

    labels = torch.tensor([[IGNORED, 4, 5]])
    assert weight_of({"shift_labels": labels, "loss_weights": torch.tensor([[9.0, 0.5, 0.25]])}) == 0.75
    assert weight_of({"shift_labels": labels}) == 2.0
