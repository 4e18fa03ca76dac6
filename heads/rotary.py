"""One-dimensional rotary positions for patch queries and keys, and the float32 dot product they meet in."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, positions: Tensor, theta: float | None) -> Tensor:
    """Rotates vectors by their position: pairs are `(i, i + E/2)`, the angle of pair i is `position * theta
    ** (-2i/E)`.

    The angles are made on the fly: a stored table would come out of a meta-device load uninitialised.

    Args:
        x: (..., E).
        positions: (...) integers.
        theta: base of the angles; None leaves `x` as it is.

    Returns:
        (..., E) in the dtype of `x`; the rotation itself is done in float32.
    """
    if theta is None:
        return x
    width = x.shape[-1]
    frequencies = theta ** (torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / -width)
    angles = positions.unsqueeze(-1).float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def float32_dots(queries: Tensor, keys: Tensor) -> Tensor:
    """Dot products of (B, Q, E) queries with (B, P, E) keys, (B, Q, P) in float32.

    Half-precision keys stay as they are where the device accumulates and returns float32 itself: no copy of
    the keys per step. bfloat16 results would tie neighbouring patches.
    """
    keys = keys.transpose(1, 2)
    if queries.is_cuda and queries.dtype != torch.float32 and not torch.is_grad_enabled():
        return torch.bmm(queries, keys, out_dtype=torch.float32)
    if not torch.is_autocast_enabled(queries.device.type):
        return torch.bmm(queries.float(), keys.float())
    with torch.autocast(queries.device.type, enabled=False):
        return torch.bmm(queries.float(), keys.float())
