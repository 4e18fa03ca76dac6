"""Matrix products of a processor by oneDNN, which torch asks for half precision alone.

In float32 torch asks MKL, which on processors of AMD leaves half of their vector units idle, and is slow everywhere
for 2 to 15 rows: eight answers at a time would take three times as long as one. oneDNN reads the same weights as
they lie in memory, so that nothing is stored twice. What it computes differs in the last bits of float32.

Nothing changes on a GPU, in other dtypes, in training, in compiled graphs (whose compiler chooses for itself), and
for weights that are no plain tensors: stored in fewer bits, sharded, or adapted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def _find_product() -> Callable[..., Tensor] | None:
    """The product of oneDNN that takes weights as they are; None where this torch has none."""
    if not torch.backends.mkldnn.is_available():
        return None
    # Not public: the compiler of torch uses it, and its arguments may change.
    operator: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None:
        return None
    try:
        with torch.no_grad():
            tried = operator(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4), "none", [], "")
    except (RuntimeError, TypeError):
        return None
    return operator if torch.equal(tried, torch.full((2, 4), 4.0)) else None


_product = _find_product()


class Linear(nn.Linear):
    """The same layer; only who multiplies differs."""

    def forward(self, input: Tensor) -> Tensor:
        """Projects (..., in features) to (..., out features)."""
        if _product is not None and _may_ask(input, self.weight):
            return _product(input, self.weight, self.bias, "none", [], "")
        return functional.linear(input, self.weight, self.bias)


def _may_ask(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN may multiply these, without gradients."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(weight) in (nn.Parameter, Tensor)
        and type(x) is Tensor
        and x.is_cpu
        and weight.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


def multiply_faster(module: nn.Module) -> None:
    """Lets the plain linear layers in a module run as those of this file; parameters and names stay."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear
