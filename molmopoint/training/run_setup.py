"""What a run finds before it starts: its processes, and what the model it starts from can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from molmopoint.errors import RecipeError
from molmopoint.training.data_files import Rows
from molmopoint.training.recipe import Recipe
from molmopoint.training.run_folder import RunFolder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def find_processes(recipe: Recipe, folder: Path) -> Any:
    """Processes and device, as torchrun or accelerate set them up."""
    try:
        from molmopoint.training.arguments import training_arguments

        return training_arguments(recipe, folder, 1)
    except ImportError as error:
        raise RecipeError(f'expected accelerate for training, got: {error}; pip install "molmopoint[train]"') from error


def scores_before(
    folder: RunFolder, score: Callable[[nn.Module], dict[str, float]] | None, network: nn.Module, main: bool
) -> dict[str, float]:
    """Scores of the model as it comes; a run that goes on reads them."""
    known = folder.read("before.json")
    if known is not None or score is None:
        return known or {}
    scores = score(network)
    if main:
        folder.write("before.json", scores)
    return scores


def name_of(rows: Rows) -> str:
    """The file's name without its folder."""
    return Path(rows).name if isinstance(rows, str | Path) else "a data set"


def in_words(when: str, scores: Mapping[str, float]) -> str:
    """Scores in a line."""
    return f"{when}: " + (", ".join(f"{name} {value:.3f}" for name, value in scores.items()) or "nothing is held out")
