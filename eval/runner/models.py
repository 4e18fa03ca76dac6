"""Models that benchmarks are run on: loading them, refusing those of the wrong kind, and telling them apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from molmopoint.errors import CheckpointError, EvaluationError
from molmopoint.eval.benchmark import Benchmark, Need
from molmopoint.files import is_file
from molmopoint.pipeline import load
from molmopoint.reward import load_reward
from molmopoint.reward.settings import AUTHORS_CONFIG_FILE, CONFIG_FILE

EMBEDDED: Mapping[Need, str] = {"points": "nano", "scores": "nano-reward"}
"""Models to begin with."""

_SAMPLED_VALUES = 4096
"""Of each tensor, for telling weights apart."""


def load_model(
    name: str,
    benchmark: Benchmark,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    quantize: str | None = None,
    compile_steps: bool = False,
) -> Any:
    """A model of the kind that a benchmark needs.

    Args:
        name: of the zoo, hub id, or folder.
        benchmark: to be run.
        revision: branch, tag or commit on the hub.
        dtype: float32, bfloat16, float16 or auto.
        device: by default the GPU of this process if there is one.
        quantize: as in `molmopoint.load`, of a model that points.
        compile_steps: as `compile` there.

    Raises:
        CheckpointError: there is none of that name, it is of the other kind, or it cannot be stored so.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    if device is None and local_rank is not None and torch.cuda.is_available():
        device = f"cuda:{local_rank}"
    if benchmark.needs == "scores":
        if quantize is not None:
            raise CheckpointError(
                f"expected no quantize with the reward model of {benchmark.name}, got {quantize!r}; leave it out"
            )
        if compile_steps:
            raise CheckpointError(
                f"expected no compile with the reward model of {benchmark.name}, which makes no answers; leave it "
                "out"
            )
        return load_reward(name, dtype=dtype, device_map=device, revision=revision)
    folder = Path(name).expanduser()
    if any(is_file(folder / file) for file in (CONFIG_FILE, AUTHORS_CONFIG_FILE)):
        raise CheckpointError(
            f"expected a model that points for {benchmark.name}, got the reward model in {name}; choose "
            "another"
        )
    return load(
        name,
        dtype=dtype,
        device_map=device,
        revision=revision,
        quantize=quantize,
        compile=compile_steps,
    )


def identity_of(model: Any, benchmark: Benchmark, name: str, revision: str | None = None) -> dict[str, Any]:
    """What the manifest says about a model: whatever changes answers."""
    if not hasattr(model, "model"):  # anything that scores responses
        return {"model": name}
    commit = getattr(model.model.config, "_commit_hash", None)
    identity = {
        "model": name,
        "revision": commit or revision,
        "dtype": str(model.model.dtype).removeprefix("torch."),
    }
    stored_as = getattr(model.model, "stored_as", None)
    if stored_as is not None:
        identity["quantize"] = stored_as
    if benchmark.needs == "scores":
        settings = model.model.settings
        identity["layout"] = settings.layout
        identity["attention"] = settings.attention
        identity["max_responses"] = model.max_responses
    return identity


def weights_digest(model: Any) -> str:
    """Sixteen hexadecimal digits that stand for the weights of a model that was passed as an object.

    Its name does not tell them: it may have been trained since it was loaded. Of large tensors a part is
    looked at, which every step of an optimiser changes.
    """
    network = getattr(model, "model", None)
    if not isinstance(network, torch.nn.Module):
        return ""
    hashed = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLED_VALUES)
        sample = flat[::step].to("cpu", torch.float32)
        hashed.update(name.encode())
        hashed.update(sample.numpy().tobytes())
    return hashed.hexdigest()[:16]


def name_of(model: Any) -> str:
    """Where a loaded model came from, as far as it knows."""
    config = getattr(getattr(model, "model", None), "config", None)
    return str(getattr(config, "_name_or_path", "") or type(model).__name__)


def check_model(model: Any, benchmark: Benchmark) -> None:
    """Refuses a model of the wrong kind.

    Raises:
        EvaluationError: the benchmark wants scores and the model only points, or the other way round.
    """
    if benchmark.needs == "scores" and not callable(getattr(model, "score", None)):
        raise EvaluationError(
            f"expected a reward model for {benchmark.name}, got {type(model).__name__}, which scores no "
            "responses; "
            "load one with molmopoint.load_reward, or with --model in the command line"
        )
    if benchmark.needs == "points" and not callable(getattr(model, "point_batch", None)):
        raise EvaluationError(
            f"expected a model that points for {benchmark.name}, got {type(model).__name__}, which does "
            "not; load one with molmopoint.load"
        )
