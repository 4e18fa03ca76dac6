"""The classes of transformers that can be a segmenter, and the picture half of one made for videos.

A SAM 2 for videos has all parts of the one for pictures, under the same names. So one set of weights in memory serves both: the
model for pictures is built without weights and given the other one's parts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from molmopoint.errors import CheckpointError


class Family(NamedTuple):
    """Names in transformers.

    Attributes:
        video: class of the model for videos.
        still: class of the model for pictures.
    """

    video: str
    still: str


FAMILIES = {"sam2": Family("Sam2VideoModel", "Sam2Model"), "edgetam": Family("EdgeTamVideoModel", "EdgeTamModel")}
"""By model type of the picture half; the one of the whole ends in `_video`."""

_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")


def family_of(model_type: str, source: str) -> Family:
    """The classes for a model type.

    Raises:
        CheckpointError: it is none of SAM 2.
    """
    family = FAMILIES.get(model_type.removesuffix("_video"))
    if family is None:
        raise CheckpointError(
            f"expected SAM 2, SAM 2.1 or EdgeTAM in {source!r}, got type {model_type!r}; use facebook/sam2.1-hiera-large, for example"
        )
    return family


def still_model_of(model: Any) -> Any:
    """The model for pictures: the model itself, or one that shares its weights.

    Raises:
        CheckpointError: the model is of another class.
    """
    import transformers

    kind = type(model).__name__
    for family in FAMILIES.values():
        if kind == family.still:
            return model
        if kind == family.video:
            return _half_of(model, getattr(transformers, family.still))
    known = ", ".join(name for family in FAMILIES.values() for name in family)
    raise CheckpointError(f"expected a model of {known}, got {kind}; molmopoint.load_segmenter loads one")


def _half_of(model: Any, still: Any) -> Any:
    """A model of class `still` made of the parts of the model for videos."""
    config = still.config_class(**{part: getattr(model.config, part).to_dict() for part in _PARTS})
    with torch.device("meta"):
        half = still(config)
    for name, _ in [*half.named_children(), *half.named_parameters(recurse=False)]:
        setattr(half, name, getattr(model, name))
    return half.eval()
