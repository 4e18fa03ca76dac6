"""Readers of other annotation formats: each gives rows of the library's own, see `docs/data_format.md`.

Detection formats hold objects, we hold requests: every label of a picture becomes one row with all its points. An object that
has no place (a shape without an area, a crowd) makes the list of its label incomplete, and a model trained on incomplete
lists learns to overlook things; so that label is left out on that picture, and `on_skip` hears why.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from molmopoint.data.importers.coco import read_coco
from molmopoint.data.importers.common import OnSkip
from molmopoint.data.importers.cvat import read_cvat
from molmopoint.data.importers.guisyn import read_guisyn
from molmopoint.data.importers.label_studio import read_label_studio
from molmopoint.data.importers.labelme import read_labelme
from molmopoint.data.importers.pixmo_points import read_pixmo_points
from molmopoint.data.importers.screenspot import read_screenspot
from molmopoint.data.importers.yolo import read_yolo
from molmopoint.data.records import Record, parse_record
from molmopoint.errors import ProcessingError

READERS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "guisyn": read_guisyn,
    "label_studio": read_label_studio,
    "labelme": read_labelme,
    "pixmo_points": read_pixmo_points,
    "screenspot": read_screenspot,
    "yolo": read_yolo,
}
"""Format name to a function (source, on_skip, options ...) that gives the columns of one row after the other."""

_logger = logging.getLogger(__name__)


def import_records(
    format: str,
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    on_skip: OnSkip | None = None,
    **options: Any,
) -> Iterator[Record]:
    """Rows from another format.

    Args:
        format: one of `READERS`.
        source: file or folder; for `pixmo_points` and `guisyn` also a Hugging Face data set or another iterable of rows.
        on_skip: called with a sentence for everything that is left out; by default it is logged as a warning.
        options: of the format; `format_options` lists them.

    Returns:
        Records in the order of the source; paths of pictures start where those of `source` and the options do.

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
    # Checked at the call rather than at the first row, hence the inner generator.
    return _records(READERS[format](source, on_skip or _logger.warning, **options))


def format_options(format: str) -> dict[str, bool]:
    """Names of the options of a format, and whether each must be given."""
    parameters = list(inspect.signature(READERS[format]).parameters.values())[2:]
    return {parameter.name: parameter.default is parameter.empty for parameter in parameters}


def _records(rows: Iterator[dict[str, Any]]) -> Iterator[Record]:
    for row, columns in enumerate(rows, start=1):
        yield parse_record(columns, row)
