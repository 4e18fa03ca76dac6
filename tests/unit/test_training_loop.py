"""The one training loop of the examples: a run that was stopped or killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STEPS = 9


@pytest.fixture(scope="module")
def loop() -> Iterator[Any]:
    """The module of the loop."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import nano.loop

        yield nano.loop
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of five rows with two numbers each."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for index in range(3):
        values = torch.arange(10, dtype=torch.float32).view(5, 2) + 10 * index
        save_file({"values": values}, folder / f"shard_{index}.safetensors")
    return folder


def make_stage(loop: Any, folder: Path, *, end_at: int | None = None) -> Any:
    """A small network with dropout that fits sums; the process is asked to end inside the step after `end_at`
    steps.
    """

    class SumStage(loop.Stage):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.3), nn.Linear(8, 1))
            self.modules, self.clipped = {"model": self.model}, self.model
            self.rates = [(self.model[0], 0.02), (self.model, 0.01)]
            self.rows = loop.ShardStream(
                [folder], "shard_*.safetensors", lambda path: load_file(path)["values"]
            )
            self.streams = {"rows": self.rows}
            self.items = 2
            self.begun = 0
            self.notes = {"seen": []}

        def begin(self) -> None:
            self.begun += 1

        def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
            if step == end_at:
                os.kill(os.getpid(), signal.SIGTERM)
            shard, rows = self.rows.take(2, rng)
            values = shard[rows] / 30
            loss = (self.model(values).squeeze(1) - values.sum(1) - float(rng.normal())).square().mean()
            loss.backward()
            self.notes["seen"].append(round(float(values.sum()), 4))
            return {"loss": loss.item(), "never": float("nan")}

        def check(self) -> dict[str, float]:
            return {"looked": 1.0}

    return SumStage()


@pytest.fixture
def settings(loop: Any) -> Any:
    torch.set_num_threads(1)
    return loop.LoopSettings(warmup=2)


def test_a_stopped_run_is_the_uninterrupted_one_to_the_bit(
    loop: Any, shards: Path, settings: Any, tmp_path: Path
) -> None:
    whole = make_stage(loop, shards)
    assert loop.train(whole, tmp_path / "whole", settings, STEPS, seed=1, log_every=3) == STEPS
    done = 0
    for end_at in (2, 6, None):  # a new process each time: a new stage, and torch's random numbers elsewhere
        torch.manual_seed(1234)
        stage = make_stage(loop, shards, end_at=end_at)
        done = loop.train(stage, tmp_path / "parts", settings, STEPS, seed=1, log_every=3)
        assert stage.begun == (end_at == 2)
    assert done == STEPS
    first, second = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "parts.safetensors")
    assert first.keys() == second.keys() and len(first) > 12
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert loop.read_progress(tmp_path / "whole.safetensors") == loop.read_progress(
        tmp_path / "parts.safetensors"
    )
    assert len(stage.notes["seen"]) == STEPS


