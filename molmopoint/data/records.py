"""The rows a user writes: one visual input, one request, and what the model should answer.

A row is a line of a JSONL file or a row of a data set with the same columns; `docs/data_format.md` shows one
of each kind and `record.schema.json` is the schema. Nothing is guessed: the space of the coordinates is
written in every row with points, and a column that is not known is refused, so that a misspelt one does not
silently do nothing.

Rows are counted from 1; of a file that is the line, so an editor finds it. They come from JSONL files, and
with the extra `train` from Hugging Face data sets: loaded ones, saved ones, parquet files, and those of the
Hub.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from molmopoint.data.embedded import EmbeddedPicture, StoredBytes, embedded_picture
from molmopoint.data.record_columns import COLUMNS, POINT_COLUMNS, TURN_COLUMNS
from molmopoint.data.record_parsing import parse_record, record_fields
from molmopoint.data.record_types import FULL_SCALE, POINT_STYLES, TRACK_STYLES, Coords, Record, RecordPoint
from molmopoint.data.row_model import row_error
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file, is_folder, remove_leftovers, written_whole

__all__ = [
    "COLUMNS", "FULL_SCALE", "POINT_COLUMNS", "POINT_STYLES", "TRACK_STYLES", "TURN_COLUMNS", "Coords", "EmbeddedPicture", "Record",
    "RecordPoint",
    "iterate_rows", "parse_record", "picture_sources", "read_records", "record_fields", "resolve_media", "to_pixels", "write_records",
]  # fmt: skip

_BATCH = 32
"""Rows that are read at a time; with their pictures they must fit into memory."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_TEXT_ENDINGS = {".jsonl", ".json", ".txt"}


