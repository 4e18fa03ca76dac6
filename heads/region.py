"""The pointer head of GUI-Actor: how much each image token is meant by a pointer token.

Source: arXiv 2506.03143; the tensors have its names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ATTENTION_HEADS = 8
_DROPOUT = 0.1


class RegionHead(nn.Module):
    """Scores image tokens for pointer states, after image tokens have looked at each other.

    Letters: P image tokens of one picture, Q pointer tokens, H width of the text model.

    Args:
        width: H, a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection_enc = _projection(width)
        self.projection_dec = _projection(width)
        self.self_attention = nn.MultiheadAttention(
            width, ATTENTION_HEADS, dropout=_DROPOUT, batch_first=True
        )
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, seen: Tensor, states: Tensor) -> Tensor:
        """Logits of the image tokens for each pointer.

        Args:
            seen: (P, H) features of one picture as they enter the text model.
            states: (Q, H) of the text model at the pointers, behind its last norm.

        Returns:
            (Q, P) float32; their softmax over the image tokens is the score map.
        """
        picture = seen[None]  # (1, P, H)
        mixed, _ = self.self_attention(picture, picture, picture, need_weights=False)
        context = self.layer_norm(picture + self.dropout(mixed))[0]  # (P, H)
        keys = self.projection_enc(context)
        queries = self.projection_dec(states)
        return torch.matmul(queries, keys.T).float() / math.sqrt(seen.shape[-1])


def _projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
