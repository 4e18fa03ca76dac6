"""Rows from files and data sets, one after the other, and rows into files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.data_sets import data_set_rows, is_data_set, names_data_set, open_data_set
from molmopoint.data.record_checks import row_error
from molmopoint.data.record_parsing import parse_record, record_fields
from molmopoint.data.record_types import Record
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file, remove_leftovers, written_whole

Source = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
"""A JSONL file; a parquet file, a saved data set or "owner/name" of one on the Hub; or rows, such as a loaded data set."""


def iterate_rows(source: Source, *, split: str | None = None) -> Iterator[tuple[int, Any]]:
    """Number and unchecked columns of each row.

    Pictures embedded in a data set stay in it: a row holds their digest and their place, and memory does not grow with them.

    Args:
        source: see `Source`; data sets need the extra `train`.
        split: of a data set with several; by default "train", or the only one.

    Empty lines are passed over but counted. A line that is no JSON is given as the `ProcessingError` it means, so that a
    checker can go on; `read_records` raises it.

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
        raise ProcessingError(f"expected a JSONL file with one row per line, got no file {path}; check the path")
    with path.open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if line.strip():
                yield row, _json_line(line, row)


def read_records(source: Source, *, split: str | None = None) -> Iterator[Record]:
    """Checked records, one after the other.

    Args:
        source: see `Source`; data sets need the extra `train`.
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
        raise ProcessingError(f"expected one or more rows, got none in {name}; check that it is the file you meant")


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
    except (ValueError, RecursionError) as error:  # other encodings, numbers of thousands of digits, lists in lists in lists
        got = f"{type(error).__name__}: {error}"
    return row_error(row, None, "one JSON object per line", got, "write every row on a line of its own, in UTF-8")
