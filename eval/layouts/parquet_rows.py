"""Rows, masks and pictures inside parquet files, as the hub publishes data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.layouts.mask_files import CACHE_FOLDER
from molmopoint.files import written_whole

_ROWS = 8
"""Read at a time: a row with its masks or its picture takes megabytes."""


def find_parquet(folder: Path, split: str) -> list[Path]:
    """Files of one split, in order.

    Raises:
        EvaluationError: there are none.
    """
    every = folder.rglob(f"{split}-*.parquet")
    found = [path for path in every if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        raise EvaluationError(f"expected {split}-*.parquet in {folder} or its folder data, found none; download the data set again")
    return sorted(found)


def read_rows(files: Sequence[Path], columns: Sequence[str] | None = None, optional: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Rows as Python values.

    Args:
        files: in order.
        columns: the only ones that are read, which every file must have; None for all.
        optional: columns that are read too where a file has them.

    Raises:
        EvaluationError: a file is broken or lacks a column.
    """
    for batch in _batches(files, columns, optional):
        yield from batch.to_pylist()


def read_masks(files: Sequence[Path], column: str = "masks") -> Iterator[list[np.ndarray | None]]:
    """The masks of every row: (height, width) bool each, None for one that is no rectangle; no masks, an empty list."""
    for batch in _batches(files, [column]):
        for cell in batch.column(0):
            yield [_mask(mask) for mask in cell.values] if cell.is_valid and cell.values is not None else []


def keep_picture(cell: Mapping[str, Any] | None, folder: Path) -> Path | None:
    """Writes an embedded picture into the folder of caches, named by its bytes.

    Args:
        cell: `{"bytes": ..., "path": ...}`, or None.
        folder: of the data set.

    Returns:
        The file, or None if the row has no picture.

    Raises:
        EvaluationError: the folder cannot be written.
    """
    content = None if cell is None else cell.get("bytes")
    if not content:
        return None
    target = folder / CACHE_FOLDER / "pictures" / hashlib.sha256(content).hexdigest()
    if target.is_file() and target.stat().st_size == len(content):
        return target
    try:
        with written_whole(target) as beside:
            beside.write_bytes(content)
    except OSError as error:
        raise EvaluationError(
            f"expected to unpack pictures into {target.parent}, got {error}; copy the data to a folder that can be written"
        ) from error
    return target


def _batches(files: Sequence[Path], columns: Sequence[str] | None, optional: Sequence[str] = ()) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise EvaluationError('expected pyarrow to read parquet files, got none; pip install "molmopoint[eval]"') from error
    for path in files:
        try:
            with ParquetFile(path) as file:
                if absent := sorted(set(columns or ()) - set(file.schema_arrow.names)):
                    names = ", ".join(file.schema_arrow.names)
                    raise EvaluationError(f"expected the columns {', '.join(absent)} in {path}, got {names}; is this the right data set?")
                there = [name for name in optional if name in file.schema_arrow.names]
                yield from file.iter_batches(batch_size=_ROWS, columns=None if columns is None else [*columns, *there])
        except (ArrowException, OSError) as error:
            raise EvaluationError(f"expected a whole parquet file, got {path} ({error}); download it again") from error


def _mask(cell: Any) -> np.ndarray | None:
    """A list of rows of booleans as an array; millions of values, so nothing goes through Python objects."""
    if not cell.is_valid:
        return None
    rows = cell.values
    widths = np.diff(np.asarray(rows.offsets))
    if not len(rows) or rows.null_count or (widths != widths[0]).any() or not widths[0]:
        return None
    flat = rows.flatten()
    return None if flat.null_count else np.asarray(flat.to_numpy(zero_copy_only=False), dtype=bool).reshape(len(rows), -1)
