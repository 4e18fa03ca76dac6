"""Under which settings a folder of predictions was made; other settings need another folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.files import write_text_whole

FILE = "manifest.json"


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def claim(folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Makes a folder the place of a run with these settings, or checks that it is already.

    Args:
        folder: of one benchmark; made if it is not there.
        settings: whatever changes answers: model, revision, crops, templates, limits, data.
        about: whatever does not: versions, times.

    Raises:
        EvaluationError: the folder holds answers that were made under other settings.
    """
    if (folder / FILE).exists() and (any(folder.glob("predictions*.jsonl")) or _is_whole(folder)):
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
    # As they come back from a file: tuples are lists there.
    before, settings = manifest["settings"], json.loads(json.dumps(settings))
    differing = [
        f"{key}: {before.get(key)!r} there, {settings.get(key)!r} now"
        for key in sorted({*before, *settings})
        if before.get(key) != settings.get(key)
    ]
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
            f"expected {FILE} in {folder}, got {type(error).__name__}: {error}; is this a folder that `eval` wrote? If the file was cut "
            "off and the answers beside it are of this run, delete it and give the same command again"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict) or "settings_hash" not in found:
        raise EvaluationError(f"expected settings in {FILE} in {folder}, got something else; is this a folder that `eval` wrote?")
    return found


def _is_whole(folder: Path) -> bool:
    """Whether the manifest can be read; one that a killed run left in halves, without any answer beside it, is written anew."""
    try:
        read(folder)
    except EvaluationError:
        return False
    return True
