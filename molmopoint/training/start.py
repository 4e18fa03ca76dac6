"""The model that a fine-tuning starts from, and what of it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from molmopoint.checkpoints import registry
from molmopoint.checkpoints.locating import family_of, locate
from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing import Molmo2PointingProcessor, MolmoPointProcessor
from molmopoint.registration import register
from molmopoint.training.families import Family, GroundingFamily
from molmopoint.training.lora import quantised
from molmopoint.training.molmo2 import Molmo2ForTraining
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import recipe_names
from molmopoint.training.text_coordinates import TextFamily

EAGER_TOKENS = 2048
"""Longest packed row for plain attention on a processor: longer ones would need too much memory for their scores."""


def default_recipe(model: str | Path) -> str:
    """The recipe of a model that is named without one: its own if the zoo name is a recipe, else "lora"."""
    entry = registry.find(str(model))
    return entry.name if entry is not None and entry.name in recipe_names() else "lora"


def load_start(model: str | Path, recipe: Recipe) -> tuple[Any, Family]:
    """Model in training precision on the CPU, and its family with the processor.

    Args:
        model: zoo name, hub id or folder.
        recipe: says the crops per picture and whether weights are quantised.

    Raises:
        CheckpointError: there is no such model, it is of another family, or its tokenizer lacks the special tokens.
    """
    register()
    source, revision = locate(model)
    family = family_of(source, revision=revision)
    try:
        at: dict[str, Any] = {"revision": revision}
        settings: dict[str, Any] = {**at, "dtype": torch.float32, **quantised(recipe)}
        if family == "molmo2":
            text = Molmo2PointingProcessor.from_pretrained(source, **at)
            return Molmo2ForTraining.from_pretrained(source, **settings), TextFamily(text, recipe.data.crops_per_image)
        processor = MolmoPointProcessor.from_pretrained(source, **at)
        loaded = MolmoPointForConditionalGeneration.from_pretrained(source, attn_implementation=attention_of(recipe), **settings)
    except MolmoPointError as error:
        raise CheckpointError(f"expected a model to fine-tune at {source!r}, got: {error}") from error
    except (OSError, KeyError, ValueError) as error:  # how transformers says that files are missing or do not fit
        reason = str(error).strip().split("\n", 1)[0]
        remedy = "the folder needs weights, tokenizer and processor"
        raise CheckpointError(f"expected a whole model at {source!r}, got: {reason}; {remedy}") from error
    return loaded, GroundingFamily(processor, recipe.data.crops_per_image)


def attention_of(recipe: Recipe) -> str:
    """The attention to train with: SDPA, but on a processor and short rows the plain one, whose backward pass is quicker there.

    Measured with the embedded model, rows of 161 tokens and bfloat16 on one core: backward 0.26 s with SDPA, 0.16 s without.
    """
    return "sdpa" if torch.accelerator.is_available() or recipe.data.max_tokens > EAGER_TOKENS else "eager"
