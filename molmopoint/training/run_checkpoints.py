"""Checkpoints of a run: where they lie, what they hold, which of them is the best.

    OUT/checkpoint-000100/         complete: a folder of this name is there as a whole or not at all
    OUT/.saving-checkpoint-000200/ being written; what a killed run leaves behind, removed by the next one

| file of a checkpoint | content |
| --- | --- |
| model.safetensors | parameters that train, and buffers; the frozen ones come with the model the run was started from |
| position-RANK.json | `state_dict` of the data of each process |
| run.json | what the run was told, see `identity`; and whether it is finished |
| the others | what Trainer writes and reads; sharded weights among it, instead of model.safetensors |

With several processes all of them write into one folder, so they need one file system; the first one renames.

Which checkpoint is the best one is told from scores that are known only so well. A few dozen held-out
requests do not rank checkpoints: with 30 of them F1 has a standard error of about 0.06, and the highest of
several scores is mostly the luckiest. So the one-standard-error rule of cross-validation decides (Breiman,
Friedman, Olshen and Stone: Classification and Regression Trees, 1984): of all that are as good as the highest
within its standard error, the one that has learned longest. With many requests the error goes to zero, and
the highest score wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from molmopoint.errors import TrainingError
from molmopoint.training.packed_dataset import RunDataset
from molmopoint.training.run_folder import SAVING, differences

WEIGHTS = "model.safetensors"
"""The name under which Trainer looks for weights, whole or not."""

_NAME = re.compile(r"checkpoint-(\d+)")

_WRITING_FAILS = (OSError, RuntimeError, SafetensorError)
"""What a full disk looks like: torch and safetensors have errors of their own for it."""


def checkpoint_folder(out: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return out / f"checkpoint-{step:06d}"


def complete_checkpoints(out: Path) -> dict[int, Path]:
    """Step -> folder, in ascending order."""
    if not out.is_dir():
        return {}
    found = {}
    for path in out.iterdir():
        if match := _NAME.fullmatch(path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def newest_checkpoint(out: Path) -> Path | None:
    """The newest complete one, None if there is none."""
    return next(reversed(complete_checkpoints(out).values()), None)


def write_whole(
    target: Path,
    fill: Callable[[Path], Any],
    *,
    inside: str,
    main: bool,
    all_agree: Callable[[bool], bool],
) -> None:
    """Lets every process write into a folder beside the target, and gives that its name when all are done.

    Args:
        target: the folder; one of this name is replaced.
        fill: gets a folder and writes into its folder `inside`, which becomes the target.
        inside: that name.
        main: whether this process makes, renames and removes folders.
        all_agree: waits for all processes and returns whether all of them said True.

    Raises:
        TrainingError: a process could not write; what it wrote is removed.
    """
    beside = target.with_name(SAVING + target.name)
    failure: Exception | None = None
    try:
        if main:
            shutil.rmtree(beside, ignore_errors=True)
            (beside / inside).mkdir(parents=True)
        if all_agree(True):
            fill(beside)
    except _WRITING_FAILS as error:
        failure = error

    if not all_agree(failure is None):
        if main:
            shutil.rmtree(beside, ignore_errors=True)
        raise _not_written(target, failure) from failure
    if main:
        old = beside / "old"
        if target.exists():
            target.replace(old)
        (beside / inside).replace(target)
        shutil.rmtree(beside, ignore_errors=True)
    all_agree(True)  # nobody goes on before it is there


def _not_written(target: Path, failure: Exception | None) -> TrainingError:
    try:
        free = f"{shutil.disk_usage(target.parent).free / 2**30:.1f} GiB are free there"
    except OSError as error:
        free = f"the free space is unknown ({os.strerror(error.errno or 0)})"
    newest = newest_checkpoint(target.parent)
    start = "the start" if newest is None else newest.name
    return TrainingError(
        f"expected to write {target.name} into {target.parent}, got "
        f"{failure or 'an error in another process'}; {free}; make room or "
        f"choose another folder, then give the same command again: it goes on from {start}, which is "
        "untouched"
    )


def prune(out: Path, keep: int, best: int | None) -> None:
    """Removes all but the newest `keep` checkpoints and that of the step `best`; hidden first, so that none
    is half there.
    """
    found = complete_checkpoints(out)
    old_steps = list(found)[: -max(keep, 1)]
    for step in old_steps:
        if step != best:
            hidden = found[step].with_name(SAVING + found[step].name)
            found[step].replace(hidden)
            shutil.rmtree(hidden, ignore_errors=True)


# Weights


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that train, and saved buffers, by name; tied ones once.

    Frozen matrices in fewer bits add scales and settings to the state of a model, which are neither.
    """
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    wanted |= {name for name, _ in model.named_buffers()}
    return {name: tensor for name, tensor in model.state_dict().items() if name in wanted}


