"""Which family a model belongs to."""

from __future__ import annotations

from typing import Any

from molmopoint.errors import CheckpointError
from molmopoint.pipeline.family import ModelFamily
from molmopoint.pipeline.grounding import GroundingFamily
from molmopoint.pipeline.molmo2 import Molmo2Family
from molmopoint.processing import MolmoPointProcessor


def family_of(model: Any, processor: MolmoPointProcessor) -> ModelFamily:
    """How the model is used, by the type its config states.

    Raises:
        CheckpointError: the processor is that of another family, or does not fit the model.
    """
    as_text = model.config.model_type == "molmo2"
    if not isinstance(processor, MolmoPointProcessor) or processor.points_are_text != as_text:
        wanted = "Molmo2PointingProcessor" if as_text else "MolmoPointProcessor"
        raise CheckpointError(f"expected a {wanted} for a model of type {model.config.model_type}, got {type(processor).__name__}")
    return Molmo2Family(model, processor) if as_text else GroundingFamily(model, processor)
