"""The folder of one benchmark's run: under which settings its predictions were made, and which are still
missing.

A folder belongs to its settings; others need another folder, so that answers of two kinds are never mixed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item
from molmopoint.eval.predictions.records import read_folder
from molmopoint.files import remove_leftovers, write_text_whole
from molmopoint.files.lock import alone_in

FILE = "manifest.json"


@contextlib.contextmanager
def locked(folder: Path, rank: int = 0) -> Iterator[None]:
    """Keeps other evaluations out of a folder.

    Args:
        folder: of one benchmark; made if it is not there.
        rank: of this process; those that share the items of a run share its folder, too.

    Raises:
        EvaluationError: another evaluation is there already, or nothing can be written there.
    """
    part = f"-{rank}" if rank else ""
    with alone_in(folder, "an evaluation", error=EvaluationError, part=part):
        remove_leftovers(folder)
        yield


def claim(folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Makes a folder the place of a run with these settings, or checks that it is already.

    Args:
        folder: of one benchmark; made if it is not there.
        settings: whatever changes answers: model, revision, crops, templates, limits, data.
        about: whatever does not: versions, times.

    Raises:
        EvaluationError: the folder holds answers that were made under other settings.
    """
    is_claimed = (folder / FILE).exists() and (any(folder.glob("predictions*.jsonl")) or _is_whole(folder))
    if is_claimed:
        check(read(folder), settings, folder)
        return
    content = {"schema_version": 1, "settings_hash": settings_hash(settings), "settings": settings, **about}
    write_text_whole(folder / FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def check(manifest: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    """Refuses settings that differ from a manifest's.

    Raises:
        EvaluationError: they differ; the message names what differs.
    """
    if manifest["settings_hash"] == settings_hash(settings):
        return
    before = manifest["settings"]
    now = json.loads(json.dumps(settings))  # as they come back from a file: tuples are lists there
    differing = []
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            differing.append(f"{key}: {before.get(key)!r} there, {now.get(key)!r} now")
    raise EvaluationError(
        f"expected the settings of the answers in {folder}, got others ({'; '.join(differing)}); "
        "choose another --out, or repeat the run with the same settings"
    )


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        EvaluationError: there is none, or it cannot be read.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(
            f"expected {FILE} in {folder}, got {type(error).__name__}: {error}; is this a folder that "
            "`eval` wrote? If the "
            "file was cut off and the answers beside it are of this run, delete it and give the same "
            "command again"
        ) from error
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("settings"), dict)
        or "settings_hash" not in found
    ):
        raise EvaluationError(
            f"expected settings in {FILE} in {folder}, got something else; is this a folder that `eval` "
            "wrote?"
        )
    return found


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for the settings."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unanswered(folder: Path, items: Sequence[Item]) -> list[Item]:
    """Items without an answer in any file of the folder; failures count as unanswered and are tried again."""
    done = {item_id for item_id, prediction in read_folder(folder).items() if prediction.error is None}
    return [item for item in items if item.item_id not in done]


def _is_whole(folder: Path) -> bool:
    """Whether the manifest can be read.

    One that a killed run left in halves, without any answer beside it, is written anew.
    """
    try:
        read(folder)
    except EvaluationError:
        return False
    return True
