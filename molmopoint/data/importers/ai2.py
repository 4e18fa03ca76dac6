"""Data sets of Ai2 as they are on the Hub: PixMo-Points and MolmoPoint-GUISyn.

PixMo-Points (allenai/pixmo-points) has a label and points in percent per row, and pictures by address.
MolmoPoint-GUISyn (allenai/MolmoPoint-GUISyn) has rendered screens with the box, name and intents of every
element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.hub_rows import (
    NOT_THERE,
    NamedFiles,
    NoFile,
    answer_of,
    entries_of,
    picture_of,
    points_of,
)
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN
from molmopoint.data.importers.reading import PathLike, read_rows
from molmopoint.data.importers.values import (
    label_text,
    listed,
    number,
    one_of,
    required,
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
    files = NamedFiles(Path(images), "image_sha256")
    for position, row in read_rows(source, "image_sha256, label and points", journal):
        where = f"row {position} of the source"
        try:
            name = whole_text(required(row, "image_sha256", where), f"{where}, image_sha256")
            file = files.called(name, where)
            label = label_text(required(row, "label", where), f"{where}, label")
            points = points_of(row.get("points"), f"{where}, points")
        except NoFile as error:
            journal.skip(NOT_THERE, str(error))
            continue
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        yield {"image": str(file), "label": label, **answer_of(points, coords)}


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
            file = picture_of(row, Path(images), row.get("id"), f"{where}, id")
            elements = entries_of(required(row, "annotation", where), f"{where}, annotation")
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
