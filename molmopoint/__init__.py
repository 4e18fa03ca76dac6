"""Vision-language models that point with grounding tokens.

    pointer = molmopoint.load("nano")
    result = pointer.point(image, "the red circles")

Importing this package loads nothing. Touching a public name imports what it needs; the first touch of a
model, config or processor name also registers the Auto classes of transformers, and so does `register()`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from molmopoint.lazy import without_collecting
from molmopoint.version import __version__

if TYPE_CHECKING:
    from molmopoint import checkpoints, errors
    from molmopoint.backends.zoom import Zoom
    from molmopoint.config import MolmoPointConfig
    from molmopoint.eval import evaluate
    from molmopoint.modeling import MolmoPointForConditionalGeneration
    from molmopoint.pipeline import Pointer, PointingResult, load
    from molmopoint.points import Point, Points
    from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor
    from molmopoint.registration import register
    from molmopoint.reward import Judge, RewardModel, load_reward
    from molmopoint.segmentation import Mask, Masks, Segmenter, load_segmenter
    from molmopoint.serving.async_client import AsyncClient
    from molmopoint.serving.client import Client
    from molmopoint.tokens import NO_MORE_POINTS
    from molmopoint.tracks import Track, Tracks
    from molmopoint.training.finetune import finetune

__all__ = [
    "NO_MORE_POINTS",
    "AsyncClient",
    "Client",
    "Judge",
    "Mask",
    "Masks",
    "MolmoPointConfig",
    "MolmoPointForConditionalGeneration",
    "MolmoPointImageProcessor",
    "MolmoPointProcessor",
    "MolmoPointVideoProcessor",
    "Point",
    "Pointer",
    "PointingResult",
    "Points",
    "RewardModel",
    "Segmenter",
    "Track",
    "Tracks",
    "Zoom",
    "__version__",
    "checkpoints",
    "errors",
    "evaluate",
    "finetune",
    "load",
    "load_reward",
    "load_segmenter",
    "register",
]

_HOMES = {
    "AsyncClient": "molmopoint.serving.async_client",
    "Client": "molmopoint.serving.client",
    "Mask": "molmopoint.segmentation",
    "Masks": "molmopoint.segmentation",
    "NO_MORE_POINTS": "molmopoint.tokens",
    "Judge": "molmopoint.reward",
    "Point": "molmopoint.points",
    "Points": "molmopoint.points",
    "Track": "molmopoint.tracks",
    "Tracks": "molmopoint.tracks",
    "Pointer": "molmopoint.pipeline",
    "Zoom": "molmopoint.backends.zoom",
    "PointingResult": "molmopoint.pipeline",
    "RewardModel": "molmopoint.reward",
    "evaluate": "molmopoint.eval",
    "finetune": "molmopoint.training.finetune",
    "load": "molmopoint.pipeline",
    "load_reward": "molmopoint.reward",
    "Segmenter": "molmopoint.segmentation",
    "load_segmenter": "molmopoint.segmentation",
    "register": "molmopoint.registration",
}
_REGISTERED_HOMES = {
    "MolmoPointConfig": "molmopoint.config",
    "MolmoPointForConditionalGeneration": "molmopoint.modeling",
    "MolmoPointImageProcessor": "molmopoint.processing",
    "MolmoPointProcessor": "molmopoint.processing",
    "MolmoPointVideoProcessor": "molmopoint.processing",
}
_ROOMS = (
    "agents",
    "checkpoints",
    "data",
    "errors",
    "eval",
    "heads",
    "metrics",
    "pipeline",
    "processing",
    "reward",
    "segmentation",
    "serving",
    "training",
)


def __getattr__(name: str) -> Any:
    """Imports a public name or room when it is first used."""
    if name not in _ROOMS and name not in _REGISTERED_HOMES and name not in _HOMES:
        raise AttributeError(
            f"module 'molmopoint' has no attribute {name!r}; public names: {', '.join(__all__)}"
        )
    with without_collecting():
        if name in _ROOMS:
            return importlib.import_module(f"molmopoint.{name}")
        if name in _REGISTERED_HOMES:
            importlib.import_module("molmopoint.registration").register()
            home = _REGISTERED_HOMES[name]
        else:
            home = _HOMES[name]
        value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names and rooms, loaded or not."""
    return sorted({*globals(), *__all__, *_ROOMS})
