"""What data sets on the hub have in common: pictures and clips beside them, found by name, and points in columns.

The sets of Ai2 hold addresses and hashes instead of pictures, so whoever uses them has fetched the pictures into
a folder before, each under a name that its row tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.reading import loaded_json, picture_path
from molmopoint.data.importers.values import label_text, listed, number, objects, required, short
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file, is_folder

NOT_THERE = "rows whose picture is not there"
"""Kind of what is left out for want of a picture: many addresses of these sets are dead by now."""

Entry = dict[str, float]
"""A point with "x" and "y", as rows of ours have them."""


class NoFile(Exception):
    """A picture or clip that a row names is not in the folder."""


class NamedFiles:
    """The files of a folder, by their names without ending.

    Args:
        folder: where they are.
        named_by: the column that names them, for messages.
        suffixes: endings that count; None for any and none.

    Raises:
        ProcessingError: there is no such folder.
    """

    def __init__(self, folder: Path, named_by: str, suffixes: Collection[str] | None = None) -> None:
        if not is_folder(folder):
            raise ProcessingError(
                f"expected a folder of files named by {named_by}, got none at {folder}; download them first"
            )
        self._folder = folder
        self._files: dict[str, Path] = {}
        for file in sorted(folder.iterdir()):
            if is_file(file) and (suffixes is None or file.suffix.lower() in suffixes):
                self._files.setdefault(file.stem, file)

    def called(self, name: str, where: str) -> Path:
        """The file of that name.

        Raises:
            NoFile: there is none.
        """
        if name not in self._files:
            raise NoFile(f"{where}: left out, there is no file {short(name)} in {self._folder}")
        return self._files[name]


def picture_of(row: Mapping[str, Any], folder: Path, otherwise: Any, where: str) -> Path:
    """The file of a row whose column `image` is a path, or the picture itself.

    Args:
        row: of the data set.
        folder: where paths begin.
        otherwise: what names the file, before ".png", where the column does not.
        where: the row, for messages.

    Raises:
        ProcessingError: no usable name, or one that leads out of the folder.
    """
    image = row.get("image")
    name = image.get("path") if isinstance(image, Mapping) else image
    if isinstance(name, str) and name:
        return picture_path(folder, name, where)
    return picture_path(folder, f"{label_text(otherwise, where)}.png", where)


def points_of(value: Any, where: str) -> list[Entry]:
    """Points from a list of {x, y}, or from the two columns that data sets make of one; nothing is no points.

    Raises:
        ProcessingError: something else.
    """
    return [
        {axis: number(required(point, axis, where), f"{where}, {axis}") for axis in ("x", "y")}
        for point in entries_of(value, where)
    ]


def entries_of(value: Any, where: str) -> list[Mapping[str, Any]]:
    """Objects from a list, from JSON text, or from the columns that data sets make of a list of objects.

    Raises:
        ProcessingError: it is none of these.
    """
    if isinstance(value, str):
        value = json_of(value, where)
    if value is None:
        return []
    if isinstance(value, Mapping):
        columns = {str(name): listed(column, where) for name, column in value.items()}
        if len({len(column) for column in columns.values()}) > 1:
            raise ProcessingError(f"{where}: expected columns of one length, got several; export it again")
        value = [dict(zip(columns, entries, strict=True)) for entries in zip(*columns.values(), strict=True)]
    return objects(value, where)


def json_of(text: str, where: str) -> Any:
    """The value of JSON that stands in a column as text.

    Raises:
        ProcessingError: it is no JSON.
    """
    try:
        return loaded_json(text)
    except (ValueError, RecursionError) as error:
        raise ProcessingError(f"{where}: expected JSON, got {error}; export it again") from error


def pairs(first: list[Any], second: list[Any], where: str) -> Iterator[tuple[int, Any, Any]]:
    """Number from 0 and entries of two columns of one length.

    Raises:
        ProcessingError: their lengths differ.
    """
    if len(first) != len(second):
        raise ProcessingError(
            f"{where}: expected columns of one length, got {len(first)} and {len(second)}; export it again"
        )
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        yield index, one, other


def answer_of(points: list[Entry], coords: str) -> dict[str, Any]:
    """Columns of an answer: the points, or that there are none."""
    return {"points": points, "coords": coords} if points else {"no_points": True}


def check_count(count: Any, points: int, where: str) -> None:
    """Refuses a list of points that does not have as many as the row says: it would teach to overlook things.

    Raises:
        ProcessingError: another number, or none that can be read.
    """
    if count is None:
        return
    if number(count, f"{where}, count") != points:
        raise ProcessingError(
            f"{where}: expected as many points as its count, got {points} and {short(count)}; the list may "
            "not be whole"
        )