def save_weights(model: nn.Module, folder: Path) -> None:
    """Writes what trains."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in trained_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Reads what trains into a model that was prepared for training as the saved one was.

    Raises:
        TrainingError: other tensors than those that train, or of another shape.
    """
    check_weights(model, folder)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=False)


def check_weights(model: nn.Module, folder: Path) -> None:
    """Refuses a checkpoint whose weights are not those of what trains.

    Raises:
        TrainingError: other tensors than those that train, or of another shape.
    """
    with safe_open(str(folder / WEIGHTS), "pt") as file:
        before = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    now = {name: tuple(tensor.shape) for name, tensor in trained_tensors(model).items()}
    if changed := differences(before, now):
        more = " ..." if len(changed) > 5 else ""
        raise TrainingError(
            f"expected the trained tensors of this model in {folder.name}, got others: "
            f"{'; '.join(changed[:5])}{more}; "
            "start from the same model, or choose another folder"
        )


@contextlib.contextmanager
def frozen_left_out(model: nn.Module) -> Iterator[None]:
    """While this lasts, a model that reads weights misses none: Trainer would name every one that does not
    train.

    `check_weights` has shown by then that all that trains is there.
    """

    def miss_nothing(_model: nn.Module, incompatible: Any) -> None:
        incompatible.missing_keys.clear()

    handle = model.register_load_state_dict_post_hook(miss_nothing)
    try:
        yield
    finally:
        handle.remove()


# Data and randomness


def save_position(dataset: RunDataset, folder: Path) -> None:
    """Writes where this process is in its data."""
    position = json.dumps(dataset.state_dict())
    (folder / f"position-{dataset.rank}.json").write_text(position, encoding="utf-8")


def load_position(dataset: RunDataset, folder: Path, num_workers: int) -> None:
    """Puts the data where the checkpoint is; with another number of processes or workers, what is left is
    dealt out anew.

    Raises:
        ProcessingError: a position in other data.
    """
    by_rank = {}
    for file in folder.glob("position-*.json"):
        rank = int(file.stem.partition("-")[2])
        by_rank[rank] = json.loads(file.read_text(encoding="utf-8"))
    states = [by_rank[rank] for rank in sorted(by_rank)]
    dataset.go_to(states, max(num_workers, 1))


@contextlib.contextmanager
def randomness_kept() -> Iterator[None]:
    """Puts every generator of this process back to where it was: Python's, numpy's, torch's, and that of its
    GPU.
    """
    python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if of_gpu is not None:
            torch.cuda.set_rng_state(of_gpu)


# The best one

ERROR = "_error"
"""What follows the name of a score in the name of its standard error."""


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; 0 for fewer than two, which tell nothing about it."""
    if len(values) < 2:
        return 0.0
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def best_step(history: Sequence[Mapping[str, Any]], name: str) -> tuple[int, float] | None:
    """The best step of a run and its score.

    Args:
        history: lines of the log; those that were scored have "step", the score, more is better, and maybe
            its standard error under `name + "_error"`, else 0.
        name: of the score.

    Returns:
        The newest step whose score is the highest less its standard error or more; of equal highest scores
        the newest counts. None if nothing was scored.
    """
    scored = [(line[name], line["step"], line.get(name + ERROR, 0.0)) for line in history if name in line]
    if not scored:
        return None
    highest, _, error = max(scored)
    return max((step, score) for score, step, _ in scored if score >= highest - error)
