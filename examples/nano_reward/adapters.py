"""Adapters that are added to their weights before these meet the tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from molmopoint.adapters import ADAPTER_NAME


def add_up_first(model: nn.Module) -> None:
    """Changes how the adapters of a model are computed, not what they are: x (W + s B A) instead of x W + s (x A) B.

    Adapters almost as wide as their layers, as here, cost more than the layers do; added up they cost nothing per token. There must be no
    dropout on their input.
    """
    for module in model.modules():
        layer: Any = module
        if hasattr(layer, "lora_A") and hasattr(layer, "base_layer"):
            layer.forward = partial(_forward, layer)


def _forward(layer: Any, x: Tensor) -> Tensor:
    down, up = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    with torch.autocast(x.device.type, enabled=False):
        weight = layer.base_layer.weight + layer.scaling[ADAPTER_NAME] * (up @ down)
    return functional.linear(x, weight, layer.base_layer.bias)
