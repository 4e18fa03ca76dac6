"""A model on the hub: its files, which of them are here, fetching the others, and why it cannot be reached.

Loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from molmopoint.checkpoints import registry
from molmopoint.errors import CheckpointError, MolmoPointError

FILES_OF_A_MODEL = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "reward_config.json",
    "adapter_config.json", "*processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.*", "README.md", "LICENSE*",
)  # fmt: skip
"""Files at the top of a repository that a model is read from: no code, and no pickles."""

_TRIES = 5
"""Times that fetching goes on after a connection that broke."""

_SECONDS = 10.0
"""Longest wait for the hub to say what there is."""

_BYTES_PER_PARAMETER = 4
"""Of the models in the zoo: their weights are stored in float32."""

_CONNECTION_ERRORS = frozenset({"TransportError", "ConnectionError", "Timeout"})
"""Base classes of what the client of the hub raises where a connection fails; which library it is made of
depends on its version.
"""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        name: in the repository.
        size: in bytes.
        is_here: whether it was fetched before, whole.
    """

    name: str
    size: int
    is_here: bool


@dataclass(frozen=True)
class Download:
    """What fetching a model comes to.

    Attributes:
        repository: its id.
        revision: as asked for; None for the newest.
        commit: what that is now.
        files: that a model is read from.
        left_out: other files of the repository, which are not fetched.
        folder: where the files go; None for the cache of the hub.
    """

    repository: str
    revision: str | None
    commit: str
    files: tuple[RemoteFile, ...]
    left_out: tuple[str, ...]
    folder: Path | None

    @property
    def missing(self) -> tuple[RemoteFile, ...]:
        """The files that are not here."""
        return tuple(file for file in self.files if not file.is_here)


def plan_download(repository: str, revision: str | None = None, folder: Path | None = None) -> Download:
    """What is to be fetched of a model; asks the hub, and fetches nothing.

    Args:
        repository: its id, "owner/name".
        revision: branch, tag or commit; None for the newest.
        folder: where the files go; None for the cache of the hub.

    Raises:
        CheckpointError: there is no such model, or the hub cannot be reached.
    """
    with _told_by_us(repository, revision):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=_SECONDS)
    commit = str(info.sha)
    files = []
    left_out = []
    for each in info.siblings or []:
        if not any(fnmatch(each.rfilename, pattern) for pattern in FILES_OF_A_MODEL) or "/" in each.rfilename:
            left_out.append(each.rfilename)
            continue
        size = each.size or 0
        files.append(
            RemoteFile(each.rfilename, size, _is_here(repository, commit, each.rfilename, size, folder))
        )
    if not any(file.name in registry.CONFIGS.values() for file in files):
        raise CheckpointError(
            f"expected a model with a config.json at {repository!r} on the hub, got {len(files)} other files; "
            "check the name"
        )
    return Download(repository, revision, commit, tuple(files), tuple(left_out), folder)


def fetch(download: Download) -> Path:
    """Fetches what is missing; files that are whole stay whatever happens, and a file whose connection breaks
    goes on where it was.

    Returns:
        The folder with the files.

    Raises:
        CheckpointError: the hub cannot be reached any more, or the disk is full.
    """
    for left in reversed(range(_TRIES)):
        try:
            with _told_by_us(download.repository, download.revision):
                folder = snapshot_download(
                    download.repository,
                    revision=download.revision,
                    allow_patterns=[file.name for file in download.files],
                    local_dir=download.folder,
                )
            return Path(folder)
        except CheckpointError as error:
            if not left or not _is_of_connection(error.__cause__):
                raise
    raise AssertionError("the last try returns or raises")


def check_reachable(source: str, revision: str | None = None, **where: Any) -> None:
    """Tells at once, and in one sentence, that a model of the hub is neither here nor to be had.

    Asks nothing of the network where the model was fetched before.

    Args:
        source: folder or hub id, as `locate` returns it.
        revision: branch, tag or commit on the hub.
        **where: `cache_dir`, `token`, `local_files_only` and the other arguments of `from_pretrained` that say
            where files come from.

    Raises:
        CheckpointError: it is not downloaded and the hub cannot be reached, or there is no such model.
    """
    if Path(source).is_dir() or where.get("subfolder"):
        return
    cache = where.get("cache_dir")
    for config in registry.CONFIGS.values():
        with _told_by_us(source, revision):
            here = try_to_load_from_cache(source, config, cache_dir=cache, revision=revision)
        if isinstance(here, str):
            return
    if where.get("local_files_only"):
        raise CheckpointError(_not_here(source, "local_files_only=True keeps it from being fetched"))
    with _told_by_us(source, revision):
        HfApi().model_info(source, revision=revision, token=where.get("token"), timeout=_SECONDS)


