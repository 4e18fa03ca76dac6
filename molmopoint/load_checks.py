"""Checks of weight files before they are read, and of what was read: a wrong model is never returned
silently.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers.utils.hub import cached_file

from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.files import is_file, is_folder

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
NAMES_SHOWN = 5

FILE_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    ImportError,
    RecursionError,
    StrictDataclassError,
)
"""How transformers says that files are missing, hold values of other types or out of range, do not fit each other,
nest too deeply, or need a package.
"""


def reason_of(error: BaseException) -> str:
    """What an error says, in one line; transformers names the field of a config first, and what is wrong below."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    count = 2 if isinstance(error, StrictDataclassError) else 1
    return " ".join(lines[:count]) or type(error).__name__


@contextmanager
def reading_part(source: str | os.PathLike[str], what: str) -> Iterator[None]:
    """What goes wrong while a part of a model is read, as a `CheckpointError`.

    Args:
        source: folder or hub id.
        what: is read from it, for the message: "a tokenizer".
    """
    try:
        yield
    except MolmoPointError:
        raise
    except (*FILE_ERRORS, RuntimeError, SafetensorError) as error:
        reason = reason_of(error)
        raise CheckpointError(
            f"expected {what} at {os.fspath(source)!r}, got: {reason}; check the name and the connection, "
            "or pass a folder with its files"
        ) from error


def refuse_torchao(quantization_config: Any) -> None:
    """Refuses torchao while a model is being loaded.

    Raises:
        CheckpointError: that is asked for.
    """
    method = getattr(quantization_config, "quant_method", None)
    if isinstance(quantization_config, Mapping):
        method = quantization_config.get("quant_method")
    if str(getattr(method, "value", method)) == "torchao":
        raise CheckpointError(
            "expected a quantization_config that can be applied while a model is loaded, got one of torchao, "
            "which keeps only the first part of tensors that are stored joined (keys, values and gates would "
            'be random); call molmopoint.load(..., quantize="int8"), or torchao.quantization.quantize_ on '
            "the loaded model"
        )


_HUB_ARGUMENTS = ("cache_dir", "local_files_only", "token", "revision", "subfolder")


def verify_source(source: str | os.PathLike[str], **where: Any) -> None:
    """Checks the weight files of a folder; of a repository on the hub, the names of shards in its index,
    before files are sought by them.

    Args:
        source: folder or hub id.
        **where: `subfolder`, `revision`, `cache_dir` and the like; other arguments of `from_pretrained` do
            not matter.

    Raises:
        CheckpointError: missing, truncated or foreign files; the message names them. Or torchao is to change
            the weights while they are loaded.
    """
    refuse_torchao(where.get("quantization_config"))
    if is_folder(Path(source)):
        return verify_checkpoint_files(Path(source) / (where.get("subfolder") or ""))
    hub = {name: where[name] for name in _HUB_ARGUMENTS if where.get(name) is not None}
    quietly = {
        f"_raise_exceptions_for_{kind}": False
        for kind in ("gated_repo", "missing_entries", "connection_errors")
    }
    index = cached_file(str(source), INDEX_FILE, **hub, **quietly)
    if index is not None:
        _shards(Path(index))
    return None


def verify_checkpoint_files(folder: str | Path) -> None:
    """Checks that the weight files of a folder are there, whole, and hold what the index says. Reads headers
    only.

    Args:
        folder: a local folder with one safetensors file, or shards and their index.

    Raises:
        CheckpointError: missing, truncated or foreign files; the message names them.
    """
    folder = Path(folder)
    index = folder / INDEX_FILE
    if not is_file(index):
        if not is_file(folder / WEIGHTS_FILE):
            raise CheckpointError(
                f"expected {WEIGHTS_FILE} or {INDEX_FILE} in {folder}, got neither{_pickled(folder)}; "
                "download or save the model again"
            )
        _stored_names(folder / WEIGHTS_FILE)
        return
    shards = _shards(index)
    absent = sorted(shard for shard in shards if not (folder / shard).is_file())
    if absent:
        raise CheckpointError(
            f"expected {len(shards)} shards in {folder}, got all but {_some(absent)}; download them again"
        )
    for shard, names in shards.items():
        lost = names - _stored_names(folder / shard)
        if lost:
            raise CheckpointError(
                f"expected {_some(sorted(lost))} in {folder / shard} as {INDEX_FILE} says, got a file "
                "without; download both again"
            )


