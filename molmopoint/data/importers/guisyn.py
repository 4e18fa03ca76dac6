"""MolmoPoint-GUISyn (allenai/MolmoPoint-GUISyn): rendered screens with the box, name and intents of every element."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import PathLike, numbers, objects, read_rows, required
from molmopoint.data.importers.journal import Journal
from molmopoint.errors import ProcessingError

SOURCE = "guisyn"
"""Source of the rows: formatting keeps the case of their labels."""


def read_guisyn(source: PathLike | Iterable[Mapping[str, Any]], journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """One row per element, at the middle of its box: its intents as prompts, and its name as label.

    Training draws anew each time which of them it asks for.

    Args:
        source: JSONL or JSON file, or the loaded data set.
        journal: hears which elements have neither name nor intent.
        images: folder of the screenshots: a path in the column `image` starts there; where that column holds the picture
            itself, the file is `<id>.png`.

    Raises:
        ProcessingError: rows of another kind.
    """
    for number, row in enumerate(read_rows(source, "id, image and annotation"), start=1):
        where = f"row {number} of the source"
        identity = str(required(row, "id", where))
        image = row.get("image")
        name = image.get("path") if isinstance(image, Mapping) else image
        file = Path(images) / (name if isinstance(name, str) and name else f"{identity}.png")
        for index, element in enumerate(_elements(required(row, "annotation", where), where)):
            place = numbers([required(element, "x_center", where), required(element, "y_center", where)], where, 2)
            request = _request(element)
            if request is None:
                journal.skip("rows", f"{where}, element {index}: left out, it has neither name nor intent")
                continue
            x, y = place.tolist()
            target = {"points": [{"x": x, "y": y}], "coords": "pixel", "style": "pointing"}
            yield {"image": str(file), **request, **target, "source": SOURCE}


def _request(element: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prompts and label of an element, as far as it has them."""
    name = str(element.get("name") or "").strip()
    given = element.get("intent") or []
    intents = [str(intent).strip() for intent in ([given] if isinstance(given, str) else given) if str(intent).strip()]
    return {**({"prompts": intents} if intents else {}), **({"label": name} if name else {})} or None


def _elements(value: Any, where: str) -> Iterator[Mapping[str, Any]]:
    """Elements from a list, from JSON text, or from the columns that data sets make of a list of objects."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ProcessingError(f"{where}, annotation: expected a list of elements, got {error}; export it again") from error
    if isinstance(value, Mapping):
        value = [dict(zip(value, entry, strict=True)) for entry in zip(*value.values(), strict=True)]
    yield from objects(value, f"{where}, annotation")
