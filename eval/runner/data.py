"""The data of a benchmark: a folder that is there, the hub, or a handful of made items."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Benchmark, GenerationSettings, Item, Items, Missing
from molmopoint.eval.datasets.files import NOWHERE
from molmopoint.eval.datasets.rows import whole_text
from molmopoint.files import is_file, is_folder, process_runs, remove_leftovers, written_whole

FIXTURE = "fixture"
"""In place of a folder: a few made items in the published layout."""
_FIXTURE_SEED = 7
_DETAIL = 200
"""Characters kept of a file name."""


@dataclass(frozen=True)
class BenchmarkData:
    """Items and where they come from.

    Attributes:
        items: of the benchmark.
        folder: they were read from.
        origin: for people: folder, or data set and commit.
        digest: of all item ids, prompts and responses; two runs with one digest asked the same.
    """

    items: Items
    folder: Path
    origin: str
    digest: str


_SECONDS = 10.0
"""Longest wait for the hub to say what there is."""

_CONNECTION_ERRORS = frozenset({"TransportError", "ConnectionError", "Timeout"})
"""Base classes of what the client of the hub raises where a connection fails, whichever library it uses."""


def open_data(
    benchmark: Benchmark,
    place: str | Path | None,
    work: Path,
    *,
    with_media: bool = True,
    settings: GenerationSettings | None = None,
    rule: str | None = None,
) -> BenchmarkData:
    """Reads a benchmark.

    Args:
        benchmark: whose data it is.
        place: a folder in the published layout; "fixture" for made items; None for the hub, or for data that
            is always made.
        work: where made items are written.
        with_media: items whose pictures or clip are not there count as missing; without it stored answers to
            them are scored.
        settings: how the model will be asked, where that may change items; None to take them as they are.
        rule: by which the answers will be scored; by default the first of the benchmark.

    Raises:
        EvaluationError: the folder is not there or not this benchmark's, or the data is not on the hub.
    """
    folder, origin = _find_folder(benchmark, place, work)
    items = without_unusable_names(benchmark.read(folder))
    check_ids(items)
    if settings is not None:
        items = benchmark.apply_settings(items, settings, rule or benchmark.rules[0], folder)
    digest = _digest(items.found)
    if with_media:
        items = without_missing_media(items)
    return BenchmarkData(items, folder, origin, digest)


def without_missing_media(items: Items) -> Items:
    """The items whose files are there; the others become missing ones."""
    found, missing = [], list(items.missing)
    for item in items.found:
        gone = [path for path in item.images if not is_file(path)]
        clip = None if item.clip is None else item.clip.path
        if gone:
            missing.append(Missing(item.item_id, "no picture file", gone[0].name[:_DETAIL]))
        elif clip is not None and not (is_file(clip) or is_folder(clip)):
            missing.append(Missing(item.item_id, "no video file", clip.name[:_DETAIL]))
        else:
            found.append(item)
    return replace(items, found=tuple(found), missing=tuple(missing))


def without_unusable_names(items: Items) -> Items:
    """The items whose texts are Unicode and whose files lie in the folder of the data; the others become
    missing ones.

    A JSON file can hold half of a character, which no file and no line of an answer can.
    """
    found: list[Item] = []
    missing: list[Missing] = []
    for each in items.missing:
        missing.append(replace(each, item_id=whole_text(each.item_id), detail=whole_text(each.detail)))
    for item in items.found:
        files = list(item.images)
        if item.clip is not None:
            files.append(item.clip.path)
        texts = [*_texts_of(item), *map(str, files)]
        if any(whole_text(text) != text for text in texts):
            missing.append(Missing(whole_text(item.item_id), "half of a character in its text or file name"))
        elif any(path.name == NOWHERE for path in files):
            missing.append(Missing(item.item_id, "file name that leads out of the data's folder, or is none"))
        else:
            found.append(item)
    return replace(items, found=tuple(found), missing=tuple(missing))


def _texts_of(item: Item) -> list[str]:
    """Every text that is written or hashed."""
    texts = [item.item_id, item.prompt, item.cluster, *item.responses]
    for value in item.categories.values():
        texts += [value] if isinstance(value, str) else value
    return texts


def choose(items: Sequence[Item], limit: int | None) -> list[Item]:
    """A part of the items that does not depend on their order: those whose hashed ids come first.

    They stay in the order of the data.
    """
    if limit is None or limit >= len(items):
        return list(items)
    by_chance = sorted(items, key=chance_of)
    chosen = {item.item_id for item in by_chance[:limit]}
    return [item for item in items if item.item_id in chosen]


def chance_of(item: Item) -> bytes:
    """A key that sorts items as if by chance, the same way every time."""
    return hashlib.sha256(item.item_id.encode()).digest()


def check_ids(items: Items) -> None:
    """Refuses ids that occur twice: predictions are kept by id.

    Raises:
        EvaluationError: an id occurs twice.
    """
    seen: set[str] = set()
    for item in items.found:
        if item.item_id in seen:
            raise EvaluationError(
                f"expected every item id once, got {item.item_id!r} twice; the benchmark must make ids from "
                "the content"
            )
        seen.add(item.item_id)


def _find_folder(benchmark: Benchmark, place: str | Path | None, work: Path) -> tuple[Path, str]:
    """The folder of the data, and for people where it comes from."""
    is_made = benchmark.source.repo is None and not benchmark.source.address
    if str(place) == FIXTURE or (place is None and is_made):
        return _write_fixture(benchmark, work / FIXTURE), "made items"
    if place is None:
        return _from_hub(benchmark)
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise EvaluationError(
            f"expected a folder with the data of {benchmark.name}, got {str(place)!r}; "
            f"{_how_to_get(benchmark)}"
        )
    return folder, str(place)


def _from_hub(benchmark: Benchmark) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    source = benchmark.source
    if source.repo is None:
        raise EvaluationError(
            f"expected a folder with the data of {benchmark.name}, which is not on the hub; "
            f"{_how_to_get(benchmark)}"
        )
    patterns = list(source.patterns) or None
    try:
        # The hub's files are addressed by their hashes, and a file whose size or hash differs is fetched
        # again.
        folder = snapshot_download(
            source.repo, repo_type="dataset", revision=source.revision, allow_patterns=patterns
        )
    except (OSError, HfHubHTTPError) as error:
        raise EvaluationError(_not_here(benchmark, error)) from error
    remark = "" if source.revision else " (newest, not pinned)"
    return Path(folder), f"{source.repo} at {Path(folder).name}{remark}"


def check_reachable(benchmark: Benchmark) -> None:
    """Tells at once that the data of a benchmark is neither here nor to be had; fetches nothing.

    Raises:
        EvaluationError: as said.
    """
    source = benchmark.source
    if source.repo is None:
        return
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(source.repo, repo_type="dataset", revision=source.revision, local_files_only=True)
    except LocalEntryNotFoundError:
        try:
            HfApi().dataset_info(source.repo, revision=source.revision, timeout=_SECONDS)
        except (
            Exception
        ) as error:  # of the client, whose errors of connections have other names in each version
            raise EvaluationError(_not_here(benchmark, error)) from error


def _not_here(benchmark: Benchmark, error: Exception) -> str:
    """The message for data that is neither here nor to be had."""
    place = f"expected the data of {benchmark.name}, {benchmark.source.repo} on the hub"
    return f"{place}, {_why_not(error)}; {_how_to_get(benchmark)}"


def _why_not(error: Exception) -> str:
    """Why a data set is neither here nor to be had, from an error of the hub."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    if constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled):
        return "which was never downloaded, and HF_HUB_OFFLINE keeps it from being fetched"
    if isinstance(error, GatedRepoError):
        return "whose owner wants to be asked: accept the terms there, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "which is not there (any more), or private: log in with `hf auth login`"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, LocalEntryNotFoundError) or kinds & _CONNECTION_ERRORS:
        return f"which was never downloaded, and {constants.ENDPOINT} cannot be reached"
    sentence = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"got: {sentence}"


