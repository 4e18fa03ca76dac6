"""Weights that no pretrained network brings: connector, pointing heads, and the additional rows of the
tables.

Source: MolmoPoint's training code: N(0, 0.02) for weights and rows, zero for biases and the no-more-points
vector, one for norms. Released code leaves additional output rows of untied models to chance; here they are
drawn like the input rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from molmopoint.checkpoints.llm_text import EMBEDDING, OUTPUT
from molmopoint.config import MolmoPointConfig
from molmopoint.modeling import MolmoPointForConditionalGeneration


def complete(
    tensors: Mapping[str, Tensor], config: MolmoPointConfig, seed: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """All weights of a model: those of its parts as they are, the others new. The same seed draws the same.

    Args:
        tensors: native name -> tensor of the pretrained parts; tables without their additional rows.
        config: of the model.
        seed: of the draw.
        dtype: of the result.
    """
    with torch.device("meta"):
        shapes = {
            name: parameter.shape
            for name, parameter in MolmoPointForConditionalGeneration(config).named_parameters()
        }
    # Always drawn in float32, so that a seed means the same weights in every dtype.
    generator = torch.Generator().manual_seed(seed)
    std = config.initializer_range
    whole = dict(tensors)
    for name, shape in shapes.items():
        if name in (EMBEDDING, OUTPUT):
            rows = torch.randn(config.text_config.additional_vocab_size, shape[1], generator=generator) * std
            whole[name] = torch.cat([tensors[name].to("cpu", dtype), rows.to(dtype)])
        elif name not in whole:
            whole[name] = _new(name, shape, std, generator)
    return {name: tensor.to("cpu", dtype) for name, tensor in whole.items()}


def _new(name: str, shape: torch.Size, std: float, generator: torch.Generator) -> Tensor:
    if name.endswith((".bias", ".no_more_points")):
        return torch.zeros(shape)
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    return torch.randn(shape, generator=generator) * std
