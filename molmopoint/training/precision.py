"""Which precision matrix products are made in: bfloat16 where the processor computes it, float32 where it
only imitates it.

Weights and optimiser stay float32 either way; this is about the products of a training step. A GPU that knows
bfloat16 is always quicker with it. Of processors only some are (AMX, avx512_bf16, the bfloat16 of newer ARM
cores): others convert every number back and forth, which took five times as long on the one it was measured
on. Lists of flags go out of date, so a processor is timed instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from molmopoint.training.recipe import Precision, Recipe

_SIDE = 384
"""Side of the timed matrices: large enough that the product is what takes the time, small enough for a few
milliseconds.
"""
_ROUNDS = 7
"""The quickest of so many products counts, for other programs may hold up some of them."""


def fastest_dtype(device: str | torch.device | None = None) -> torch.dtype:
    """bfloat16 or float32, whichever makes the quicker matrix products on a device.

    Args:
        device: by default the accelerator of this machine if there is one, else the processor.
    """
    return _fastest_of_kind(torch.device(device).type if device is not None else _default_kind())


def resolve_precision(precision: Precision, device: str | torch.device | None = None) -> torch.dtype:
    """The dtype of a name; "auto" means the fastest on the device.

    Raises:
        ValueError: no such name.
    """
    if precision == "auto":
        return fastest_dtype(device)
    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "float32":
        return torch.float32
    raise ValueError(f"expected one of 'auto', 'bfloat16', 'float32', got {precision!r}")


def settle_precision(recipe: Recipe) -> Recipe:
    """The recipe of a run, with the precision that "auto" means on this machine; bfloat16 for one that keeps
    weights in it.
    """
    if recipe.dtype != "auto":
        return recipe
    is_bfloat16 = recipe.bf16_weights or fastest_dtype() == torch.bfloat16
    dtype = "bfloat16" if is_bfloat16 else "float32"
    return replace(recipe, dtype=dtype)


def autocast(device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> torch.autocast:
    """A context in which matrix products are made in `dtype`, by default the fastest one; float32 leaves them
    as they are.
    """
    kind = torch.device(device).type
    chosen = fastest_dtype(kind) if dtype is None else dtype
    return torch.autocast(kind, chosen, enabled=chosen != torch.float32)


def bfloat16_speedup() -> float:
    """How many times quicker the processor multiplies matrices in bfloat16 than in float32, with the threads
    torch uses now.

    Returns 0 where it cannot multiply them in bfloat16 at all.
    """
    matrix = torch.linspace(-1, 1, _SIDE * _SIDE).view(_SIDE, _SIDE)
    rounded = matrix.to(torch.bfloat16)
    try:
        # One after the other in turns, so that a busy moment meets both.
        seconds = [
            (_seconds(matrix.matmul, matrix), _seconds(rounded.matmul, rounded)) for _ in range(_ROUNDS)
        ]
    except RuntimeError:
        return 0.0
    in_float32, in_bfloat16 = (min(column) for column in zip(*seconds, strict=True))
    return in_float32 / in_bfloat16


@cache
def _fastest_of_kind(kind: str) -> torch.dtype:
    if kind == "cpu":
        return torch.bfloat16 if bfloat16_speedup() > 1 else torch.float32
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if kind == "xpu":
        return torch.bfloat16 if torch.xpu.is_bf16_supported() else torch.float32
    return torch.float32


def _default_kind() -> str:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type


@torch.no_grad()
def _seconds(multiply: Callable[[Tensor], Tensor], matrix: Tensor) -> float:
    began = time.perf_counter()
    multiply(matrix)
    return time.perf_counter() - began
