"""One number per vector: how good an answer is.

Letters: H width of the text model; the input of the head is H or 2 H wide.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["silu", "selu", "gelu", "relu", "tanh"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}

INITIAL_STD = 0.01
"""Of the weights of a new head: all its scores are close to zero, so that every answer starts with the same
chance.
"""


class ValueHead(nn.Module):
    """Turns vectors into scores, always in float32: scores of good answers differ by less than bfloat16 can
    tell apart.

    Args:
        in_features: width of the vectors.
        hidden_features: width of the hidden layer; None for a plain linear head.
        activation: between the two layers.
        scale: factor of the scores, 1/sqrt(H) in the published model.

    Source: arXiv 2604.10966 and its public code, which runs the head in the dtype of the backbone; we do not.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = 1024,
        activation: Activation = "silu",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        if hidden_features is None:
            self.layers = nn.Sequential(nn.Linear(in_features, 1))
        else:
            middle = ACTIVATIONS[activation]()
            self.layers = nn.Sequential(
                nn.Linear(in_features, hidden_features), middle, nn.Linear(hidden_features, 1)
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gives weights a normal distribution around zero; biases are zero."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=INITIAL_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Scores (...) float32 of vectors (..., in_features)."""
        with torch.autocast(vectors.device.type, enabled=False):
            hidden = vectors.float()
            for layer in self.layers:
                if isinstance(layer, nn.Linear):  # a model that was cast as a whole has cast its head as well
                    hidden = nn.functional.linear(hidden, layer.weight.float(), layer.bias.float())
                else:
                    hidden = layer(hidden)
            return hidden.squeeze(-1) * self.scale
