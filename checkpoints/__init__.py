"""The zoo: which weights exist, the names tensors have in them, and new models from pretrained parts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from molmopoint.checkpoints.registry import Score, ZooEntry, find, list_models, names, resolve

if TYPE_CHECKING:
    from molmopoint.checkpoints.assembly import assemble
    from molmopoint.checkpoints.grafting import graft
    from molmopoint.key_map import from_released, to_released

__all__ = [
    "Score",
    "ZooEntry",
    "assemble",
    "find",
    "from_released",
    "graft",
    "list_models",
    "names",
    "resolve",
    "to_released",
]


_HOMES = {
    "assemble": "molmopoint.checkpoints.assembly",
    "from_released": "molmopoint.key_map",
    "graft": "molmopoint.checkpoints.grafting",
    "to_released": "molmopoint.key_map",
}
"""Names that are imported when they are first used: they bring torch, timm or the whole network, and the zoo
needs none of them.
"""


def __getattr__(name: str) -> Any:
    """Imports one of `_HOMES`."""
    if name not in _HOMES:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}"
        )
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value
