"""From what a user names to the files of a model, and to what kind of model it is."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from molmopoint.checkpoints import registry
from molmopoint.checkpoints.hub import check_reachable
from molmopoint.errors import CheckpointError
from molmopoint.files import is_file, is_folder
from molmopoint.remote_code import check_kernels


def locate(
    name_or_path: str | Path, revision: str | None = None, *, scores: bool = False
) -> tuple[str, str | None]:
    """Folder or hub id, and revision, of what a user named.

    Args:
        name_or_path: what they named.
        revision: branch, tag or commit on the hub.
        scores: a reward model will do as well.

    Raises:
        CheckpointError: the name is no zoo entry, folder or hub id; near matches are named. Or it is that of
            a reward model.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if (
        isinstance(name_or_path, Path)
        or is_folder(folder)
        or name.startswith((".", "~"))
        or folder.is_absolute()
    ):
        _check_folder(folder)
        return str(folder), None
    entry = registry.find(name)
    if entry is not None:
        if entry.gives == "scores" and not scores:
            raise CheckpointError(_not_pointing(name))
        return registry.resolve(name), revision or entry.revision
    if name.count("/") == 1 and all(name.split("/")):
        return name, revision
    on_hub = re.fullmatch(r"https?://[^/]+/([^/?#]+/[^/?#]+).*", name)
    if on_hub is not None:
        raise CheckpointError(
            f"expected a name of the zoo, a hub id (owner/name) or a folder, got the address {name!r}; write "
            f"{on_hub[1]}"
        )
    names = registry.names()
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the zoo has {', '.join(names)}"
    raise CheckpointError(
        f"expected a name of the zoo, a hub id (owner/name) or a folder, got {name!r}; {hint}"
    )


def config_at(source: str, **where: Any) -> dict[str, Any]:
    """What the config.json of a checkpoint states.

    Args:
        source: folder or hub id, as `locate` returns it.
        **where: `revision`, `cache_dir`, `token` and the other arguments of `from_pretrained` that say where
            files come from.

    Raises:
        CheckpointError: there is no such model, or its config asks for code of another repository.
    """
    from transformers import PretrainedConfig  # here, so that a wrong name is told before it is loaded

    from molmopoint.load_checks import FILE_ERRORS

    check_reachable(source, **where)
    try:
        fields, _ = PretrainedConfig.get_config_dict(source, **where)
    except FILE_ERRORS as error:
        reason = str(error).strip().split("\n", 1)[0].removesuffix(".")
        raise CheckpointError(
            f"expected a model with a config.json at {source!r}, got: {reason}; check the name or folder"
        ) from error
    if not isinstance(fields, dict):
        raise CheckpointError(
            f"expected a table of settings in config.json at {source!r}, got a {type(fields).__name__}; "
            "copy the file again"
        )
    check_kernels(fields, source)
    return fields


def _check_folder(folder: Path) -> None:
    if not is_folder(folder):
        raise CheckpointError(
            f"expected a model folder at {str(folder)!r}, found "
            f"{'a file' if is_file(folder) else 'nothing'} there"
        )
    if not is_file(folder / registry.CONFIGS["points"]):
        if is_file(folder / registry.CONFIGS["scores"]):
            raise CheckpointError(_not_pointing(str(folder)))
        raise CheckpointError(
            f"expected a model folder with config.json, weights and tokenizer, got {str(folder)!r} without "
            "config.json; "
            "pass the folder that `save_pretrained` wrote"
        )


def _not_pointing(name: str) -> str:
    return f"expected a model that points, got the reward model {name!r}; load it with molmopoint.load_reward"
