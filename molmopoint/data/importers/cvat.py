"""CVAT: the XML of "CVAT for images 1.1"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from molmopoint.data.importers.common import OnSkip, PathLike, PointLists, corners, existing_file, numbers
from molmopoint.errors import ProcessingError


def read_cvat(source: PathLike, on_skip: OnSkip, images: PathLike | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a CVAT file.

    Args:
        source: annotations.xml.
        on_skip: hears what is left out.
        images: folder of the pictures; by default `images` beside the file, where CVAT puts them.

    Raises:
        ProcessingError: no such file, or tracks of a video, which need "CVAT for images" as well.
    """
    path = existing_file(Path(source))
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ProcessingError(f"expected XML in {path}, got {error}; export it again") from error
    if root.tag != "annotations":
        raise ProcessingError(f"expected <annotations> in {path.name}, got <{root.tag}>; export as 'CVAT for images 1.1'")
    if root.find("track") is not None:
        raise ProcessingError(
            f"expected pictures in {path.name}, got tracks of a video; export as 'CVAT for images 1.1', frames as pictures"
        )
    folder = path.parent / "images" if images is None else Path(images)
    for image in root.iter("image"):
        name = image.get("name")
        if not name:
            raise ProcessingError(f"{path.name}: expected a name on every <image>, got none; export it again")
        lists = PointLists(str(folder / name), "pixel", on_skip)
        for shape in image:
            if label := shape.get("label"):
                _add(lists, shape, label, name)
        yield from lists.rows()


def _add(lists: PointLists, shape: ElementTree.Element, label: str, where: str) -> None:
    if shape.tag == "tag":
        return  # of the whole picture
    if shape.tag == "box":  # turned boxes turn about their middle
        left, top, right, bottom = _attributes(shape, where, "xtl", "ytl", "xbr", "ybr")
        lists.add(label, (left + right) / 2, (top + bottom) / 2)
    elif shape.tag == "ellipse":
        lists.add(label, *_attributes(shape, where, "cx", "cy"))
    elif shape.tag == "polygon":
        lists.add_polygon(label, [_places(shape, where)])
    elif shape.tag == "points":
        for x, y in _places(shape, where):
            lists.add(label, x, y)
    elif shape.tag == "mask":
        left, top, width, height = (int(value) for value in _attributes(shape, where, "left", "top", "width", "height"))
        lists.add_mask(label, _mask(shape.get("rle", ""), width, height, where), left, top)
    else:
        lists.spoil(label, f"shapes <{shape.tag}> have no inside; use points, boxes, ellipses, polygons or masks")


def _attributes(shape: ElementTree.Element, where: str, *names: str) -> np.ndarray:
    return numbers([shape.get(name) for name in names], f"{where}, <{shape.tag}>", len(names))


def _places(shape: ElementTree.Element, where: str) -> np.ndarray:
    """(n, 2) from "x,y;x,y"."""
    return corners([value for pair in shape.get("points", "").split(";") for value in pair.split(",")], f"{where}, <{shape.tag}>")


def _mask(rle: str, width: int, height: int, where: str) -> np.ndarray:
    """(height, width) bool from runs along the rows of the mask's box, the outside first."""
    runs = numbers([run for run in rle.split(",") if run.strip()], f"{where}, <mask>").astype(np.int64)
    if (runs < 0).any() or runs.sum() != width * height:
        raise ProcessingError(f"{where}, <mask>: expected runs over {width} x {height} pixels, got {runs.sum()}; export it again")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
