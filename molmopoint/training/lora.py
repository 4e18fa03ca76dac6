"""Low-rank adapters on the text model as a recipe asks for them; everything else trains in full."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import BitsAndBytesConfig

from molmopoint.adapters import put_adapters
from molmopoint.errors import RecipeError
from molmopoint.training.recipe import Lora, Recipe

_NOT_TEXT = ("vision_tower", "connector", "build_vit_embedding", "point_predictor", "lm_head", "vision_adapter", "vision_model")
"""Modules that train in full, so they are never quantised."""


def add_adapters(model: nn.Module, settings: Lora) -> None:
    """Puts adapters on the linear layers of the text model that `settings.targets` names; at first they change nothing.

    Raises:
        RecipeError: peft is missing, or the text model has no layer of such a name.
    """
    put_adapters(model, settings.targets, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout)


def quantised(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `from_pretrained` that store the matrices of the text model in fewer bits; empty without such a recipe.

    Raises:
        RecipeError: bitsandbytes or a GPU is missing.
    """
    if recipe.lora is None or recipe.lora.bits == 16:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "pip install bitsandbytes, or set lora.bits=16"
        raise RecipeError(f"expected bitsandbytes for lora.bits={recipe.lora.bits}, got no such package; {remedy}")
    if not torch.cuda.is_available():
        raise RecipeError(f"expected a GPU for lora.bits={recipe.lora.bits}, got none; use the recipe lora, or set lora.bits=16")
    four = recipe.lora.bits == 4
    config = BitsAndBytesConfig(
        load_in_4bit=four,
        load_in_8bit=not four,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(_NOT_TEXT),
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def gather_trained(model: nn.Module) -> dict[str, Tensor]:
    """What trains, whole and on the CPU; every process that holds a shard must call it."""
    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu() for name, tensor in trained.items()}


def copy_trained(trained: Mapping[str, Tensor], target: nn.Module) -> None:
    """Copies what trained to a model of the same make, whose other weights are neither sharded nor rounded."""
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if name in trained:
                parameter.copy_(trained[name])
