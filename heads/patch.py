"""Which image token holds the point, or that there are no more points.

Letters: B rows, Q queries per row, P image tokens per row, H text width, E pointing width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molmopoint.heads.rotary import float32_dots, rotate


def patch_scale(kind: str | float, num_patches: Tensor, embed_dim: int) -> Tensor | float:
    """Factor of the patch logits.

    Args:
        kind: "keys" = 1/sqrt(image tokens of the query's own example + 1), "dim" = 1/sqrt(E), or the factor
            itself.
        num_patches: (...) image tokens of that example.
        embed_dim: E.

    Returns:
        (...) float32 for "keys", else a number.
    """
    if kind == "keys":
        return (num_patches + 1).float().rsqrt()
    return embed_dim**-0.5 if kind == "dim" else float(kind)


class PatchHead(nn.Module):
    """Scores every image token of a row, and no-more-points after the last one.

    Queries carry the position of the previously selected patch, keys their own position. The no-more-points
    key is a learned vector that is not tied to any input and is never rotated.

    Args:
        hidden_size: H.
        embed_dim: E.
        rotary_theta: base of the rotary angles; None for no rotation.
    """

    def __init__(self, hidden_size: int, embed_dim: int, rotary_theta: float | None) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, embed_dim)
        self.key = nn.Linear(hidden_size, embed_dim)
        self.no_more_points = nn.Parameter(torch.zeros(embed_dim))
        self.rotary_theta = rotary_theta

    def keys(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Keys (..., E) of normed image tokens (..., H) at their positions (...) among the indexable tokens."""
        return rotate(self.key(tokens), positions, self.rotary_theta)

    def forward(self, states: Tensor, positions: Tensor, keys: Tensor) -> Tensor:
        """Unscaled, unmasked scores.

        Args:
            states: (B, Q, H) normed hidden states.
            positions: (B, Q) position of the previously selected patch, 0 if there is none.
            keys: (B, P, E) as made by `keys`.

        Returns:
            (B, Q, P + 1) float32; the last column is no-more-points.
        """
        queries = rotate(self.query(states), positions, self.rotary_theta)
        no_more = self.no_more_points.to(queries.dtype).expand(len(queries), 1, -1)
        return torch.cat(
            [float32_dots(queries, keys.to(queries.dtype)), float32_dots(queries, no_more)], dim=-1
        )