def is_data_set(source: Any) -> bool:
    """Whether this is a loaded data set with random access; whoever has one has imported `datasets`."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(source, library.Dataset)


def names_data_set(source: str | os.PathLike[str]) -> bool:
    """Whether this names a folder, a parquet file or a data set of the Hub rather than a JSONL file."""
    path = Path(source)
    if is_folder(path) or path.suffix == ".parquet":
        return True
    if not isinstance(source, str) or is_file(path) or path.suffix in _TEXT_ENDINGS:
        return False
    return _HUB_NAME.fullmatch(source) is not None


def open_data_set(source: str | os.PathLike[str], split: str | None = None) -> Any:
    """A `datasets.Dataset`, memory-mapped.

    Args:
        source: a folder that `save_to_disk` wrote, a folder of parquet or picture files, a parquet file, or
            "owner/name" on the Hub.
        split: which part; by default "train", or the only one there is.

    Raises:
        ProcessingError: nothing of that kind, no such split, or `datasets` is not installed.
    """
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise ProcessingError(
            f'expected the package `datasets` to read {source}; pip install "molmopoint[train]"'
        ) from error
    path = Path(source)
    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded: Any = datasets.load_from_disk(str(path))
        elif path.suffix == ".parquet":
            loaded = datasets.load_dataset("parquet", data_files=str(path.resolve(strict=True)))
        else:
            loaded = datasets.load_dataset(str(source))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ProcessingError(
            "expected a JSONL or parquet file, a saved data set or the name of one on the Hub, got "
            f"{source} ({reason}); check the name"
        ) from error
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    chosen = split
    if not split and "train" in loaded:
        chosen = "train"
    elif not split and len(loaded) == 1:
        [chosen] = loaded
    if chosen not in loaded:
        raise ProcessingError(
            f"expected a split among {', '.join(map(str, loaded))} in {source}, got {chosen!r}; name one "
            "with split"
        )
    return loaded[chosen]


def data_set_rows(data_set: Any) -> Iterator[dict[str, Any]]:
    """The columns of each row as plain values; embedded pictures stay in the data set and are named by their
    content.
    """
    table = data_set.with_format("arrow")  # pictures are not decoded
    row = 0
    for batch in table.iter(batch_size=_BATCH):
        for columns in batch.to_pylist():
            for name in ("image", "images"):
                if columns.get(name) is not None:
                    columns[name] = _with_pictures(columns[name], table, row, name)
            yield columns
            row += 1


def _with_pictures(value: Any, table: Any, row: int, column: str) -> Any:
    """A cell, or the entries of a list in it, where embedded pictures are named by their content."""
    if not isinstance(value, list):
        return embedded_picture(value, StoredBytes(table, row, column, None)) or value
    entries = []
    for index, entry in enumerate(value):
        entries.append(embedded_picture(entry, StoredBytes(table, row, column, index)) or entry)
    return entries


RecordSource = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
"""A JSONL file; a parquet file, a saved data set or "owner/name" of one on the Hub; or rows, such as a loaded
data set.
"""


def iterate_rows(source: RecordSource, *, split: str | None = None) -> Iterator[tuple[int, Any]]:
    """Number and unchecked columns of each row.

    Pictures embedded in a data set stay in it: a row holds their digest and their place, and memory does not
    grow with them.

    Args:
        source: see `RecordSource`; data sets need the extra `train`.
        split: of a data set with several; by default "train", or the only one.

    Empty lines are passed over but counted. A line that is no JSON is given as the `ProcessingError` it
    means, so that a checker can go on; `read_records` raises it.

    Raises:
        ProcessingError: there is no such file.
    """
    if isinstance(source, str | os.PathLike) and names_data_set(source):
        source = open_data_set(source, split)
    if not isinstance(source, str | os.PathLike):
        yield from enumerate(data_set_rows(source) if is_data_set(source) else source, start=1)
        return
    path = Path(source)
    if not is_file(path):
        raise ProcessingError(
            f"expected a JSONL file with one row per line, got no file {path}; check the path"
        )
    with path.open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if line.strip():
                yield row, _json_line(line, row)


def read_records(source: RecordSource, *, split: str | None = None) -> Iterator[Record]:
    """Checked records, one after the other.

    Args:
        source: see `RecordSource`; data sets need the extra `train`.
        split: of a data set with several; by default "train", or the only one.

    Raises:
        ProcessingError: the file or a row is faulty, or there are no rows.
    """
    empty = True
    for row, columns in iterate_rows(source, split=split):
        empty = False
        if isinstance(columns, ProcessingError):
            raise columns
        yield parse_record(columns, row)
    if empty:
        name = source if isinstance(source, str | os.PathLike) else "the data set"
        raise ProcessingError(
            f"expected one or more rows, got none in {name}; check that it is the file you meant"
        )


def write_records(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Writes a JSONL file whole or not at all: a crash or a full disk leaves the old one as it was.

    Returns:
        Number of rows written.
    """
    count = 0
    remove_leftovers(Path(path).parent)
    with written_whole(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record_fields(record), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _json_line(line: bytes, row: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        got = f"{error.msg} at column {error.colno}"
    except (
        ValueError,
        RecursionError,
    ) as error:  # other encodings, numbers of thousands of digits, lists in lists in lists
        got = f"{type(error).__name__}: {error}"
    return row_error(
        row, None, "one JSON object per line", got, "write every row on a line of its own, in UTF-8"
    )


def to_pixels(
    record: Record, sizes: Sequence[tuple[int, int]], *, clip: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a record in pixels of the displayed pictures.

    Args:
        record: any; without points the result is empty.
        sizes: (width, height) of each picture as displayed, or one entry for a clip.
        clip: move points outside the picture to its edge instead of refusing them.

    Returns:
        group, (n,) int64 index of the picture or float64 seconds, and xy, (n, 2) float64 pixels.

    Raises:
        ProcessingError: sizes that do not fit the record, or a point outside its picture without `clip`.
    """
    expected = 1 if record.video is not None else len(record.images)
    if len(sizes) != expected:
        raise row_error(
            record.row,
            None,
            f"the size of {expected} pictures or clips",
            str(len(sizes)),
            "pass one (width, height) for each",
        )
    points = record.points or ()
    picture = np.array([point.image for point in points], dtype=np.int64)  # (n,) 0 for points of a clip
    group = picture
    if record.video is not None:
        group = np.array([point.t for point in points], dtype=np.float64)  # (n,)
    xy = np.array([(point.x, point.y) for point in points], dtype=np.float64).reshape(-1, 2)  # (n, 2)
    wh = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)[picture]  # (n, 2)
    scale = wh
    if record.coords != "pixel" and points:
        scale = np.full_like(wh, FULL_SCALE[str(record.coords)])
    is_inside = ((xy >= 0) & (xy <= scale)).all(axis=1)
    if not clip and not is_inside.all():
        i = int(np.argmin(is_inside))
        raise row_error(
            record.row,
            f"points[{i}]",
            f"x in 0..{scale[i, 0]:g} and y in 0..{scale[i, 1]:g} for coords {record.coords!r}",
            f"({xy[i, 0]:g}, {xy[i, 1]:g})",
            "correct the point, or coords if it names the wrong space, or drop the point",
        )
    return group, np.clip(xy / scale, 0.0, 1.0) * wh


def resolve_media(
    record: Record, folder: str | os.PathLike[str]
) -> tuple[tuple[Path | Image.Image, ...], Path | None]:
    """What `load_picture` reads for each picture, and the file of the clip; a relative path starts at
    `folder`, that of the JSONL file.

    Pictures that lie in a data set are opened here and decoded when they are used, so call it where a row is
    needed.

    Raises:
        ProcessingError: what is embedded is no picture; the message names the row.
    """
    pictures: list[Path | Image.Image] = []
    for source in picture_sources(record, folder):
        try:
            pictures.append(source.open() if isinstance(source, EmbeddedPicture) else source)
        except ProcessingError as error:
            raise ProcessingError(f"row {record.row}, image: {error}") from error
    clip = None if record.video is None else Path(folder) / record.video
    return tuple(pictures), clip


def picture_sources(record: Record, folder: str | os.PathLike[str]) -> tuple[Path | EmbeddedPicture, ...]:
    """Files of the pictures, or where else they lie, unopened."""
    return tuple(
        image if isinstance(image, EmbeddedPicture) else Path(folder) / image for image in record.images
    )
