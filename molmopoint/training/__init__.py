"""Training: from the rows a user writes to batches, and the loop around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.training.recipe import Recipe
    from molmopoint.training.recipe_files import load_recipe
    from molmopoint.training.sharding import mixed_precision, shard

__all__ = [
    "Recipe",
    "load_recipe",
    "mixed_precision",
    "shard",
]

_HOMES = {
    "Recipe": "recipe",
    "load_recipe": "recipe_files",
    "mixed_precision": "sharding",
    "shard": "sharding",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
