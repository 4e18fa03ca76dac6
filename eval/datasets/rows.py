"""Rows of JSON and parquet files, and the items that are made of them.

Every row ends up among the items or among the missing ones, with the reason. Rows may hold pictures and
masks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, Items, Missing, ParsedAnswer
from molmopoint.eval.datasets.files import CACHE_FOLDER, UNREADABLE
from molmopoint.files import open_picture, written_whole

REPEATED = "several items with one id, told apart by their turn"
_DETAIL = 200
"""Characters kept of what is wrong with a row."""


class ItemCollector:
    """Collects the items of a benchmark; every row ends up among the found or the missing ones.

    Attributes:
        found: items so far.
        missing: rows that cannot be asked or scored.
        warnings: faults that were mended, by kind.
    """

    def __init__(self) -> None:
        self.found: list[Item] = []
        self.missing: list[Missing] = []
        self.warnings: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()

    def name(self, key: str) -> str:
        """An id made from content; a second row of the same content gets "#2", a third "#3"."""
        self._seen[key] += 1
        if self._seen[key] == 1:
            return key
        self.warnings[REPEATED] += 1
        return f"{key}#{self._seen[key]}"

    def add(self, item: Item) -> None:
        """A row that can be asked and scored."""
        self.found.append(item)

    def miss(self, item_id: str, reason: str, detail: object = "") -> None:
        """A row that cannot; the same fault in the same words."""
        self.missing.append(Missing(item_id, reason, str(detail)[:_DETAIL]))

    def items(self) -> Items:
        """What was collected."""
        warnings = {kind: count for kind, count in self.warnings.items() if count}
        return Items(tuple(self.found), tuple(self.missing), warnings)


def json_rows(path: Path, advice: str) -> list[dict[str, Any]]:
    """The objects of a JSON file that holds a list.

    Args:
        path: of the file.
        advice: what to do if it is not there.

    Raises:
        EvaluationError: there is no such file, or something else in it.
    """
    if not path.is_file():
        raise EvaluationError(f"expected {path.name} in {path.parent}, found none; {advice}")
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"expected JSON in {path}, got {error}; download it again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise EvaluationError(f"expected a list of objects in {path}, got {str(rows)[:80]!r}; {advice}")
    return rows


def text_of(row: dict[str, Any], field: str) -> str:
    """A field as text without blanks around it; empty where there is none."""
    value = row.get(field)
    return value.strip() if isinstance(value, str) else ""


def whole_text(text: str) -> str:
    """A text with halves of characters spelt out, so that it can be written and hashed."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def whole_number(value: object) -> int | None:
    """A whole number of zero or more, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    is_count = value >= 0 and value == int(value)
    return int(value) if is_count else None


_ORIENTATION = 0x0112
_LARGEST = 1 << 31
"""Pixels; a side of more is no side."""
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@lru_cache(maxsize=8192)
def displayed_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of the displayed picture from its header; None where there is no readable one."""
    try:
        with open_picture(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
    except UNREADABLE:
        return None
    return (height, width) if turned else (width, height)


def stated_size(values: Any) -> tuple[int, int] | None:
    """(width, height) as a data set writes it, or None where it does not say a size."""
    if not isinstance(values, list | tuple) or len(values) != 2:
        return None
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 1 <= value <= _LARGEST:
            return None
    return int(values[0]), int(values[1])


def in_size(answer: ParsedAnswer, size: tuple[int, int] | None) -> tuple[np.ndarray, bool]:
    """Points of an answer in the pixels of the ground truth, and whether they had to be rescaled.

    Pictures that were fetched again years later may have another size than the annotators saw.

    Args:
        answer: to an item of one picture.
        size: (width, height) that the ground truth belongs to; None where nobody knows.

    Returns:
        (n, 2) float64 points, and True where the sizes differ.
    """
    if size is None or not answer.image_sizes or tuple(answer.image_sizes[0]) == size:
        return answer.xy, False
    factor = np.array(size) / np.array(answer.image_sizes[0])
    return answer.xy * factor, True


_ROWS = 8
"""Read at a time: a row with its masks or its picture takes megabytes."""


def find_parquet(folder: Path, split: str) -> list[Path]:
    """Files of one split, in order.

    Raises:
        EvaluationError: there are none.
    """
    found = []
    for path in folder.rglob(f"{split}-*.parquet"):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            found.append(path)
    if not found:
        raise EvaluationError(
            f"expected {split}-*.parquet in {folder} or its folder data, found none; download the data set "
            "again"
        )
    return sorted(found)


def read_rows(
    files: Sequence[Path], columns: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
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
    """The masks of every row: (height, width) bool each, None for one that is no rectangle; empty without
    masks.
    """
    for batch in _batches(files, [column]):
        for cell in batch.column(0):
            if cell.is_valid and cell.values is not None:
                yield [_mask(mask) for mask in cell.values]
            else:
                yield []


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
            f"expected to unpack pictures into {target.parent}, got {error}; copy the data to a folder that "
            "can be written"
        ) from error
    return target


def write_parquet(
    path: Path, rows: Sequence[Mapping[str, Any]], types: Mapping[str, Any] | None = None
) -> None:
    """Rows as a parquet file, as the hub has them; for made items.

    Args:
        path: of the file; its folder is made.
        rows: a cell that a row lacks is empty.
        types: type of pyarrow by column; None where they follow from the rows.

    Raises:
        EvaluationError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise EvaluationError(
            'expected pyarrow to write tables, got none; pip install "molmopoint[eval]"'
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    if types is None:
        write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
        return
    columns = {}
    for name, kind in types.items():
        cells = [row.get(name) for row in rows]
        columns[name] = pa.array(cells, kind)
    write_table(pa.table(columns), path)


def _batches(
    files: Sequence[Path], columns: Sequence[str] | None, optional: Sequence[str] = ()
) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise EvaluationError(
            'expected pyarrow to read parquet files, got none; pip install "molmopoint[eval]"'
        ) from error
    for path in files:
        try:
            with ParquetFile(path) as file:
                there = file.schema_arrow.names
                absent = sorted(set(columns or ()) - set(there))
                if absent:
                    raise EvaluationError(
                        f"expected the columns {', '.join(absent)} in {path}, got {', '.join(there)}; is "
                        "this the right data set?"
                    )
                wanted = None
                if columns is not None:
                    wanted = [*columns, *(name for name in optional if name in there)]
                yield from file.iter_batches(batch_size=_ROWS, columns=wanted)
        except (ArrowException, OSError) as error:
            raise EvaluationError(
                f"expected a whole parquet file, got {path} ({error}); download it again"
            ) from error


def _mask(cell: Any) -> np.ndarray | None:
    """A list of rows of booleans as an array; millions of values, so nothing goes through Python objects."""
    if not cell.is_valid:
        return None
    rows = cell.values
    widths = np.diff(np.asarray(rows.offsets))
    is_rectangle = len(rows) > 0 and not rows.null_count and bool(widths[0]) and (widths == widths[0]).all()
    if not is_rectangle:
        return None
    flat = rows.flatten()
    if flat.null_count:
        return None
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=bool).reshape(len(rows), -1)
