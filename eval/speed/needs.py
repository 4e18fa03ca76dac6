"""What a model needs in memory, computed from its config: weights, keys and values, what it sees.

    need = memory_need(MolmoPointConfig(), quantize="nf4", crops=25, tokens=4096)
    print(need.total / 1e9)

The formula is checked by tests against models that are loaded, and by `python -m molmopoint.eval.speed full`.
What a pass computes on its way is not in it: some hundred megabytes, more for long prompts, and some gigabytes
for clips of hundreds of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from molmopoint.checkpoints.quantising import matrices
from molmopoint.config import MolmoPointConfig
from molmopoint.modeling import MolmoPointForConditionalGeneration

BITS = {"int8": 8.0, "int4": 4.25, "nf4": 4.127}
"""Bits per weight with scales: of a row in int8, of 128 weights in int4, of 64, themselves in 8 bits, in nf4."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes.

    Attributes:
        weights: of the model.
        keys_and_values: of all tokens of all rows.
        features: what is kept of crops or frames for the pointing heads.
    """

    weights: int
    keys_and_values: int
    features: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.keys_and_values + self.features


def memory_need(
    config: MolmoPointConfig,
    *,
    bytes_per_number: int = 2,
    quantize: str | None = None,
    crops: int = 0,
    tokens: int = 0,
    rows: int = 1,
) -> MemoryNeed:
    """Bytes that a model needs while it answers.

    Args:
        config: of the model.
        bytes_per_number: 2 in bfloat16, 4 in float32.
        quantize: form of the matrices of the text model, or None.
        crops: crops of pictures, or frames of a clip, of one row.
        tokens: of the prompt and the answer of one row.
        rows: that are answered together.
    """
    text, vision = config.text_config, config.vision_config
    kept, in_blocks = _parameters(config)
    bits = 8 * bytes_per_number if quantize is None else BITS[quantize]
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    sides: Any = vision.image_size
    height, width = sides
    patches = (height // vision.patch_size) * (width // vision.patch_size)
    return MemoryNeed(
        weights=kept * bytes_per_number + round(in_blocks * bits / 8),
        keys_and_values=rows * tokens * per_token * bytes_per_number,
        features=rows * crops * patches * config.vit_feature_dim * bytes_per_number,
    )


def _parameters(config: MolmoPointConfig) -> tuple[int, int]:
    """Parameters that stay as they are, and those of the matrices that can be stored in fewer bits."""
    with torch.device("meta"):
        model: nn.Module = MolmoPointForConditionalGeneration(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    in_blocks = sum(layer.weight.numel() for _, layer in matrices(model))
    return total - in_blocks, in_blocks
