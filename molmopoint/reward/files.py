"""Reward models on disk.

| folder holds | from |
| --- | --- |
| `reward_config.json`, `reward.safetensors`, adapters | `save_pretrained`: what was trained, beside the name of its base |
| the same, and a whole model | `save_pretrained(merged=True)` |
| a whole model, `reward_model_config.json`, `value_head.pt` | the authors' models |
| adapters of the released layers, the same two files | the authors' training |

Nothing is unpickled but the authors' head, whose reader accepts tensors alone.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Molmo2Config

from molmopoint.adapters import ADAPTER_NAME, merge_adapters, read_config, save_adapters
from molmopoint.adapters import CONFIG_FILE as ADAPTER_CONFIG_FILE
from molmopoint.backends import backend_class_of, family_of_model, reading
from molmopoint.backends.molmo2 import Molmo2Backend
from molmopoint.checkpoints import registry
from molmopoint.checkpoints.locating import locate
from molmopoint.checkpoints.placing import Placement, silent_if_embedded
from molmopoint.errors import CheckpointError
from molmopoint.files import is_file, is_folder
from molmopoint.load_checks import INDEX_FILE
from molmopoint.load_checks import WEIGHTS_FILE as MODEL_FILE
from molmopoint.processing import MolmoPointProcessor
from molmopoint.registration import register
from molmopoint.reward.settings import (
    AUTHORS_CONFIG_FILE,
    CONFIG_FILE,
    RewardSettings,
    StoredReward,
    authors_settings,
    read_object,
)
from molmopoint.saving import save_whole

WEIGHTS_FILE, AUTHORS_HEAD_FILE = "reward.safetensors", "value_head.pt"
_DOWNLOADED = ("*.json", "*.jinja", "*.txt", "*.safetensors", AUTHORS_HEAD_FILE)
_FILLED_UP = ("wte.new_embedding", "embed_tokens.weight")
"""Ends of the names of tensors that tell how many rows the input table has beside the vocabulary: released
and native.
"""


@dataclass(frozen=True)
class RewardFolder:
    """What lies in a folder.

    Attributes:
        path: of the folder.
        settings: of the model.
        separator_id: of its tokenizer; None where the file does not say.
        base: where the backbone lies: folder or hub id.
        base_revision: on the hub.
        base_name: as the file has it; None where the backbone lies in the same folder.
        tensors: of the head, under its own names, and maybe "separator".
    """

    path: Path
    settings: RewardSettings
    separator_id: int | None
    base: str
    base_revision: str | None
    base_name: str | None
    tensors: dict[str, Tensor]

    @property
    def has_adapters(self) -> bool:
        """Whether there are adapters beside the head."""
        return (self.path / ADAPTER_CONFIG_FILE).is_file()

    @property
    def processor_source(self) -> str:
        """Where the processor lies: in the folder, or with the base."""
        return str(self.path) if (self.path / "tokenizer_config.json").is_file() else self.base


def find_reward(
    name_or_path: str | Path, revision: str | None = None, base: str | Path | None = None, **where: Any
) -> RewardFolder:
    """Reads what is small in a reward model.

    Args:
        name_or_path: zoo name, hub id or folder.
        revision: branch, tag or commit on the hub.
        base: the model below the adapters, instead of the one that the files name.
        **where: `cache_dir`, `token`, `local_files_only` and the like.

    Raises:
        CheckpointError: there is no such model, it is no reward model, or its files are broken.
    """
    folder = Path(name_or_path).expanduser()
    if not is_file(folder / CONFIG_FILE) and not is_file(folder / AUTHORS_CONFIG_FILE):
        source, revision = locate(name_or_path, revision, scores=True)
        folder = Path(source) if is_folder(Path(source)) else _downloaded(source, revision, where)
    if (folder / CONFIG_FILE).is_file():
        stored = StoredReward.read(folder / CONFIG_FILE)
        named = stored.base
        source, base_revision = _base_of(folder, named, stored.base_revision, base)
        tensors = _read_tensors(folder / WEIGHTS_FILE)
        base_name = str(base) if base is not None else named
        return RewardFolder(
            folder, stored.settings, stored.separator_id, source, base_revision, base_name, tensors
        )
    if (folder / AUTHORS_CONFIG_FILE).is_file():
        settings = authors_settings(read_object(folder / AUTHORS_CONFIG_FILE))
        head = {_own_name(name): tensor for name, tensor in _unpickled(folder / AUTHORS_HEAD_FILE).items()}
        named = _named_base(folder)
        source, base_revision = _base_of(folder, named, None, base)
        base_name = None if named is None else str(base or source)
        return RewardFolder(folder, settings, None, source, base_revision, base_name, head)
    raise CheckpointError(
        f"expected a reward model with {CONFIG_FILE} or {AUTHORS_CONFIG_FILE} at {str(name_or_path)!r}, got "
        "a model without a value head; "
        "`molmopoint.load` reads models that point"
    )


def load_backbone(source: str, placement: Placement) -> Any:
    """The network below the head, a MolmoPoint or a native Molmo2, in evaluation mode.

    Raises:
        CheckpointError: there is no such model, it is of another family, or its weights do not fit.
    """
    register()
    family = backend_class_of(source, **placement.file_arguments)
    family.check_trains(source)
    family.check_judges(source)
    settings = dict(placement.arguments)
    if family is Molmo2Backend:
        settings |= _stored_size(source)
    with silent_if_embedded(source), reading(source, "a whole model", "; check the name or the folder"):
        model = family.read_model(source, placement.file_arguments, settings)
    return (model if placement.move_to is None else model.to(placement.move_to)).eval()


def load_processor(source: str, model: Any, **where: Any) -> MolmoPointProcessor:
    """The processor of a backbone.

    Args:
        source: folder or hub id.
        model: the backbone.
        **where: arguments of `from_pretrained` that say where files come from.

    Raises:
        CheckpointError: files are missing, the chat template among them.
    """
    register()
    family = family_of_model(model, source)
    with reading(source, "tokenizer and processor files", "; copy those of the base"):
        return family.read_processor(source, **where)


def write_reward(
    folder: str | Path,
    stored: StoredReward,
    tensors: Mapping[str, Tensor],
    backbone: Any,
    processor: MolmoPointProcessor | None,
) -> None:
    """Writes a reward model, whole or not at all.

    Args:
        folder: where to.
        stored: what the config file says; without a base the backbone is written too, its adapters merged.
        tensors: of the head, and the row of the separator.
        backbone: whose adapters are written, or all of it.
        processor: written too, if given.
    """
    if stored.base is None:
        merge_adapters(backbone)

    def write(target: str) -> None:
        if stored.base is None:
            family_of_model(backbone).save_model(backbone, target)
        elif ADAPTER_NAME in getattr(backbone, "peft_config", {}):
            save_adapters(backbone, Path(target))
        if processor is not None:
            processor.save_pretrained(target)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            str(Path(target) / WEIGHTS_FILE),
        )
        stored.write(target)

    save_whole(folder, write)


def _base_of(
    folder: Path, named: str | None, revision: str | None, given: str | Path | None
) -> tuple[str, str | None]:
    """Where the backbone lies; a relative path counts from the folder, or from the one it lies in.

    Raises:
        CheckpointError: there is no such model, or one is given for a folder that holds a whole one.
    """
    if named is None:
        if given is not None:
            raise CheckpointError(
                f"expected no base for {folder}, which holds a whole model, got {str(given)!r}; leave it out"
            )
        return str(folder), None
    if given is not None:
        return locate(given)
    for beside in (folder / named, folder.parent / named):
        if is_folder(beside):
            return locate(beside)
    try:
        return locate(named, revision)
    except (CheckpointError, OSError) as error:
        raise CheckpointError(
            f"expected the model below the adapters in {folder} at {named!r}; pass base=... ({error})"
        ) from error


def _named_base(folder: Path) -> str | None:
    """The model that the authors' adapters belong to; None where the folder holds a whole model.

    Raises:
        CheckpointError: there are adapters, and their file names no model.
    """
    if (folder / registry.CONFIGS["points"]).is_file() or not (folder / ADAPTER_CONFIG_FILE).is_file():
        return None
    named = read_config(folder).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise CheckpointError(
            f"expected the name of a model as base_model_name_or_path in {folder / ADAPTER_CONFIG_FILE}, "
            f"got {named!r}"
        )
    return named


def _downloaded(source: str, revision: str | None, where: dict[str, Any]) -> Path:
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(_DOWNLOADED), **where))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"expected a reward model at {source!r}, got: {reason}; check the name and the connection"
        ) from error


def _stored_size(source: str) -> dict[str, Any]:
    """A config with as many rows of the input table as are stored: authors' Molmo2 models have fewer than
    theirs says.
    """
    if not is_folder(Path(source)):
        return {}
    config = Molmo2Config.from_pretrained(source, trust_remote_code=False)
    added = _added_rows(Path(source), config)
    if added is None:
        return {}
    config.get_text_config().additional_vocab_size = added
    return {"config": config}


def _added_rows(folder: Path, config: Any) -> int | None:
    """Rows behind the vocabulary in the stored input table; None where it has another name."""
    index = folder / INDEX_FILE
    files = (
        sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if index.is_file()
        else [MODEL_FILE]
    )
    for file in files:
        with safe_open(str(folder / file), "pt") as handle:
            for name in handle.keys():  # noqa: SIM118 (no dict)
                if name.endswith(_FILLED_UP):
                    rows = handle.get_slice(name).get_shape()[0]
                    return rows if name.endswith(_FILLED_UP[0]) else rows - config.text_config.vocab_size
    return None


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"expected the value head in {file}, got: {error}; copy the folder again"
        ) from error


def _unpickled(file: Path) -> dict[str, Tensor]:
    """Tensors of the authors' head; a file that would run code is refused."""
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"expected the tensors of a value head in {file}, got: {reason}; download it again"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(
            f"expected a dict of tensors in {file}, got {type(tensors).__name__}; download it again"
        )
    return tensors


def _own_name(name: str) -> str:
    """A plain linear head has one layer and no number."""
    return f"value.layers.{name}" if "." in name else f"value.layers.0.{name}"
