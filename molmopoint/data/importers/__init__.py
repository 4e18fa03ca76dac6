"""Readers of other annotation formats: each gives rows of the library's own, see `docs/data_format.md`.

Bases for readers: `common` reads files and values, `point_lists` gathers the points of a picture and `collecting` the pictures,
`placement` compares the recorded size of a picture with its file, `rings` and `masks` have shapes, and `journal` counts what is
left out.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from molmopoint.data.importers.coco import read_coco
from molmopoint.data.importers.common import short, whole_text
from molmopoint.data.importers.cvat import read_cvat
from molmopoint.data.importers.darknet import read_darknet
from molmopoint.data.importers.datumaro import read_datumaro
from molmopoint.data.importers.guisyn import read_guisyn
from molmopoint.data.importers.journal import Journal, OnSkip
from molmopoint.data.importers.label_studio import read_label_studio
from molmopoint.data.importers.labelme import read_labelme
from molmopoint.data.importers.pixmo_points import read_pixmo_points
from molmopoint.data.importers.screenspot import read_screenspot
from molmopoint.data.importers.via import read_via
from molmopoint.data.importers.voc import read_voc
from molmopoint.data.importers.yolo import read_yolo
from molmopoint.data.records import Record, parse_record
from molmopoint.errors import ProcessingError

__all__ = ["READERS", "Journal", "format_options", "import_records"]

READERS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "darknet": read_darknet,
    "datumaro": read_datumaro,
    "guisyn": read_guisyn,
    "label_studio": read_label_studio,
    "labelme": read_labelme,
    "pixmo_points": read_pixmo_points,
    "screenspot": read_screenspot,
    "via": read_via,
    "voc": read_voc,
    "yolo": read_yolo,
}
"""Format name to a function (source, journal, options ...) that gives the columns of one row after the other."""

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
        format: one of `READERS`.
        source: file or folder; for `pixmo_points` and `guisyn` also a Hugging Face data set or another iterable of rows.
        on_skip: called with a sentence for everything that is left out; by default it is logged as a warning.
        journal: counts what is left out and tells what else happened, in place of `on_skip`.
        options: of the format; `format_options` lists them. Numbers and switches may be given as text.

    Returns:
        Records in the order of the source, then those about what is absent; paths of pictures start where those of `source` and
        the options do.

    Raises:
        ProcessingError: an unknown format or option, a missing option, or a source that is not of that format.
    """
    if format not in READERS:
        raise ProcessingError(f"expected a format among {', '.join(READERS)}, got {format!r}; choose the one of your files")
    known = format_options(format)
    if unknown := sorted(set(options) - set(known)):
        raise ProcessingError(f"expected options of {format} among {', '.join(known)}, got {unknown[0]!r}; check its name")
    if missing := [name for name, required in known.items() if required and name not in options]:
        raise ProcessingError(f"expected the option {missing[0]!r} of {format}, got none; it cannot be guessed from the file")
    parameters = inspect.signature(READERS[format]).parameters
    values = {name: _option_value(name, value, str(parameters[name].annotation)) for name, value in options.items()}
    # Checked at the call rather than at the first row, hence the inner generator.
    hears = Journal(on_skip or _logger.warning) if journal is None else journal
    return _records(READERS[format](source, hears, **values), hears)


def format_options(format: str) -> dict[str, bool]:
    """Names of the options of a format, and whether each must be given."""
    parameters = list(inspect.signature(READERS[format]).parameters.values())[2:]
    return {parameter.name: parameter.default is parameter.empty for parameter in parameters}


def _records(rows: Iterator[dict[str, Any]], journal: Journal) -> Iterator[Record]:
    """Checked rows; one that breaks the rules of the data format is left out."""
    for row, columns in enumerate(rows, start=1):
        try:
            record = parse_record(columns, row)
            for name in record.media:
                whole_text(name, f"row {row}")  # names on a disk may be of bytes that no text stands for
        except ProcessingError as error:
            journal.skip("rows", f"{short(columns.get('image', columns.get('video')))}: left out: {error}")
            continue
        yield record


def _option_value(name: str, value: Any, kind: str) -> Any:
    """An option given as text, as what its reader takes.

    Raises:
        ProcessingError: it is no number or no switch.
    """
    if not isinstance(value, str) or "str" in kind or "PathLike" in kind:
        return value
    if "bool" in kind:
        if value.lower() not in _SWITCHES:
            raise ProcessingError(f"expected the option {name} to be true or false, got {short(value)}; write one of them")
        return _SWITCHES[value.lower()]
    try:
        return float(value)
    except ValueError as error:
        raise ProcessingError(f"expected a number as option {name}, got {short(value)}; write one such as 0.2") from error
