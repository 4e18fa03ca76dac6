"""Which cell of the chosen ViT patch holds the point."""

from __future__ import annotations

from torch import Tensor, nn


class LocationHead(nn.Module):
    """A fixed set of classes: cell ids run column first, `id = cells_per_side * column + row`.

    Args:
        hidden_size: H.
        num_locations: L, cells per ViT patch.
    """

    def __init__(self, hidden_size: int, num_locations: int) -> None:
        super().__init__()
        self.projection = nn.Linear(hidden_size, num_locations)

    def forward(self, states: Tensor) -> Tensor:
        """Scores (..., L) in float32, from hidden states (..., H)."""
        return self.projection(states).float()
