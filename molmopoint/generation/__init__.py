"""Greedy decoding and sampling that can only produce answers the grammar allows."""

from molmopoint.generation.loop import GroundedGenerationMixin
from molmopoint.generation.output import GroundedGenerateOutput

__all__ = ["GroundedGenerateOutput", "GroundedGenerationMixin"]
