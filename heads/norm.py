"""The norm in front of every pointing projection and of every block of the text model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm of the last axis, computed in float32, and times the gain.

    The text model of transformers casts back before the gain. Where both have one dtype this is one kernel,
    which rounds half precision once, after the gain; elsewhere it is done as there.

    Args:
        x: (..., H).
        weight: (H,) the gain.
        eps: added to the mean square.

    Returns:
        (..., H), in the dtype of `x` where the gain has it too.
    """
    is_uniform = x.dtype == weight.dtype
    if is_uniform and (x.dtype == torch.float32 or not torch.is_autocast_enabled(x.device.type)):
        return functional.rms_norm(x, (x.shape[-1],), weight, eps)
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * normed.to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32, with a gain.

    Args:
        hidden_size: width of the last axis.
        eps: added to the mean square.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., H) to (..., H) in the dtype of `x`."""
        return rms_norm(x, self.weight, self.eps)
