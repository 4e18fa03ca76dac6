"""One call from a name to something that points."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch

from molmopoint.checkpoints import registry
from molmopoint.errors import CheckpointError
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline.pointer import Pointer
from molmopoint.processing import MolmoPointProcessor


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
        dtype: of the weights, as in transformers ("auto": as stored). By default bfloat16 on an accelerator that has it,
            and float32 elsewhere.
        device_map: as in transformers, or one device ("cuda:1"). By default the accelerator if there is one, else the CPU.
        revision: branch, tag or commit on the hub.
        attn_implementation: as in transformers; SDPA by default.
        **kwargs: further arguments of `from_pretrained`, such as `quantization_config` or `local_files_only`.

    Raises:
        CheckpointError: there is no such model, the folder is incomplete, or its files do not fit each other.
    """
    source, found_revision = locate(name_or_path, revision)
    device_map = device_map if device_map is not None else default_device()
    arguments = {**kwargs, **({"revision": found_revision} if found_revision else {})}
    if attn_implementation is not None:
        arguments["attn_implementation"] = attn_implementation
    try:
        processor = MolmoPointProcessor.from_pretrained(source, **_processor_arguments(arguments))
        model = MolmoPointForConditionalGeneration.from_pretrained(
            source, dtype=dtype if dtype is not None else default_dtype(device_map), device_map=device_map, **arguments
        )
    except OSError as error:
        raise CheckpointError(f"expected a MolmoPoint model at {str(source)!r}, got: {_first_line(error)}{_advice(source)}") from error
    return Pointer(model.eval(), processor)


def locate(name_or_path: str | Path, revision: str | None = None) -> tuple[str, str | None]:
    """Folder or hub id, and revision, of what a user named.

    Raises:
        CheckpointError: the name is no zoo entry, folder or hub id; near matches are named.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if isinstance(name_or_path, Path) or folder.is_dir() or name.startswith((".", "~")) or folder.is_absolute():
        _check_folder(folder)
        return str(folder), None
    entry = registry.find(name)
    if entry is not None:
        return entry.source, revision or entry.revision
    if name.count("/") == 1 and all(name.split("/")):
        return name, revision
    names = registry.names()
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the zoo has {', '.join(names)}"
    raise CheckpointError(f"expected a name of the zoo, a hub id (owner/name) or a folder, got {name!r}; {hint}")


def default_device() -> str:
    """The first accelerator, or the CPU. Apple's counts only if asked for: its sums differ in the last digits."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device_map: Any) -> torch.dtype:
    """bfloat16 where it is fast, float32 elsewhere; half-precision files are widened on the CPU."""
    on_cpu = isinstance(device_map, (str, torch.device)) and torch.device(device_map).type != "cuda" if _is_device(device_map) else False
    if on_cpu or not torch.cuda.is_available() or not torch.cuda.is_bf16_supported():
        return torch.float32
    return torch.bfloat16


def _is_device(device_map: Any) -> bool:
    """Whether a device map is one device and not a strategy such as "auto" or a table of modules."""
    return isinstance(device_map, torch.device) or (
        isinstance(device_map, str) and device_map not in ("auto", "balanced", "balanced_low_0", "sequential")
    )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"expected a model folder at {str(folder)!r}, found {'a file' if folder.exists() else 'nothing'} there")
    missing = [name for name in ("config.json",) if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise CheckpointError(
            f"expected a model folder with config.json and safetensors weights, got {str(folder)!r} without {' and '.join(missing)}; "
            "pass the folder that `save_pretrained` wrote"
        )


def _processor_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that say where files come from; the others are the model's."""
    names = ("revision", "cache_dir", "force_download", "local_files_only", "token", "subfolder")
    return {name: arguments[name] for name in names if name in arguments}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _advice(source: str) -> str:
    if Path(source).is_dir():
        return "; the folder needs the tokenizer and processor files beside the weights"
    return "; check the name and the connection, or pass a folder that holds the files"
