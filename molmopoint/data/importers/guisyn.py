"""MolmoPoint-GUISyn (allenai/MolmoPoint-GUISyn): rendered screens with the box, name and intents of every element."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import OnSkip, PathLike, numbers, objects, read_rows, required
from molmopoint.errors import ProcessingError

INTENT_SHARE = 0.8
"""Share of elements with both a name and intents that are asked for by an intent. Source: the published training."""


def read_guisyn(
    source: PathLike | Iterable[Mapping[str, Any]], on_skip: OnSkip, images: PathLike, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """One row per element, at the middle of its box: a random intent as prompt, or its name as label.

    Args:
        source: JSONL or JSON file, or the loaded data set.
        on_skip: hears which elements have neither name nor intent.
        images: folder of the screenshots: a path in the column `image` starts there; where that column holds the picture
            itself, the file is `<id>.png`.
        seed: of the choice of intents; an element's choice does not depend on the other rows.

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
            request = _request(element, random.Random(f"{seed}:{identity}:{index}"))
            if request is None:
                on_skip(f"{where}, element {index}: left out, it has neither name nor intent")
                continue
            x, y = place.tolist()
            yield {"image": str(file), **request, "points": [{"x": x, "y": y}], "coords": "pixel"}


def _request(element: Mapping[str, Any], rng: random.Random) -> dict[str, str] | None:
    """Prompt and label of an element; an intent is also what its answer is labelled with."""
    name = str(element.get("name") or "").strip()
    given = element.get("intent") or []
    intents = [str(intent).strip() for intent in ([given] if isinstance(given, str) else given) if str(intent).strip()]
    if intents and (not name or rng.random() < INTENT_SHARE):
        intent = rng.choice(intents)
        return {"prompt": intent, "label": intent}
    return {"label": name} if name else None


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
