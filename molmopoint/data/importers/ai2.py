"""Data sets of Ai2 as they are on the Hub: PixMo-Points and MolmoPoint-GUISyn.

PixMo-Points (allenai/pixmo-points) has a label and points in percent per row, and pictures by address.
MolmoPoint-GUISyn (allenai/MolmoPoint-GUISyn) has rendered screens with the box, name and intents of every
element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN
from molmopoint.data.importers.reading import PathLike, loaded_json, picture_path, read_rows
from molmopoint.data.importers.values import (
    label_text,
    listed,
    number,
    objects,
    one_of,
    required,
    short,
    whole_text,
)
from molmopoint.data.records import FULL_SCALE
from molmopoint.errors import ProcessingError

SOURCE = "guisyn"
"""Source of the rows: formatting keeps the case of their labels."""


def read_pixmo_points(
    source: PathLike | Iterable[Mapping[str, Any]],
    journal: Journal,
    images: PathLike,
    coords: str = "percent",
) -> Iterator[dict[str, Any]]:
    """Rows of PixMo-Points; a row without points says that there is nothing to point at, and no other does.

    Args:
        source: JSONL or JSON file, or the loaded data set.
        journal: hears which rows are left out because their picture is not there; many addresses are dead by
            now.
        images: folder of the downloaded pictures, named by `image_sha256`, with any ending or none.
        coords: space of the points. The data set's card says pixels, but its values and the published
            training are percent.

    Raises:
        ProcessingError: a file of another kind, or no folder.
    """
    one_of(coords, ("pixel", *FULL_SCALE), "coords")
    folder = Path(images)
    if not folder.is_dir():
        raise ProcessingError(
            f"expected a folder of pictures named by image_sha256, got none at {folder}; download them first"
        )
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.is_file()}
    for position, row in read_rows(source, "image_sha256, label and points", journal):
        where = f"row {position} of the source"
        try:
            name = whole_text(required(row, "image_sha256", where), f"{where}, image_sha256")
            if name not in files:
                journal.skip(
                    "rows whose picture is not there",
                    f"{where}: left out, there is no picture {short(name)} in {folder}",
                )
                continue
            label = label_text(required(row, "label", where), f"{where}, label")
            points = [_point(point, where) for point in listed(row.get("points"), f"{where}, points")]
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        answer = {"points": points, "coords": coords} if points else {"no_points": True}
        yield {"image": str(files[name]), "label": label, **answer}


def _point(point: Any, where: str) -> dict[str, float]:
    return {axis: number(required(point, axis, where), f"{where}, {axis}") for axis in ("x", "y")}


def read_guisyn(
    source: PathLike | Iterable[Mapping[str, Any]], journal: Journal, images: PathLike
) -> Iterator[dict[str, Any]]:
    """One row per element, at the middle of its box: its intents as prompts, and its name as label.

    Training draws anew each time which of them it asks for.

    Args:
        source: JSONL or JSON file, or the loaded data set.
        journal: hears which elements have neither name nor intent.
        images: folder of the screenshots: a path in the column `image` starts there; where that column holds
            the picture itself, the file is `<id>.png`.

    Raises:
        ProcessingError: rows of another kind.
    """
    for position, row in read_rows(source, "id, image and annotation", journal):
        where = f"row {position} of the source"
        try:
            file = _picture(row, Path(images), where)
            elements = _elements(required(row, "annotation", where), where)
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        for index, element in enumerate(elements):
            try:
                columns = _columns(element, f"{where}, element {index}")
            except ProcessingError as error:
                journal.skip(BROKEN, f"left out: {error}")
                continue
            yield {"image": str(file), **columns, "source": SOURCE}


def _picture(row: Mapping[str, Any], folder: Path, where: str) -> Path:
    """The file of the screenshot."""
    image = row.get("image")
    name = image.get("path") if isinstance(image, Mapping) else image
    if isinstance(name, str) and name:
        return picture_path(folder, name, where)
    return picture_path(folder, f"{label_text(required(row, 'id', where), f'{where}, id')}.png", where)


def _columns(element: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Request and place of an element."""
    place = {
        axis: number(required(element, f"{axis}_center", where), f"{where}, {axis}_center")
        for axis in ("x", "y")
    }
    name = element.get("name") or ""
    given = element.get("intent") or []
    intents = [given] if isinstance(given, str) else listed(given, f"{where}, intent")
    prompts = [
        whole_text(intent, f"{where}, intent").strip()
        for intent in intents
        if not isinstance(intent, str) or intent.strip()
    ]
    request: dict[str, Any] = {"prompts": prompts} if prompts else {}
    if not isinstance(name, str) or name.strip():
        request["label"] = whole_text(name, f"{where}, name").strip()
    if not request:
        raise ProcessingError(
            f"{where}: expected a name or an intent, got neither; such elements cannot be asked for"
        )
    return {**request, "points": [place], "coords": "pixel", "style": "pointing"}


def _elements(value: Any, where: str) -> list[Mapping[str, Any]]:
    """Elements from a list, from JSON text, or from the columns that data sets make of a list of objects."""
    if isinstance(value, str):
        try:
            value = loaded_json(value)
        except (ValueError, RecursionError) as error:
            raise ProcessingError(
                f"{where}, annotation: expected a list of elements, got {error}; export it again"
            ) from error
    if isinstance(value, Mapping):
        columns = {str(name): listed(column, f"{where}, annotation") for name, column in value.items()}
        if len({len(column) for column in columns.values()}) > 1:
            raise ProcessingError(
                f"{where}, annotation: expected columns of one length, got several; export it again"
            )
        value = [dict(zip(columns, entries, strict=True)) for entries in zip(*columns.values(), strict=True)]
    return objects(value, f"{where}, annotation")
