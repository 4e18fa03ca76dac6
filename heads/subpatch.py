"""Which of the ViT patches inside the chosen image token holds the point.

Letters: N choices, K slots per image token, H text width, F width of the tapped ViT features, E pointing
width.
"""

from __future__ import annotations

from torch import Tensor, nn

from molmopoint.heads.rotary import float32_dots


class SubpatchHead(nn.Module):
    """Scores the slots of one image token by the raw ViT features pooled into it.

    Keys are projected for the chosen image tokens only, never for the whole picture.

    Args:
        hidden_size: H.
        vit_feature_dim: F.
        embed_dim: E.
    """

    def __init__(self, hidden_size: int, vit_feature_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, embed_dim)
        self.key = nn.Linear(vit_feature_dim, embed_dim)
        self.scale = embed_dim**-0.5

    def forward(self, states: Tensor, slot_features: Tensor) -> Tensor:
        """Scores (N, K) in float32, from normed hidden states (N, H) and ViT features (N, K, F) of the chosen
        tokens.
        """
        keys = self.key(slot_features)
        return float32_dots(self.query(states).to(keys.dtype).unsqueeze(1), keys).squeeze(1) * self.scale
