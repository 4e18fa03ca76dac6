"""Label Studio: the JSON export ("JSON", not "JSON-MIN") of image annotation projects. Its coordinates are percent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from molmopoint.data.importers.brush import decode_brush
from molmopoint.data.importers.collecting import PointLists
from molmopoint.data.importers.common import PathLike, corners, numbers, objects, read_json, required
from molmopoint.data.importers.journal import Journal
from molmopoint.data.interior import mask_interior
from molmopoint.errors import ProcessingError

_SHAPES = ("rectanglelabels", "keypointlabels", "polygonlabels", "ellipselabels", "brushlabels")


def read_label_studio(source: PathLike, journal: Journal, images: PathLike | None = None, field: str = "image") -> Iterator[dict[str, Any]]:
    """Rows of a Label Studio export; of several annotations of a task the first that was not cancelled.

    Args:
        source: the JSON file.
        journal: hears what is left out.
        images: folder of the pictures; uploaded files are found there by name, local ones by path. By default that of the file.
        field: key of the picture in `data`, as in the labelling configuration.

    Raises:
        ProcessingError: no such export.
    """
    path = Path(source)
    tasks = read_json(path)
    folder = path.parent if images is None else Path(images)
    for number, task in enumerate(objects(tasks, path.name), start=1):
        where = f"{path.name}, task {task.get('id', number)}"
        address = str(required(required(task, "data", where), field, where))
        annotations = [entry for entry in objects(required(task, "annotations", where), where) if not entry.get("was_cancelled")]
        if not annotations:
            journal.skip("objects", f"{where}: left out, nobody annotated it")
            continue
        lists = PointLists(str(folder / _file_name(address)), journal, coords="percent")
        for result in objects(annotations[0].get("result", []), where):
            _add(lists, result, where, journal)
        yield from lists.rows()


def _file_name(address: str) -> str:
    """Where the picture is below the folder: the path of a local file, the last part of anything uploaded or remote."""
    parts = urlsplit(address)
    if "local-files" in parts.path and (local := parse_qs(parts.query).get("d")):
        return local[0].lstrip("/")
    if parts.scheme or address.startswith("/"):
        return Path(unquote(parts.path)).name
    return address


def _add(lists: PointLists, result: Mapping[str, Any], where: str, journal: Journal) -> None:
    kind, value = str(result.get("type", "")), result.get("value", {})
    if not kind.endswith("labels"):
        return  # choices, texts and relations mark no place
    labels = value.get(kind) if isinstance(value, Mapping) else None
    if not labels:
        journal.skip("objects", f"{where}: a {kind} result left out, it has no label")
        return
    label = str(labels[0])
    if kind not in _SHAPES:
        lists.spoil(label, f"results of type {kind} are not read; use keypoints, boxes, ellipses, polygons or brush masks")
    elif result.get("image_rotation"):
        lists.spoil(label, "the picture was turned in the editor; turn the file and annotate it again")
    elif kind == "polygonlabels":
        lists.add_polygon(label, [corners(required(value, "points", where), where)])
    elif kind == "brushlabels":
        _add_mask(lists, label, value, result, where)
    else:
        x, y = numbers([required(value, "x", where), required(value, "y", where)], where, 2)
        if kind == "rectanglelabels":
            x, y = _rectangle_middle(x, y, value, result, where)
        lists.add(label, x, y)  # an ellipse's x and y are its middle


def _add_mask(lists: PointLists, label: str, value: Mapping[str, Any], result: Mapping[str, Any], where: str) -> None:
    """A brush mask: pixels of the picture, their place in percent."""
    width, height = (int(required(result, name, where)) for name in ("original_width", "original_height"))
    try:
        x, y = mask_interior(decode_brush(required(value, "rle", where), width, height))
    except ProcessingError as error:
        lists.spoil(label, str(error))
    else:
        lists.add(label, 100 * x / width, 100 * y / height)


def _rectangle_middle(x: float, y: float, value: Mapping[str, Any], result: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Middle of a box in percent; a turned box turns about its upper left corner, in pixels."""
    width, height = numbers([required(value, "width", where), required(value, "height", where)], where, 2)
    angle = math.radians(float(value.get("rotation") or 0))
    if not angle:
        return x + width / 2, y + height / 2
    sides = numbers([required(result, "original_width", where), required(result, "original_height", where)], where, 2)
    if not (sides > 0).all():
        raise ProcessingError(f"{where}: expected the picture's size in pixels, got {sides.tolist()}; export it again")
    half = np.array([width, height]) / 2 * sides
    turned = np.array([half[0] * math.cos(angle) - half[1] * math.sin(angle), half[0] * math.sin(angle) + half[1] * math.cos(angle)])
    dx, dy = turned / sides
    return float(x + dx), float(y + dy)
