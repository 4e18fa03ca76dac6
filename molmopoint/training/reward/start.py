"""The backbone that a reward model starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from molmopoint.checkpoints import registry
from molmopoint.checkpoints.locating import locate
from molmopoint.molmo2 import is_molmo2
from molmopoint.processing import MolmoPointProcessor
from molmopoint.reward.files import load_processor
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import recipe_names
from molmopoint.training.start import load_network


def default_reward_recipe(model: str | Path) -> str:
    """The recipe of a model that is named without one: its own if there is one, else the published one."""
    entry = registry.find(str(model))
    own = "" if entry is None else f"{entry.name}-reward"
    return own if own in recipe_names() else "reward"


def load_reward_start(model: str | Path, recipe: Recipe) -> tuple[Any, MolmoPointProcessor]:
    """Backbone in training precision on the CPU, and its processor.

    Raises:
        CheckpointError: there is no such model, or it is of another family.
    """
    source, revision = locate(model)
    network = load_network(source, revision, recipe)
    return network, load_processor(source, is_molmo2(network.config), revision=revision)