def test_a_killed_run_repeats_the_steps_after_its_checkpoint(
    loop: Any, shards: Path, settings: Any, tmp_path: Path
) -> None:
    whole = make_stage(loop, shards)
    loop.train(whole, tmp_path / "whole", settings, STEPS, seed=1)

    stage = make_stage(loop, shards)
    taught = stage.add_gradients

    def killed(step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        if step == 7:
            raise KeyboardInterrupt
        return taught(step, steps, rng)

    stage.add_gradients = killed
    with pytest.raises(
        KeyboardInterrupt
    ):  # at every step something is saved, so the last checkpoint is that of step 7
        loop.train(stage, tmp_path / "killed", replace(settings, save_minutes=0.0), STEPS, seed=1)
    assert loop.read_progress(tmp_path / "killed.safetensors")["step"] == 7
    again = make_stage(loop, shards)
    loop.train(again, tmp_path / "killed", settings, STEPS, seed=1)
    first, second = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "killed.safetensors")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_signals_are_those_of_before_after_a_run(
    loop: Any, shards: Path, settings: Any, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    loop.train(make_stage(loop, shards, end_at=1), tmp_path / "run", settings, STEPS, seed=1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_of_before_2026_12_goes_on(
    loop: Any, shards: Path, settings: Any, tmp_path: Path
) -> None:
    """They hold weights, moments and steps, and no random state."""
    loop.train(make_stage(loop, shards), tmp_path / "run", settings, 4, seed=1)
    tensors = load_file(tmp_path / "run.safetensors")
    del tensors["random.torch"]
    save_file(tensors, tmp_path / "run.safetensors", {"progress": json.dumps({"step": 4, "steps": 4})})
    stage = make_stage(loop, shards)
    assert loop.train(stage, tmp_path / "run", settings, STEPS, seed=1) == STEPS
    assert len(stage.notes["seen"]) == STEPS - 4 and not stage.begun
    assert loop.read_progress(tmp_path / "run.safetensors")["random"]


def test_the_log_has_means_and_the_look_of_every_checkpoint(
    loop: Any, shards: Path, settings: Any, tmp_path: Path
) -> None:
    loop.train(make_stage(loop, shards), tmp_path / "run", settings, 6, seed=1, log_every=3)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 6]
    assert (
        {"loss", "norm", "per_second"} <= lines[0].keys()
        and "never" not in lines[0]
        and lines[2]["looked"] == 1.0
    )


def test_the_rate_rises_and_ends_at_the_floor(loop: Any, settings: Any) -> None:
    model = nn.Linear(3, 3)
    rates = {}
    for done in (0, 1, 2, 50, 100):
        optimiser = loop.build_optimisers([(model, 0.5)], settings)["optimiser"]
        rates[done] = loop.build_schedule(optimiser, settings, 100, done).get_last_lr()[0] / 0.5
    assert (
        rates[0] == 0
        and rates[1] == 0.5
        and rates[2] == 1
        and 0.5 < rates[50] < 0.53
        and rates[100] == pytest.approx(0.02)
    )


def test_every_parameter_is_trained_once_and_only_matrices_decay(loop: Any, settings: Any) -> None:
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(3, 2),
            "inner": nn.Linear(2, 2),
            "frozen": nn.Linear(2, 2).requires_grad_(False),
        }
    )
    (optimiser,) = loop.build_optimisers([(model["inner"], 0.1), (model, 0.2)], settings).values()
    groups = [
        (group["lr"], group["weight_decay"], [tuple(p.shape) for p in group["params"]])
        for group in optimiser.param_groups
    ]
    assert groups == [(0.1, 0.05, [(2, 2)]), (0.1, 0.0, [(2,)]), (0.2, 0.0, [(3, 2)])]


def test_matrices_of_blocks_are_trained_with_muon_if_asked(loop: Any, settings: Any) -> None:
    block = nn.Linear(2, 2)
    model = nn.ModuleDict({"layers": nn.ModuleList([block]), "out": nn.Linear(2, 3)})
    optimisers = loop.build_optimisers([(model, 0.2)], replace(settings, muon=3.0))
    (group,) = optimisers["muon"].param_groups
    assert group["params"] == [block.weight] and group["lr"] == pytest.approx(0.6)
    left = [parameter for group in optimisers["optimiser"].param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in left} == {
        id(p) for p in model.parameters() if p is not block.weight
    }


def test_the_rate_may_fall_in_a_line_at_the_end(loop: Any, settings: Any) -> None:
    rates = {}
    for done in (1, 2, 59, 60, 80, 100):
        optimiser = loop.build_optimisers([(nn.Linear(3, 3), 0.5)], settings)["optimiser"]
        rates[done] = (
            loop.build_schedule(optimiser, replace(settings, falling=0.4), 100, done).get_last_lr()[0] / 0.5
        )
    assert rates == pytest.approx({1: 0.5, 2: 1, 59: 1, 60: 1, 80: 0.5, 100: 0})


def test_streams_take_every_row_of_a_visit_once(loop: Any, shards: Path) -> None:
    rng = np.random.default_rng(0)
    stream = loop.ShardStream([shards], "shard_*.safetensors", lambda path: load_file(path)["values"])
    visits = [stream.take(2, rng) for _ in range(20)]
    for first, second in zip(visits[::2], visits[1::2], strict=True):
        assert first[0] is second[0] and len({*first[1], *second[1]}) == 4
    assert len({float(shard[0, 0]) for shard, _ in visits}) == 3
    assert len(stream.take(8, rng)[1]) == 5, "a shard with fewer rows gives what it has"
    half = loop.ShardStream([shards], "shard_*.safetensors", lambda path: load_file(path)["values"], part=0.4)
    half.take(1, rng)
    assert len(half.place["rows"]) == 1


def test_newer_shards_are_seen_more_often_and_missing_ones_are_named(
    loop: Any, shards: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    stream = loop.ShardStream(
        [tmp_path / "empty", shards],
        "shard_*.safetensors",
        lambda path: load_file(path)["values"],
        newest=1.0,
    )
    assert {float(stream.take(5, rng)[0][0, 0]) for _ in range(30)} == {10.0, 20.0}
    with pytest.raises(
        FileNotFoundError, match=r"expected shards nothing_\* in .*cache, got none; draw some first"
    ):
        loop.ShardStream([shards], "nothing_*", load_file).take(1, rng)
