"""Where a model goes, and in which precision.

What is wrong with a name of a precision is told without torch, which takes seconds to import.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from molmopoint.checkpoints.registry import ROOM
from molmopoint.errors import CheckpointError
from molmopoint.remote_code import refuse_trust

if TYPE_CHECKING:
    import torch

DeviceMap: TypeAlias = Union[str, int, "torch.device", dict[str, Union[str, int, "torch.device"]], None]
"""One device, a strategy of transformers, or a device for each part of a model; None for the GPU if there is
one, else the CPU.
"""

_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of `device_map` that spread a model over devices."""

_FILE_ARGUMENTS = ("revision", "cache_dir", "force_download", "local_files_only", "token", "subfolder")


@dataclass(frozen=True)
class Placement:
    """How `from_pretrained` is called, and what is left to do afterwards.

    Attributes:
        arguments: of `from_pretrained`.
        move_to: the device the loaded model is moved to; None where transformers puts it in place.
    """

    arguments: dict[str, Any]
    move_to: torch.device | None

    @property
    def file_arguments(self) -> dict[str, Any]:
        """The arguments that say where files come from; the others are the model's."""
        return {name: self.arguments[name] for name in _FILE_ARGUMENTS if name in self.arguments}

    def by_way_of_the_cpu(self) -> Placement:
        """The same, but a model for one device is loaded on the CPU and moved there afterwards."""
        import torch

        device = self.arguments.get("device_map")
        if not isinstance(device, torch.device):
            return self
        others = {name: value for name, value in self.arguments.items() if name != "device_map"}
        return Placement(others, device)


def place(device_map: DeviceMap, dtype: torch.dtype | str | None, **arguments: Any) -> Placement:
    """The placement a user asked for: by default the GPU if there is one, else the CPU.

    Args:
        device_map: one device ("cuda:1"), or as in transformers ("auto", which needs accelerate).
        dtype: of the weights, as in transformers; bfloat16 on a GPU and float32 on the CPU if not given.
        **arguments: further arguments of `from_pretrained`; those that are None are left out.

    Raises:
        CheckpointError: no such device exists here, or `trust_remote_code` is true.
    """
    refuse_trust(arguments)
    device = single_device(device_map)
    given = {name: value for name, value in arguments.items() if value is not None}
    given["dtype"] = default_dtype(device) if dtype is None else named_dtype(dtype)
    if device is not None and not _loads_directly(device, given):
        return Placement(given, device)
    return Placement({**given, "device_map": device or device_map}, None)


@contextmanager
def silent_if_embedded(source: str) -> Iterator[None]:
    """Hides the progress bars of transformers while a model of this installation loads, which takes less than
    a second.

    Args:
        source: folder or hub id.
    """
    from transformers.utils import logging

    if not Path(source).resolve().is_relative_to(ROOM) or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


_SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
"""Names that people use, and what torch calls them."""

_DTYPES = ("auto", "bfloat16", "float16", "float32", "float64")


def named_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    """The precision that is meant: a dtype, or "auto".

    Args:
        dtype: or its name, as torch writes it or as people do, such as "bf16".

    Raises:
        CheckpointError: there is no such precision; the nearest is named.
    """
    import torch

    if isinstance(dtype, torch.dtype):
        check_dtype(str(dtype))
        return dtype
    name = check_dtype(dtype)
    return name if name == "auto" else getattr(torch, name)


def check_dtype(dtype: str) -> str:
    """The name that torch has for a precision, or "auto".

    Raises:
        CheckpointError: there is no such precision; the nearest is named.
    """
    name = str(dtype).removeprefix("torch.")
    name = _SHORT.get(name, name)
    if name not in _DTYPES:
        near = difflib.get_close_matches(name, _DTYPES, n=1)
        hint = f"did you mean {near[0]}?" if near else "bfloat16 and float32 are usual"
        raise CheckpointError(f"expected a dtype out of {', '.join(_DTYPES)}, got {dtype!r}; {hint}")
    return name


def default_dtype(device: torch.device | None) -> torch.dtype:
    """bfloat16 on a GPU that has it (and where several devices share the model), float32 elsewhere.

    Args:
        device: the one device of the model; None if there are several.
    """
    import torch

    on_gpu = torch.cuda.is_available() and (device is None or device.type == "cuda")
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32


def single_device(device_map: DeviceMap) -> torch.device | None:
    """The one device that is meant: the GPU or the CPU if none is named; None for a strategy or a table of
    modules.

    Raises:
        CheckpointError: no such device exists here.
    """
    import torch

    if device_map is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device_map, dict):
        for place in device_map.values():
            if place != "disk":
                _device_here(place)
        return None
    if device_map in _STRATEGIES:
        return None
    return _device_here(device_map)


def _device_here(place: torch.device | str | int) -> torch.device:
    """A device of this machine.

    Raises:
        CheckpointError: no such device exists here.
    """
    import torch

    try:
        device = torch.device(place)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"expected a device such as 'cpu' or 'cuda:0', or a device map, got {place!r}"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(
            f"expected a device that is here, got {str(device)!r} without a GPU; pass 'cpu', or see "
            "`molmopoint doctor`"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(
            f"expected one of {torch.cuda.device_count()} GPUs, got {str(device)!r}; see `molmopoint doctor`"
        )
    if device.type not in ("cpu", "cuda"):
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError) as error:  # devices refuse differently
            raise CheckpointError(
                f"expected a device that is here, got {str(device)!r}, which this torch cannot use; pass 'cpu', "
                "or see `molmopoint doctor`"
            ) from error
    return device


def _loads_directly(device: torch.device, arguments: dict[str, Any]) -> bool:
    """Whether transformers should put the weights on the device itself; that needs accelerate, which is
    optional.
    """
    return "quantization_config" in arguments or (
        device.type != "cpu" and importlib.util.find_spec("accelerate") is not None
    )