def stored_tensors(source: str | os.PathLike[str], **where: Any) -> set[str] | None:
    """Names of the tensors of a checkpoint, from headers and indices alone; None where only the weights of a
    repository on the hub would tell.

    Args:
        source: folder or hub id.
        **where: as in `verify_source`.

    Raises:
        CheckpointError: missing, truncated or foreign files.
    """
    folder = Path(source) / (where.get("subfolder") or "")
    if is_folder(Path(source)):
        index = folder / INDEX_FILE
        if not is_file(index):
            return _stored_names(folder / WEIGHTS_FILE)
    else:
        hub = {name: where[name] for name in _HUB_ARGUMENTS if where.get(name) is not None}
        found = cached_file(str(source), INDEX_FILE, **hub, _raise_exceptions_for_missing_entries=False)
        if found is None:
            return None
        index = Path(found)
    return set[str]().union(*_shards(index).values())


def check_head(source: str | os.PathLike[str], wanted: Iterable[str], title: str, **where: Any) -> None:
    """Refuses a checkpoint with half of a head, or with none, before its weights are read; what only the weights of a
    repository on the hub would tell is left for `check_loading_info`.

    Args:
        source: folder or hub id.
        wanted: names of the head's tensors.
        title: what messages call the head.
        **where: as in `verify_source`.

    Raises:
        CheckpointError: as said; tensors that are missing are named.
    """
    stored = stored_tensors(source, **where)
    if stored is None:
        return
    names = set(wanted)
    missing = sorted(names - stored)
    if missing:
        raise CheckpointError(
            f"expected the {len(names)} tensors of {title} at {str(source)!r}, got {len(names) - len(missing)} "
            f"of them, without {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}; download it again, "
            "or take a model that has the head"
        )


def check_loading_info(info: Mapping[str, Iterable[Any]], source: str | Path = "the checkpoint") -> None:
    """Checks what transformers reports with `output_loading_info=True`.

    Args:
        info: "missing_keys", "unexpected_keys", "mismatched_keys" (name, stored shape, expected shape) and
            "error_msgs".
        source: where the weights came from, for the message.

    Raises:
        CheckpointError: anything was missing, left over, or of the wrong shape; the message names the
            tensors.
    """
    problems = [
        f"{_some(sorted(map(str, info[key])))} {what}" for key, what in _PROBLEMS.items() if info.get(key)
    ]
    mismatched = sorted(info.get("mismatched_keys", ()))
    if mismatched:
        shapes = [f"{name} {tuple(stored)} instead of {tuple(wanted)}" for name, stored, wanted in mismatched]
        problems.append(f"{_some(shapes)} of another shape")
    if problems:
        raise CheckpointError(
            f"expected the tensors the config describes in {source}, got: {'; '.join(problems)}; "
            "use the config that was saved with these weights"
        )


_PROBLEMS = {"missing_keys": "missing", "unexpected_keys": "unknown", "error_msgs": "reported"}


def _shards(index: Path) -> dict[str, set[str]]:
    """Tensor names by shard, from an index file."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        by_shard: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            by_shard.setdefault(shard, set()).add(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"expected a weight_map of tensor names to files in {index}, got {error!r}; download it again"
        ) from error
    foreign = sorted(shard for shard in by_shard if not re.fullmatch(r"[^/\\]+\.safetensors", shard))
    if foreign:
        raise CheckpointError(
            f"expected safetensors files beside {index}, got {_some(foreign)}; only such files are read"
        )
    return by_shard


def _stored_names(file: Path) -> set[str]:
    """Names in a safetensors file; opening it also compares its length with its header."""
    try:
        with safe_open(str(file), "pt") as handle:
            return set(handle.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"expected a whole safetensors file, got {file}, which is truncated or corrupt ({error}); "
            "download it again"
        ) from error


def _pickled(folder: Path) -> str:
    files = (
        sorted(p.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(kind))
        if is_folder(folder)
        else []
    )
    return f" but {_some(files)}, which is never unpickled: convert it to safetensors" if files else ""


def _some(names: list[str]) -> str:
    left = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {left} more" if left > 0 else "")
