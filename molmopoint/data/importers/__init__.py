"""Readers of other annotation formats: each gives rows of the library's own, see `docs/data_format.md`.

A new format is one module and a line in `FORMATS`. What the readers share: `reading` reads files and finds
pictures, `values` checks what is in them, `collector` gathers the pictures and `point_lists` the points of
one, `placement` compares the recorded size of a picture with its file, `shapes` has outlines and masks, and
`journal` counts what is left out.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from molmopoint.data.importers.journal import Journal, OnSkip
from molmopoint.errors import ProcessingError

if TYPE_CHECKING:
    from molmopoint.data.preferences import PreferenceRecord
    from molmopoint.data.records import Record

__all__ = [
    "FORMATS", "PREFERENCE_FORMATS", "Journal", "OnSkip", "format_options", "import_preferences", "import_records",
    "reader_of",
]  # fmt: skip

FORMATS: dict[str, str] = {
    "coco": "coco",
    "cosyn_point": "pixmo",
    "cvat": "cvat",
    "darknet": "yolo",
    "datumaro": "datumaro",
    "guisyn": "ai2",
    "label_studio": "label_studio",
    "labelme": "labelme",
    "molmoweb_ground": "molmoweb",
    "multi_image_point": "molmo2_sets",
    "pixmo_cap": "pixmo",
    "pixmo_count": "pixmo",
    "pixmo_points": "ai2",
    "screenspot": "screenspot",
    "via": "via",
    "video_point": "molmo2_sets",
    "video_track": "molmo2_sets",
    "voc": "voc",
    "yolo": "yolo",
}
"""Format to the module in this folder whose function `read_<format>` reads it; imported when it is used."""

PREFERENCE_FORMATS: dict[str, str] = {
    "chat_pairs": "preference_sets",
    "mm_rlhf": "preference_sets",
    "nectar": "preference_sets",
    "pku_saferlhf": "preference_sets",
    "povid": "preference_sets",
    "rlaif_v": "preference_sets",
    "vlfeedback": "preference_sets",
    "wildvision": "preference_sets",
}
"""The same for preferences, which `import_preferences` reads."""

Reader = Callable[..., Iterator[dict[str, Any]]]
"""A function (source, journal, options ...) that gives the columns of one row after the other."""

_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

_logger = logging.getLogger(__name__)


def import_records(
    format: str,
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    on_skip: OnSkip | None = None,
    journal: Journal | None = None,
    **options: Any,
) -> Iterator[Record]:
    """Rows from another format.

    Args:
        format: one of `FORMATS`.
        source: file or folder; of data sets of the hub (`pixmo_points`, `guisyn`, `video_point` ...) also a
            Hugging Face data set or another iterable of rows.
        on_skip: called with a sentence for everything that is left out; by default it is logged as a warning.
        journal: counts what is left out and tells what else happened, in place of `on_skip`.
        options: of the format; `format_options` lists them. Numbers and switches may be given as text.

    Returns:
        Records in the order of the source, then those about what is absent; paths of pictures start where
        those of `source` and the options do.

    Raises:
        ProcessingError: an unknown format or option, a missing option, or a source that is not of that
            format.
    """
    if isinstance(format, str) and format in PREFERENCE_FORMATS:
        raise ProcessingError(
            f"expected a format of annotations, got {format}; call import_preferences for it"
        )
    if journal is None:
        journal = Journal(on_skip or _logger.warning)
    # Checked at the call rather than at the first row, hence the inner generator.
    return _records(_columns(format, source, journal, options), journal)


def import_preferences(
    format: str,
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    journal: Journal | None = None,
    **options: Any,
) -> Iterator[PreferenceRecord]:
    """Rows for reward models from a published set of preferences.

    Args:
        format: one of `PREFERENCE_FORMATS`.
        source: JSONL or JSON file, a Hugging Face data set or another iterable of rows.
        journal: counts what is left out; by default it is logged as a warning.
        options: of the format; `format_options` lists them. Numbers and switches may be given as text.

    Returns:
        Records in the order of the source, each with answers of which one is better than another.

    Raises:
        ProcessingError: an unknown format or option, a missing option, or a source that is not of that
            format.
    """
    if not isinstance(format, str) or format not in PREFERENCE_FORMATS:
        raise ProcessingError(
            f"expected a format of preferences among {', '.join(PREFERENCE_FORMATS)}, got {format!r}; choose one"
        )
    if journal is None:
        journal = Journal(_logger.warning)
    return _preferences(_columns(format, source, journal, options), journal, format)


def _columns(
    format: str, source: Any, journal: Journal, options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What the reader of a format gives, with options of the kinds that it takes."""
    reader = reader_of(format)
    known = format_options(format)
    unknown = sorted(set(options) - set(known))
    if unknown and not known:
        raise ProcessingError(f"expected no options with {format}, got {unknown[0]!r}; leave it out")
    if unknown:
        raise ProcessingError(
            f"expected options of {format} among {', '.join(known)}, got {unknown[0]!r}; check its name"
        )
    missing = [name for name, is_required in known.items() if is_required and name not in options]
    if missing:
        raise ProcessingError(
            f"expected the option {missing[0]!r} of {format}, got none; it cannot be guessed from the file"
        )
    parameters = inspect.signature(reader).parameters
    _check_source(format, source, str(parameters["source"].annotation))
    values = {
        name: _option_value(name, value, str(parameters[name].annotation)) for name, value in options.items()
    }
    return reader(source, journal, **values)


