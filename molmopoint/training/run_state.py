"""What a checkpoint holds beside optimiser and schedule: trained weights, the position in the data, and which run it is of.

| file | content |
| --- | --- |
| trained.safetensors | parameters that train, and buffers; the frozen ones come with the model the run was started from |
| position-RANK.json | `state_dict` of the data of each process |
| run.json | what the run was told; another recipe or other data is another run |

All random generators of a process at once: Python, numpy, torch, and its accelerator.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from molmopoint.errors import TrainingError
from molmopoint.training.packed_dataset import RunDataset
from molmopoint.training.recipe import Recipe
from molmopoint.training.run_folder import differences


def capture_randomness() -> dict[str, Any]:
    """The state of every generator."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_randomness(kept: dict[str, Any]) -> None:
    """Puts every generator back to where `capture_randomness` was called."""
    random.setstate(kept["python"])
    np.random.set_state(kept["numpy"])
    torch.set_rng_state(kept["torch"])
    if kept["cuda"] is not None:
        torch.cuda.set_rng_state(kept["cuda"])


WEIGHTS, RUN = "trained.safetensors", "run.json"

_FREE = ("logging", "scoring", "saving", "compile", "gradient_checkpointing")
"""Parts of a recipe that may change when a run goes on."""


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that train, and saved buffers, by name; tied ones once."""
    names = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    shared = {name for name, _ in model.named_parameters(remove_duplicate=False)} - {name for name, _ in model.named_parameters()}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in names | shared}


def save_weights(model: nn.Module, folder: Path) -> None:
    """Writes what trains."""
    save_file({name: tensor.detach().contiguous() for name, tensor in trained_tensors(model).items()}, folder / WEIGHTS)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Reads what trains into a model that was prepared for training as the saved one was.

    Raises:
        TrainingError: other tensors than those that train, or of another shape.
    """
    saved = load_file(folder / WEIGHTS)
    wanted = trained_tensors(model)
    shapes = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (saved, wanted))
    if changed := differences(*shapes):
        raise TrainingError(
            f"expected the trained tensors of this model in {folder.name}, got others: {'; '.join(changed[:5])}"
            f"{' ...' if len(changed) > 5 else ''}; start from the same model, or choose another folder"
        )
    model.load_state_dict(saved, strict=False)


def run_identity(recipe: Recipe, dataset: RunDataset, steps: int, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same when a run goes on; goes into JSON."""
    told = {name: value for name, value in asdict(recipe).items() if name not in _FREE}
    told["data"].pop("workers")
    return json.loads(json.dumps({"recipe": told, "steps": steps, "data": dataset.fingerprint(), **identity}))


def check_identity(folder: Path, now: Mapping[str, Any]) -> None:
    """Whether a checkpoint is one of this run.

    Raises:
        TrainingError: it was made with another recipe or other data.
    """
    if changed := differences(json.loads((folder / RUN).read_text(encoding="utf-8"))["identity"], now):
        raise TrainingError(
            f"expected the run that {folder} belongs to, got another one: {'; '.join(changed)}; "
            "go on with what it was started with, or choose another folder"
        )


def load_position(dataset: RunDataset, folder: Path, num_workers: int) -> None:
    """Puts the data where the checkpoint is; with another number of processes or workers, what is left is dealt out anew.

    Raises:
        ProcessingError: a position in other data.
    """
    files = sorted(folder.glob("position-*.json"), key=lambda file: int(file.stem.partition("-")[2]))
    states = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    dataset.go_to(states, max(num_workers, 1))
