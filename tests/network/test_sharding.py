"""FSDP2 by our rule: two processes under gloo hold halves and compute what one process with both batches
computes.

In every micro-step one of the ranks has pictures and points and the other one neither, so collectives that
only some batches call would hang here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import random_model
from torch import nn

from molmopoint.errors import MolmoPointError
from molmopoint.training.sharding import shard, sharding_units

TESTS = Path(__file__).resolve().parent.parent
MODELS = ("plain", "tied", "prepared", "tied and prepared", "without ViT", "adapted", "checkpointed")
UNITS = [
    "", "lm_head", "model.connector", "model.language_model.embed_tokens", "model.language_model.layers.0",
    "model.language_model.layers.1", "model.vision_tower.layers.0", "model.vision_tower.layers.1", "model.vision_tower.layers.2",
]  # fmt: skip
TIMEOUT = 300
"""Seconds after which the processes hang; on a busy core they take a minute."""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    """What both processes found together."""
    folder = tmp_path_factory.mktemp("sharded")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    command = [sys.executable, "-W", "ignore", str(TESTS / "sharded_process.py")]
    logs = [(folder / f"{rank}.log").open("w+") for rank in range(2)]
    started = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stdout=log, stderr=log)
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [process.wait(TIMEOUT) for process in started]
    finally:
        for process, log in zip(started, logs, strict=True):
            process.kill()
            log.close()
    assert codes == [0, 0], "\n".join((folder / f"{rank}.log").read_text()[-3000:] for rank in range(2))
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_shards_follow_the_rule(found, name):
    model = found[name]
    assert [unit.replace("base_model.model.", "", 1) for unit in model["units"]] == UNITS
    assert model["sharded"]
    assert model["by_rows"]
    assert model["whole"] / 2 <= model["held"] <= 0.51 * model["whole"]
    assert model["state_equal"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_compute_what_one_does(found, name):
    model = found[name]
    assert model["losses"][1] == pytest.approx(model["losses"][0], rel=1e-5)
    assert model["gradients"] < 1e-5
    assert model["without_gradient"] == []
    assert model["norms"][1] == pytest.approx(model["norms"][0], rel=1e-5)
    assert set(model["norms"][0]) == {"vit", "connector", "llm", "point"} - (
        {"vit"} if name == "without ViT" else set()
    )
    assert model["clipped"] < 1e-5
    assert model["stepped"] < 1e-5


@pytest.mark.slow
def test_the_frozen_parts_are_sharded_too(found):
    assert found["prepared"]["frozen"] == ["model.language_model.embed_tokens.base"]
    assert any("vision_tower" in name for name in found["without ViT"]["frozen"])
    trained = [name for name in found["adapted"]["frozen"] if "lora_" in name]
    assert not trained


@pytest.mark.slow
def test_half_precision_leaves_weights_and_divisor_alone(found):
    half = found["half"]
    assert half["losses"][1] == pytest.approx(half["losses"][0], rel=0.02)
    assert half["divisor"] == pytest.approx(1001, rel=1e-6)  # 1000 in bfloat16
    assert half["weight_sums"][1] == pytest.approx(half["weight_sums"][0], rel=1e-6)
    assert half["dtypes"] == ["torch.float32"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "tied", "prepared", "adapted"])
def test_accelerate_makes_the_same_units(found, name):
    ours, theirs = found["accelerate"][name]
    assert theirs == ours


def test_units_cover_the_large_parts_once():
    model = random_model()
    parameters = [
        id(parameter)
        for unit in sharding_units(model)
        for module in unit
        for parameter in module.parameters()
    ]
    assert len(parameters) == len(set(parameters))
    left = {".".join(name.split(".")[1:3]) for name, p in model.named_parameters() if id(p) not in parameters}
    heads = {f"point_predictor.{part}" for part in ("norm", "patch", "subpatch", "location")}
    patches = {"vision_tower.positional_embedding", "vision_tower.patch_embedding"}
    assert left == heads | patches | {
        "language_model.norm",
        "build_vit_embedding.weight",
        "build_vit_embedding.bias",
    }


def test_what_cannot_be_sharded_is_refused():
    with pytest.raises(MolmoPointError, match=r"process group.*torchrun"):
        shard(random_model())
    with pytest.raises(MolmoPointError, match="_no_split_modules"):
        sharding_units(nn.Linear(2, 2))


@pytest.mark.gpu
def test_sharded_over_the_gpus_that_are_here(tmp_path):
    """Under torchrun with NCCL, on as many GPUs as there are: the loss is that of the whole model."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={torch.cuda.device_count()}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    script = str(TESTS / "sharded_on_gpus.py")
    done = subprocess.run(
        [sys.executable, *command, script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
