"""The zoo: which weights exist, and the names tensors have in them."""

from molmopoint.checkpoints.registry import Score, ZooEntry, find, list_models, names, resolve
from molmopoint.key_map import from_released, to_released

__all__ = ["Score", "ZooEntry", "find", "from_released", "list_models", "names", "resolve", "to_released"]
