"""One call from a name to something that points."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import Molmo2ForConditionalGeneration

from molmopoint.checkpoints.locating import family_of, locate, title_of
from molmopoint.checkpoints.placing import place, silent_if_embedded
from molmopoint.config import MolmoPointConfig
from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.load_checks import FILE_ERRORS, check_loading_info, verify_source
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline.pointer import Pointer
from molmopoint.processing import Molmo2PointingProcessor, MolmoPointProcessor
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
    family = family_of(source, **placement.file_arguments)
    read = _read_molmo2 if family == "molmo2" else _read_molmopoint
    try:
        with silent_if_embedded(source):
            model, processor = read(source, placement.file_arguments, placement.arguments)
    except MolmoPointError:
        raise
    except FILE_ERRORS as error:
        raise CheckpointError(f"expected a {title_of(family)} at {source!r}, got: {_first_line(error)}{_advice(source)}") from error
    if processor.chat_template is None:
        raise CheckpointError(f"expected a chat template at {source!r}, got none; copy chat_template.jinja from the released model")
    if placement.move_to is not None:
        model.to(placement.move_to)
    return Pointer(model.eval(), processor, max_pixels=max_pixels)


def _read_molmopoint(source: str, where: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, MolmoPointProcessor]:
    """Model and processor of a MolmoPoint folder or repository."""
    MolmoPointConfig.from_pretrained(source, **where)  # refuses what does not fit together before anything is built
    processor = MolmoPointProcessor.from_pretrained(source, **where)
    return MolmoPointForConditionalGeneration.from_pretrained(source, **settings), processor


def _read_molmo2(source: str, where: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, MolmoPointProcessor]:
    """The native model of a Molmo2 folder or repository, all of whose weights were there, and our processor of its files."""
    processor = Molmo2PointingProcessor.from_pretrained(source, **where)
    verify_source(source, **where)
    settings = {"ignore_mismatched_sizes": True, **settings, "use_safetensors": True, "output_loading_info": True}
    loaded = Molmo2ForConditionalGeneration.from_pretrained(source, trust_remote_code=False, **settings)
    model, info = cast(tuple[Any, dict[str, Any]], loaded)
    # Tensors that are left over are the native class's affair; it would fill missing ones at random.
    check_loading_info({**info, "unexpected_keys": ()}, source)
    return model, processor


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _advice(source: str) -> str:
    if Path(source).is_dir():
        return "; the folder needs the tokenizer and processor files beside the weights"
    return "; check the name and the connection, or pass a folder that holds the files"