def _write_fixture(benchmark: Benchmark, folder: Path) -> Path:
    """Made items of a benchmark; those that are there already are taken."""
    target = folder / benchmark.name
    remove_leftovers(folder)
    for path in folder.glob(f".{benchmark.name}.*"):  # of earlier versions, killed
        if path.suffix[1:].isdecimal() and not process_runs(int(path.suffix[1:])):
            shutil.rmtree(path, ignore_errors=True)
    if target.exists():
        return target
    try:
        with written_whole(target) as beside:
            beside.mkdir()
            benchmark.write_fixture(beside, np.random.default_rng(_FIXTURE_SEED))
    except OSError:
        if not target.exists():  # another process of the same run may have been quicker
            raise
    return target


def _how_to_get(benchmark: Benchmark) -> str:
    source = benchmark.source
    address = f"https://huggingface.co/datasets/{source.repo}" if source.repo else source.address
    where = f"fetch {address}" if address else "see the benchmark's file"
    note = f" ({source.note})" if source.note else ""
    return f"{where} and pass its folder with --data, or try --data {FIXTURE}{note}"


def _digest(items: Sequence[Item]) -> str:
    hashed = hashlib.sha256()
    for item in items:
        for text in (item.item_id, item.prompt, *item.responses):
            hashed.update(f"{text}\0".encode())
    return hashed.hexdigest()[:16]
