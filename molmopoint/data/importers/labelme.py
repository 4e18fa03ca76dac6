"""LabelMe: one JSON file beside each picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.data.importers.common import OnSkip, PathLike, PointLists, corners, objects, read_json, required
from molmopoint.errors import ProcessingError
from molmopoint.files import open_picture


def read_labelme(source: PathLike, on_skip: OnSkip) -> Iterator[dict[str, Any]]:
    """Rows of LabelMe files.

    Args:
        source: one JSON file, or a folder with many, at any depth.
        on_skip: hears what is left out.

    Raises:
        ProcessingError: no such files.
    """
    path = Path(source)
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ProcessingError(f"expected LabelMe files (.json) in {path}, got none; pass the folder of the annotations")
    for file in files:
        document = read_json(file)
        image = str(required(document, "imagePath", file.name)).replace("\\", "/")  # as written on Windows
        lists = PointLists(str(file.parent / image), "pixel", on_skip)
        for shape in objects(required(document, "shapes", file.name), file.name):
            _add(lists, shape, f"{file.name}, shape {shape.get('label')!r}")
        yield from lists.rows()


def _add(lists: PointLists, shape: Mapping[str, Any], where: str) -> None:
    label = str(required(shape, "label", where))
    kind = shape.get("shape_type") or "polygon"
    places = corners(required(shape, "points", where), where)
    if len(places) == 0:
        lists.spoil(label, "it has no points")
    elif kind == "polygon":
        lists.add_polygon(label, [places])
    elif kind == "rectangle":
        lists.add(label, *places.mean(axis=0))
    elif kind in ("point", "circle"):  # the first point of a circle is its middle, the second lies on it
        lists.add(label, *places[0])
    elif kind == "points":
        for x, y in places:
            lists.add(label, x, y)
    elif kind == "mask":
        left, top = places.min(axis=0)
        lists.add_mask(label, _mask(required(shape, "mask", where), where), left, top)
    else:
        lists.spoil(label, f"shapes of type {kind} have no inside; use points, circles, boxes, polygons or masks")


def _mask(text: str, where: str) -> np.ndarray:
    """(height, width) of the picture that LabelMe keeps as text; its upper left corner is the shape's first point."""
    try:
        with open_picture(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
            return np.asarray(picture.convert("L")) > 0
    except (ValueError, TypeError, OSError) as error:
        raise ProcessingError(f"{where}: expected a mask as base64 picture, got {error}; save the file again in LabelMe") from error
