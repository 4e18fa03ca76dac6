"""One call from a name to something that points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from molmopoint.backends import backend_class_of, reading
from molmopoint.checkpoints.locating import locate
from molmopoint.checkpoints.placing import place, silent_if_embedded
from molmopoint.pipeline.pointer import Pointer
from molmopoint.registration import register


def load(
    name_or_path: str | Path = "nano",
    *,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    max_pixels: int | None = None,
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
        max_pixels: width times height of a picture at most, as in `Pointer`.
        **kwargs: further arguments of `from_pretrained`, such as `quantization_config` or `local_files_only`.

    Raises:
        CheckpointError: there is no such model, the folder is incomplete, or its files do not fit each other.
    """
    dtype = dtype if dtype is not None else kwargs.pop("torch_dtype", None)  # its name until transformers 5
    register()  # so that transformers knows the model type while it picks the tokenizer
    source, revision = locate(name_or_path, revision)
    placement = place(device_map, dtype, revision=revision, attn_implementation=attn_implementation, **kwargs)
    family = backend_class_of(source, **placement.file_arguments)
    with silent_if_embedded(source), reading(source, f"a {family.title}", _advice(source)):
        family.check_config(source, **placement.file_arguments)
        processor = family.read_processor(source, **placement.file_arguments)
        model = family.read_model(source, placement.file_arguments, placement.arguments)
    if placement.move_to is not None:
        model.to(placement.move_to)
    return Pointer(model.eval(), processor, max_pixels=max_pixels)


def _advice(source: str) -> str:
    if Path(source).is_dir():
        return "; the folder needs the tokenizer and processor files beside the weights"
    return "; check the name and the connection, or pass a folder that holds the files"
