"""Host memory that a GPU reads where it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from vllm.utils.platform_utils import is_uva_available
from vllm.utils.torch_utils import get_accelerator_view_from_cpu_tensor


def host_buffer(device: torch.device) -> Callable[[tuple[int, ...], torch.dtype], Tensor]:
    """What makes tensors of zeros: in pinned host memory that kernels read and write, where that is possible,
    else on the device.
    """

    def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if not torch.Size(shape).numel():
            return torch.zeros(shape, dtype=dtype, device=device)
        host = torch.zeros(shape, dtype=dtype, pin_memory=True)
        view = get_accelerator_view_from_cpu_tensor(host)
        view.host = host  # type: ignore[attr-defined]  # lives as long as the view
        return view

    def plain(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return pinned if device.type != "cpu" and is_uva_available() else plain
