"""Shapes of CVAT's XML, in pictures and in tracks."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from molmopoint.data.importers.common import corners, label_text, number, numbers
from molmopoint.data.importers.masks import decoded_runs
from molmopoint.data.importers.point_lists import WITHOUT_PLACE, PointLists, keypoint_label
from molmopoint.errors import ProcessingError

_CUBOID = [f"{axis}{corner}{face}" for face in "12" for corner in ("tl", "bl", "tr", "br") for axis in "xy"]
"""Attributes of the eight corners, x before y."""


def add_shape(lists: PointLists, shape: Element, label: str, where: str, group: Any = None) -> None:
    """Puts the place of a shape into the lists of its picture; of points, each is an object.

    Raises:
        ProcessingError: its attributes are not those of its kind.
    """
    where = f"{where}, <{shape.tag}>"
    if shape.tag == "box":
        _add_box(lists, shape, label, where, group)
    elif shape.tag == "ellipse":
        x, y, across, down = _attributes(shape, where, "cx", "cy", "rx", "ry").tolist()
        lists.add_ellipse(label, (x, y), (across, down), _angle(shape, where), group=group)
    elif shape.tag == "polygon":
        lists.add_polygon(label, [_places(shape, where)], group=group)
    elif shape.tag == "points":
        for x, y in _places(shape, where):
            lists.add(label, x, y, group=group)
    elif shape.tag == "cuboid":
        lists.add_polygon(label, [_silhouette(_attributes(shape, where, *_CUBOID).reshape(-1, 2), where)], group=group)
    elif shape.tag == "mask":
        left, top, width, height = _attributes(shape, where, "left", "top", "width", "height").tolist()
        runs = numbers([run for run in (shape.get("rle") or "").split(",") if run.strip()], f"{where}, rle")
        lists.add_mask(label, decoded_runs(runs, width, height), left, top, group=group)
    else:
        reason = f"{where} has no inside; use points, boxes, ellipses, polygons, cuboids, masks or skeletons"
        lists.spoil(label, reason, WITHOUT_PLACE)


def add_skeleton(lists: PointLists, shape: Element, label: str, where: str, keypoints: str) -> None:
    """Puts the elements of a skeleton into the lists, each under a label such as "left eye of the person".

    An element that is outside is not there. One that is occluded cannot be seen; it counts only as `labelled`.
    """
    lists.unsure.add(label)
    for element in shape:
        if element.tag == "attribute":
            continue
        name = None
        with lists.object(None, where):
            name = keypoint_label(label_text(element.get("label"), f"{where}, an element of the skeleton"), label)
        if name is None:
            continue
        hidden = element.get("occluded") == "1" and keypoints == "visible"
        if element.get("outside") == "1" or hidden:
            lists.hidden(name, 1 if hidden else 0)
            continue
        with lists.object(name, where):
            add_shape(lists, element, name, where)


def _add_box(lists: PointLists, shape: Element, label: str, where: str, group: Any) -> None:
    left, top, right, bottom = _attributes(shape, where, "xtl", "ytl", "xbr", "ybr").tolist()
    angle = _angle(shape, where)
    if not angle or left == right or top == bottom:
        lists.add_box(label, left, top, right, bottom, group=group)
        return
    # Turned boxes are written as they were before, and turn about their middle.
    middle = ((left + right) / 2, (top + bottom) / 2)
    lists.add_turned_box(label, middle, (abs(right - left), abs(bottom - top)), angle, group=group)


def _angle(shape: Element, where: str) -> float:
    """Degrees, clockwise."""
    return number(shape.get("rotation") or 0, f"{where}, rotation")


def _attributes(shape: Element, where: str, *names: str) -> np.ndarray:
    return numbers([shape.get(name) for name in names], where, len(names))


def _places(shape: Element, where: str) -> np.ndarray:
    """(n, 2) from "x,y;x,y"."""
    return corners([value for pair in (shape.get("points") or "").split(";") for value in pair.split(",")], where)


def _silhouette(places: np.ndarray, where: str) -> np.ndarray:
    """(n, 2) outline of the corners (8, 2) of a cuboid."""
    try:
        return places[ConvexHull(places).vertices]
    except QhullError as error:
        raise ProcessingError(f"{where}: expected a cuboid with an area, got corners on one line; correct or drop it") from error