def reader_of(format: str) -> Reader:
    """The function that reads a format.

    Raises:
        ProcessingError: there is no such format.
    """
    if not isinstance(format, str):
        raise ProcessingError(
            f"expected the name of a format, got {type(format).__name__} {format!r:.80}; choose one of "
            f"{', '.join(FORMATS)}"
        )
    formats = FORMATS | PREFERENCE_FORMATS
    if format not in formats:
        near = get_close_matches(format, formats, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose the one of your files"
        raise ProcessingError(f"expected a format among {', '.join(formats)}, got {format!r}; {hint}")
    module = import_module(f"{__name__}.{formats[format]}")
    return getattr(module, f"read_{format}")


def format_options(format: str) -> dict[str, bool]:
    """Names of the options of a format, and whether each must be given.

    Raises:
        ProcessingError: there is no such format.
    """
    _, _, *parameters = inspect.signature(reader_of(format)).parameters.values()
    return {parameter.name: parameter.default is parameter.empty for parameter in parameters}


def _records(rows: Iterator[dict[str, Any]], journal: Journal) -> Iterator[Record]:
    """Checked rows; one that breaks the rules of the data format is left out."""
    from molmopoint.data.importers.values import short, whole_text
    from molmopoint.data.records import parse_record

    for row, columns in enumerate(rows, start=1):
        try:
            record = parse_record(columns, row)
            for name in record.media:
                whole_text(name, f"row {row}")  # names on a disk may be of bytes that no text stands for
        except ProcessingError as error:
            file = columns.get("image", columns.get("video"))
            journal.skip("rows", f"{short(file)}: left out: {error}")
            continue
        yield record


def _preferences(rows: Iterator[dict[str, Any]], journal: Journal, source: str) -> Iterator[PreferenceRecord]:
    """Checked rows; one that breaks the rules, or has no answer that is better than another, is left out."""
    from molmopoint.data.preferences import parse_preferences

    for row, columns in enumerate(rows, start=1):
        try:
            record = parse_preferences({**columns, "source": source}, row)
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        if len(record.responses) < 2:
            journal.skip("rows with one answer", f"row {row}: left out, fewer than two answers remain")
        elif not record.says_something:
            journal.skip("rows without a preference", f"row {row}: left out, all answers are as good")
        else:
            yield record


def _option_value(name: str, value: Any, kind: str) -> Any:
    """An option given as text, as what its reader takes.

    Raises:
        ProcessingError: it is no number or no switch.
    """
    kinds = [name.strip() for name in kind.split("|")]
    if value is None and "None" in kinds:
        return None
    if not isinstance(value, str):
        _check_option(name, value, kinds)
        return value
    if "PathLike" in kinds and "\0" in value:
        raise ProcessingError(f"expected the option {name} as a path, got {value[:100]!r}; correct it")
    if "str" in kinds or "PathLike" in kinds:
        return value
    if "bool" in kind:
        if value.lower() not in _SWITCHES:
            raise ProcessingError(
                f"expected the option {name} to be true or false, got {value[:100]!r}; write one of them"
            )
        return _SWITCHES[value.lower()]
    try:
        return float(value)
    except ValueError as error:
        raise ProcessingError(
            f"expected a number as option {name}, got {value[:100]!r}; write one such as 0.2"
        ) from error


_KINDS: dict[str, tuple[type, ...]] = {
    "PathLike": (str, os.PathLike),
    "str": (str,),
    "bool": (bool,),
    "float": (int, float),
    "int": (int,),
}
"""What options of a kind are."""


def _check_option(name: str, value: Any, kinds: list[str]) -> None:
    """Refuses a value that is of none of the kinds of an option.

    Raises:
        ProcessingError: as said.
    """
    known = [kind for kind in kinds if kind in _KINDS]
    fits = any(isinstance(value, _KINDS[kind]) for kind in known)
    is_switch_for_number = isinstance(value, bool) and "bool" not in kinds
    if known and (not fits or is_switch_for_number):
        wanted = " or ".join(_NAMES.get(kind, kind) for kind in known)
        raise ProcessingError(
            f"expected the option {name} as {wanted}, got {type(value).__name__} {value!r:.80}; correct it"
        )


_NAMES = {
    "PathLike": "a path",
    "str": "text",
    "bool": "True or False",
    "float": "a number",
    "int": "a whole number",
}
"""Kinds of options, for people."""


def _check_source(format: str, source: Any, kind: str) -> None:
    """Refuses what is neither a path nor, where a format takes them, rows.

    Raises:
        ProcessingError: as said.
    """
    if isinstance(source, str | os.PathLike):
        if "\0" in os.fspath(source):
            raise ProcessingError(
                f"expected a path as the source of {format}, got {source!r:.80}; correct it"
            )
        return
    takes_rows = "Iterable" in kind or kind == "Source"
    are_rows = isinstance(source, Iterable) and not isinstance(source, Mapping | bytes)
    if takes_rows and are_rows:
        return
    wanted = "a path, or rows" if takes_rows else "the path of a file or folder"
    raise ProcessingError(
        f"expected {wanted} as the source of {format}, got {type(source).__name__} {source!r:.80}; pass one"
    )
