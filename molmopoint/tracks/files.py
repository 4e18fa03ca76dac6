"""Tracks in files: which form a file has, and reading and writing it.

Every form is made from, and read as, the plain form of `document`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from molmopoint.errors import GroundingError
from molmopoint.files import write_text_whole
from molmopoint.tracks import coco, csv_form, mot


class _Form(NamedTuple):
    """How one form is written and read, as text, and the options each takes."""

    write: Callable[..., str]
    read: Callable[..., dict[str, Any]]
    writing: frozenset[str] = frozenset()
    reading: frozenset[str] = frozenset()


def _write_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False)


def _read_json(text: str) -> dict[str, Any]:
    document = _parsed(text)
    return coco.read_coco(document) if coco.is_coco(document) else document


def _write_coco(document: Mapping[str, Any], **options: Any) -> str:
    return json.dumps(coco.write_coco(document, **options), indent=1, allow_nan=False)


def _read_coco(text: str) -> dict[str, Any]:
    return coco.read_coco(_parsed(text))


_MISSING = frozenset({"fps", "size", "label"})
FORMS = {
    "json": _Form(_write_json, _read_json),
    "csv": _Form(csv_form.write_csv, csv_form.read_csv, reading=_MISSING),
    "mot": _Form(mot.write_mot, mot.read_mot, frozenset({"fps", "box"}), _MISSING),
    "coco": _Form(_write_coco, _read_coco, frozenset({"box"})),
}
"""By name."""

_ENDINGS = {".json": "json", ".csv": "csv", ".txt": "mot"}


def write_document(document: Mapping[str, Any], path: str | os.PathLike[str], name: str | None, **options: Any) -> None:
    """Writes tracks in a form; see `Tracks.save`.

    Raises:
        GroundingError: see there.
    """
    form_name, form = _form_of(Path(path), name)
    _check_options(form_name, options, form.writing, "writing")
    text = form.write(document, **options)
    write_text_whole(path, text)


def read_document(path: str | os.PathLike[str], name: str | None, **options: Any) -> dict[str, Any]:
    """Reads tracks in a form; see `Tracks.load`.

    Raises:
        GroundingError: see there.
    """
    form_name, form = _form_of(Path(path), name)
    _check_options(form_name, options, form.reading, "reading")
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:  # line ends inside quotes are the table's own
            text = file.read()
    except (OSError, ValueError) as error:  # no file, a name that cannot be one, other encodings
        raise GroundingError(f"expected a text file of tracks at {os.fspath(path)!r}, got: {error}") from error
    return form.read(text, **options)


def _form_of(path: Path, name: str | None) -> tuple[str, _Form]:
    chosen = _ENDINGS.get(path.suffix.lower()) if name is None else name
    if chosen not in FORMS:
        asked = f"the ending {path.suffix!r}" if name is None else repr(name)
        raise GroundingError(f"expected a format out of {', '.join(FORMS)}, got {asked}; pass format=")
    return chosen, FORMS[chosen]


def _check_options(name: str, options: Mapping[str, Any], known: frozenset[str], doing: str) -> None:
    if unknown := sorted(options.keys() - known):
        allowed = f"options out of {', '.join(sorted(known))}" if known else "no options"
        raise GroundingError(f"expected {allowed} for {doing} {name!r}, got {unknown[0]}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GroundingError(f"expected a JSON file of tracks, got: {error}") from error