def in_bytes(size: float) -> str:
    """A number of bytes, short.

    >>> in_bytes(17_355_710_130), in_bytes(84_000), in_bytes(5)
    ('17.4 GB', '84.0 KB', '5 bytes')
    """
    for unit, bytes_of_unit in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:.1f} {unit}"
    return f"{size:.0f} bytes"


@contextmanager
def _told_by_us(repository: str, revision: str | None) -> Iterator[None]:
    """Errors of the hub as errors of ours, each with what to do."""
    try:
        yield
    except MolmoPointError:
        raise
    except Exception as error:
        message = _in_words(error, repository, revision)
        if message is None:
            raise
        raise CheckpointError(message) from error


def _in_words(error: Exception, repository: str, revision: str | None) -> str | None:
    """What an error of the hub means, and what to do; None for one that is not of the hub."""
    for kind, form in _MEANINGS:
        if isinstance(error, kind):
            return form.format(
                repository=repository, revision=revision, near=_near(repository), host=constants.ENDPOINT
            )
    if isinstance(error, OfflineModeIsEnabled):
        return _not_here(repository, "HF_HUB_OFFLINE keeps it from being fetched")
    if isinstance(error, LocalEntryNotFoundError) or _is_of_connection(error):
        return _not_here(repository, f"{constants.ENDPOINT} cannot be reached")
    if isinstance(error, HfHubHTTPError):
        return (
            f"expected {repository!r} from the hub, which answered with status {error.response.status_code}; try "
            "again later"
        )
    return (
        f"expected to write the files of {repository!r}, got: {error}" if isinstance(error, OSError) else None
    )


_MEANINGS: tuple[tuple[type[Exception], str], ...] = (
    (
        GatedRepoError,
        "expected a model that may be fetched, got {repository!r}, whose owner wants to be asked; accept the terms "
        "at {host}/{repository}, then log in with `hf auth login`",
    ),
    (
        RevisionNotFoundError,
        "expected a branch, tag or commit of {repository!r}, got {revision!r}; leave the revision out for the newest",
    ),
    (
        RepositoryNotFoundError,
        "expected a model on the hub, found none named {repository!r}{near}; if it is a private one, log in with "
        "`hf auth login`",
    ),
    (HFValidationError, "expected a hub id (owner/name), got {repository!r}{near}"),
)
"""What errors of the hub mean, the special ones before those that they are a kind of."""


def _is_of_connection(error: BaseException | None) -> bool:
    """Whether a connection could not be made, or broke."""
    return any(base.__name__ in _CONNECTION_ERRORS for base in type(error).__mro__)


def _not_here(repository: str, why: str) -> str:
    """The message for a model that is neither here nor to be had."""
    size = ""
    entry = registry.find(repository)
    if entry is not None and entry.parameters is not None:
        size = f" (about {in_bytes(entry.parameters * _BYTES_PER_PARAMETER)} on the disk)"
    right = "the name is right; " if entry is not None else ""
    return (
        f"expected the files of {repository!r}{size} here, got none: they were never downloaded, and {why}; "
        f"{right}get a connection and run `molmopoint download {repository}`, or pass a folder that holds them"
    )


def _near(repository: str) -> str:
    """A hint at names of the zoo that look like this one."""
    from difflib import get_close_matches

    known = {str(entry.hub_id).lower(): entry.hub_id for entry in registry.list_models() if entry.hub_id}
    near = [str(known[name]) for name in get_close_matches(repository.lower(), known, n=2, cutoff=0.6)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _is_here(repository: str, revision: str | None, name: str, size: int | None, folder: Path | None) -> bool:
    if folder is not None:
        path = folder / name
        return path.is_file() and path.stat().st_size == size
    found = try_to_load_from_cache(repository, name, revision=revision)
    return isinstance(found, str) and (size is None or Path(found).stat().st_size == size)
