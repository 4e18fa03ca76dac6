"""What the importers share: reading files, finding pictures, and collecting the points of a picture by label."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.data.interior import mask_interior, polygon_interior
from molmopoint.errors import ProcessingError

OnSkip = Callable[[str], object]
"""Hears a sentence about everything that is left out."""

PathLike = str | os.PathLike[str]


class PointLists:
    """The points of one picture, one list per label."""

    def __init__(self, image: str, coords: str, on_skip: OnSkip) -> None:
        self.image = image
        self.coords = coords
        self._on_skip = on_skip
        self._lists: dict[str, list[dict[str, float]]] = {}
        self._spoilt: dict[str, str] = {}

    def add(self, label: str, x: float, y: float) -> None:
        """One object."""
        self._lists.setdefault(label, []).append({"x": float(x), "y": float(y)})

    def add_polygon(self, label: str, rings: Iterable[np.ndarray]) -> None:
        """An object of one or more parts, (num_corners, 2) each; it has a place if one part has an area."""
        try:
            self.add(label, *polygon_interior(list(rings)))
        except ProcessingError as error:
            self.spoil(label, str(error))

    def add_mask(self, label: str, mask: np.ndarray, left: float = 0, top: float = 0) -> None:
        """An object from its mask (height, width), whose upper left corner is at (left, top)."""
        try:
            x, y = mask_interior(mask)
        except ProcessingError as error:
            self.spoil(label, str(error))
        else:
            self.add(label, x + left, y + top)

    def spoil(self, label: str, reason: str) -> None:
        """An object of this label has no place, so the list cannot be complete."""
        self._spoilt.setdefault(label, reason)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Columns of one row per label that is complete."""
        for label, reason in self._spoilt.items():
            self._on_skip(f"{self.image}, label {label!r}: left out, an object has no place: {reason}")
        for label, points in self._lists.items():
            if label not in self._spoilt:
                yield {"image": self.image, "label": label, "points": points, "coords": self.coords}


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        ProcessingError: the file is missing or holds no JSON.
    """
    try:
        return json.loads(existing_file(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ProcessingError(f"expected JSON in {path}, got {error}; export it again") from error


def read_rows(source: PathLike | Iterable[Mapping[str, Any]], wanted: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a JSONL file, of a JSON file with a list, or of an iterable such as a Hugging Face data set.

    Raises:
        ProcessingError: a file of another kind, or a row that is no object.
    """
    rows: Iterable[Any] = source if not isinstance(source, str | os.PathLike) else _file_rows(Path(source))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise ProcessingError(f"row {number}: expected an object with {wanted}, got {type(row).__name__}; check the format")
        yield row


def existing_file(path: Path) -> Path:
    """The path itself, if it is a file."""
    if not path.is_file():
        raise ProcessingError(f"expected a file, got none at {path}; check the path")
    return path


def required(item: Mapping[str, Any], name: str, where: str) -> Any:
    """A field that must be there.

    Raises:
        ProcessingError: it is not, or not given a value.
    """
    value = item.get(name) if isinstance(item, Mapping) else None
    if value is None:
        raise ProcessingError(f"{where}: expected a field {name!r}, got none; check that the format is the right one")
    return value


def objects(value: Any, where: str) -> list[Mapping[str, Any]]:
    """A list of JSON objects.

    Raises:
        ProcessingError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise ProcessingError(f"{where}: expected a list of objects, got {str(value)[:80]!r}; check that the format is the right one")
    return value


def numbers(values: Any, where: str, count: int | None = None) -> np.ndarray:
    """(n,) finite float64 numbers.

    Raises:
        ProcessingError: they are no numbers, or not `count`.
    """
    try:
        array = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        array = np.array([np.nan])
    if not np.isfinite(array).all() or (count is not None and len(array) != count):
        raise ProcessingError(f"{where}: expected {count or 'finite'} numbers, got {str(values)[:80]!r}; export it again")
    return array


def corners(values: Any, where: str) -> np.ndarray:
    """(n, 2) x and y from a flat or nested list.

    Raises:
        ProcessingError: no numbers, or an odd number of them.
    """
    flat = numbers(values, where)
    if len(flat) % 2:
        raise ProcessingError(f"{where}: expected pairs of x and y, got {len(flat)} numbers; export it again")
    return flat.reshape(-1, 2)


def _file_rows(path: Path) -> Iterator[Any]:
    existing_file(path)
    if path.suffix == ".parquet":
        raise ProcessingError(
            f"expected JSONL or JSON, got {path.name}; load it with datasets.load_dataset and pass the data set, or save it by to_json"
        )
    if path.suffix == ".json":
        rows = read_json(path)
        yield from rows if isinstance(rows, list) else [rows]
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ProcessingError(f"{path.name}, line {number}: expected a JSON object, got {error}; export it again") from error
