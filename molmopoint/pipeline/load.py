"""One call from a name to something that points."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Molmo2ForConditionalGeneration

from molmopoint.checkpoints.locating import family_of, locate, title_of
from molmopoint.config import MolmoPointConfig
from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.load_checks import check_loading_info, verify_checkpoint_files
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline.pointer import Pointer
from molmopoint.processing import Molmo2PointingProcessor, MolmoPointProcessor
from molmopoint.registration import register

_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of `device_map` that spread a model over devices."""


def load(
    name_or_path: str | Path = "nano",
    *,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    **kwargs: Any,
) -> Pointer:
    """A model with its processor, ready to point.

    Args:
        name_or_path: a name of the zoo (see `molmopoint zoo`), an id on the hub such as "allenai/MolmoPoint-8B", or a folder.
        dtype: of the weights, as in transformers ("auto": as stored). By default bfloat16 on a GPU and float32 on the CPU.
        device_map: one device ("cuda:1"), or as in transformers ("auto", which needs accelerate). By default the GPU if
            there is one, else the CPU.
        revision: branch, tag or commit on the hub.
        attn_implementation: as in transformers; SDPA by default.
        **kwargs: further arguments of `from_pretrained`, such as `quantization_config` or `local_files_only`.

    Raises:
        CheckpointError: there is no such model, the folder is incomplete, or its files do not fit each other.
    """
    dtype = dtype if dtype is not None else kwargs.pop("torch_dtype", None)  # its name until transformers 5
    register()  # so that transformers knows the model type while it picks the tokenizer
    source, revision = locate(name_or_path, revision)
    device = _single_device(device_map)
    arguments = kwargs | _given(revision=revision, attn_implementation=attn_implementation)
    placement = {} if device is not None and not _loads_directly(device, arguments) else {"device_map": device or device_map}
    if dtype is None:
        dtype = default_dtype(device)
    family = family_of(source, **_file_arguments(arguments))
    read = _read_molmo2 if family == "molmo2" else _read_molmopoint
    try:
        model, processor = read(source, _file_arguments(arguments), {"dtype": dtype, **placement, **arguments})
    except MolmoPointError:
        raise
    except (OSError, ValueError, KeyError) as error:  # how transformers says that files are missing or do not fit
        raise CheckpointError(f"expected a {title_of(family)} at {source!r}, got: {_first_line(error)}{_advice(source)}") from error
    if processor.chat_template is None:
        raise CheckpointError(f"expected a chat template at {source!r}, got none; copy chat_template.jinja from the released model")
    if device is not None and not placement:
        model.to(device)
    return Pointer(model.eval(), processor)


def _read_molmopoint(source: str, where: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, MolmoPointProcessor]:
    """Model and processor of a MolmoPoint folder or repository."""
    MolmoPointConfig.from_pretrained(source, **where)  # refuses what does not fit together before anything is built
    processor = MolmoPointProcessor.from_pretrained(source, **where)
    return MolmoPointForConditionalGeneration.from_pretrained(source, **settings), processor


def _read_molmo2(source: str, where: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, MolmoPointProcessor]:
    """The native model of a Molmo2 folder or repository, all of whose weights were there, and our processor of its files."""
    processor = Molmo2PointingProcessor.from_pretrained(source, **where)
    if Path(source).is_dir() and "subfolder" not in where:
        verify_checkpoint_files(source)
    settings = {"use_safetensors": True, "ignore_mismatched_sizes": True, **settings, "output_loading_info": True}
    model, info = cast(tuple[Any, dict[str, Any]], Molmo2ForConditionalGeneration.from_pretrained(source, **settings))
    # Tensors that are left over are the native class's affair; it would fill missing ones at random.
    check_loading_info({**info, "unexpected_keys": ()}, source)
    return model, processor


def default_dtype(device: torch.device | None) -> torch.dtype:
    """bfloat16 on a GPU that has it (and where several devices share the model), float32 elsewhere.

    Args:
        device: the one device of the model; None if there are several.
    """
    on_gpu = torch.cuda.is_available() and (device is None or device.type == "cuda")
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32


def _single_device(device_map: Any) -> torch.device | None:
    """The one device that is meant: the GPU or the CPU if none is named; None for a strategy or a table of modules.

    Raises:
        CheckpointError: no such device exists here.
    """
    if device_map is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device_map, dict) or device_map in _STRATEGIES:
        return None
    try:
        device = torch.device(device_map)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"expected a device such as 'cpu' or 'cuda:0', or a device map, got {device_map!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"expected one of {torch.cuda.device_count()} GPUs, got {str(device)!r}; see `molmopoint doctor`")
    return device


def _loads_directly(device: torch.device, arguments: dict[str, Any]) -> bool:
    """Whether transformers should put the weights on the device itself; that needs accelerate, which is optional."""
    return "quantization_config" in arguments or (device.type != "cpu" and importlib.util.find_spec("accelerate") is not None)


def _file_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that say where files come from; the others are the model's."""
    names = ("revision", "cache_dir", "force_download", "local_files_only", "token", "subfolder")
    return {name: arguments[name] for name in names if name in arguments}


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _advice(source: str) -> str:
    if Path(source).is_dir():
        return "; the folder needs the tokenizer and processor files beside the weights"
    return "; check the name and the connection, or pass a folder that holds the files"
