"""Regions of Label Studio: what one was drawn as, its labels, and where it lies.

A region is exported as one result per control, all with its id: `<Rectangle>` and `<Labels>` write the box
and its labels apart, `<RectangleLabels>` both in one. Coordinates are percent of the picture.

A brush mask is the run lengths of an RGBA picture as a list of bytes. They are a bit stream, highest bit
first: 32 bits number of
values, 5 bits width of a value less one, four times 4 bits width of a count less one. Then blocks: 1 bit
whether it is a run, 2 bits which of the four widths, a count less one, and one value (a run) or as many as
counted. Source: the format of the JavaScript package
@thi.ng/rle-pack, which Label Studio uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molmopoint.data.importers.placement import Size
from molmopoint.data.importers.point_lists import PointLists
from molmopoint.data.importers.shapes import check_mask_size, ellipse_ring, embedded_mask, mask_place
from molmopoint.data.importers.values import (
    corners,
    label_text,
    listed,
    number,
    numbers,
    recorded_size,
    required,
    short,
)
from molmopoint.errors import ProcessingError

SHAPES = ("rectangle", "ellipse", "polygon", "keypoint", "brush", "bitmask", "vector")
"""What is drawn on pictures."""

CLIP_SHAPE = "videorectangle"
"""What is drawn on clips."""

_LABELS = "labels"
"""How controls end that give labels, and the fields with these labels."""

_OTHER_NAMES = {"magicwand": "brush"}

_MARKS = {
    "sequence": CLIP_SHAPE,
    "rle": "brush",
    "imageDataURL": "bitmask",
    "vertices": "vector",
    "points": "polygon",
    "radiusX": "ellipse",
}
"""Fields that only one shape has."""


@dataclass
class Region:
    """One object.

    Attributes:
        where: task and region, for messages.
        kinds: types of its results, as exported.
        value: fields of all its results.
        labels: of all its results.
        size: width and height of the picture in pixels; None if it is not written.
        rotation: degrees by which the picture was turned in the editor.
        picture: which of the pictures of the task, from 0; None if it is not written.
        target: name of the picture's element in the labelling configuration.
        fault: why the region cannot be read; None if it can.
    """

    where: str
    kinds: list[str] = field(default_factory=list)
    value: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    size: Size | None = None
    rotation: float = 0.0
    picture: int | None = None
    target: str | None = None
    fault: str | None = None

    @property
    def shape(self) -> str | None:
        """One of `SHAPES` or `CLIP_SHAPE`; None for what has no place, such as a choice or a stretch of time."""
        for kind in (*self.kinds, *(name for name in self.value if name.endswith(_LABELS))):
            name = kind.removesuffix(_LABELS)
            name = _OTHER_NAMES.get(name, name)
            if name in SHAPES or name == CLIP_SHAPE:
                return name
        for mark, name in _MARKS.items():
            if mark in self.value:
                return name
        if {"x", "y"} <= self.value.keys():
            return "rectangle" if {"width", "height"} <= self.value.keys() else "keypoint"
        return None

    @property
    def choices(self) -> list[str]:
        """Words that were chosen for the region, or for the whole picture."""
        chosen = self.value.get("choices")
        if not isinstance(chosen, list):
            chosen = [chosen]
        return [choice.strip() for choice in chosen if isinstance(choice, str)]


def read_regions(results: Sequence[Any], where: str) -> list[Region]:
    """The regions of an annotation, in order, those with a fault among them.

    Args:
        results: of the annotation; may be anything.
        where: the task, for messages.
    """
    regions: dict[str, Region] = {}
    for count, result in enumerate(results, start=1):
        name = _identity(result, count)
        region = regions.setdefault(name, Region(f"{where}, region {name}"))
        try:
            _join(region, result)
        except ProcessingError as error:
            region.fault = str(error)
    return list(regions.values())


def add_region(lists: PointLists, region: Region, label: str, unit: np.ndarray) -> None:
    """Puts the place of a region into the lists of its picture.

    Args:
        lists: of the picture.
        region: with a shape of `SHAPES`.
        label: one of its labels.
        unit: (2,) what a percent of width and height is in the coordinates of `lists`.

    Raises:
        ProcessingError: its values are not those of its shape.
    """
    if region.rotation:
        raise ProcessingError("the picture was turned in the editor; turn the file and annotate it again")
    value, where = region.value, region.where
    if region.shape == "keypoint":
        x, y = _fields(value, where, "x", "y") * unit
        lists.add(label, x, y)
    elif region.shape == "rectangle":
        _add_box(lists, region, label, unit)
    elif region.shape == "ellipse":
        _add_ellipse(lists, region, label, unit)
    elif region.shape == "polygon":
        lists.add_polygon(label, [corners(required(value, "points", where), where) * unit])
    elif region.shape == "vector":
        lists.add_polygon(label, [_outline(value, where) * unit])
    else:
        mask = _mask(region)
        x, y, num_pixels = mask_place(mask)
        height, width = mask.shape
        percent = 100 / np.array([width, height], dtype=np.float64)  # of a pixel
        across, down = np.array([x, y]) * percent * unit
        lists.add(label, across, down, area=float(num_pixels * np.prod(percent * unit)))


def box_middles(boxes: np.ndarray, angles: np.ndarray, size: Size | None) -> np.ndarray:
    """(n, 2) middles of what can be seen of boxes, in percent; NaN for boxes outside.

    Args:
        boxes: (n, 4) left, top, width, height in percent.
        angles: (n,) degrees by which each is turned about its upper left corner, clockwise.
        size: width and height in pixels, in which a turned box is a rectangle.

    Raises:
        ProcessingError: a box is turned, and the size is not known.
    """
    if angles.any() and size is None:
        raise ProcessingError(
            "expected original_width and original_height beside a turned box, got none; export it again"
        )
    low, high = np.clip(boxes[:, :2], 0, 100), np.clip(boxes[:, :2] + boxes[:, 2:], 0, 100)
    middles = (low + high) / 2
    whole = np.array(size or (1.0, 1.0))
    half = boxes[:, 2:] / 2 * whole  # (n, 2)
    radians = np.radians(np.fmod(angles, 360.0))
    across = half[:, 0] * np.cos(radians) - half[:, 1] * np.sin(radians)
    down = half[:, 0] * np.sin(radians) + half[:, 1] * np.cos(radians)
    turned = boxes[:, :2] + np.stack([across, down], axis=1) / whole
    is_turned = angles[:, None] != 0
    middles = np.where(is_turned, turned, middles)
    turned_outside = (turned < 0) | (turned > 100)
    upright_outside = (boxes[:, :2] > 100) | (boxes[:, :2] + boxes[:, 2:] < 0)
    outside = np.where(is_turned, turned_outside, upright_outside)
    middles[outside.any(axis=1)] = np.nan
    return middles


def _identity(result: Any, count: int) -> str:
    """The id that the results of a region share; a result without one is a region of its own."""
    name = result.get("id") if isinstance(result, Mapping) else None
    return name if isinstance(name, str) and name else f"number {count}"


def _join(region: Region, result: Any) -> None:
    """Adds one result to its region.

    Raises:
        ProcessingError: it is no result.
    """
    where = region.where
    if not isinstance(result, Mapping):
        raise ProcessingError(f"{where}: expected a result, got {short(result)}; export it again")
    kind, value = result.get("type"), result.get("value")
    region.kinds.append(kind.lower() if isinstance(kind, str) else "")
    if value is None and not region.kinds[-1].endswith(_LABELS):
        return  # a relation between regions
    if not isinstance(value, Mapping):
        raise ProcessingError(f"{where}: expected an object as value, got {short(value)}; export it again")
    region.value |= value
    for name, names in value.items():
        if name.endswith(_LABELS):
            labels = [label_text(label, where) for label in listed(names, where)]
            region.labels += [label for label in labels if label not in region.labels]
    width, height = result.get("original_width"), result.get("original_height")
    if width is not None and height is not None:
        region.size = region.size or recorded_size(width, height, where)
    region.rotation = region.rotation or number(result.get("image_rotation") or 0, where) % 360
    if result.get("item_index") is not None:
        region.picture = int(number(result["item_index"], where))
    target = result.get("to_name")
    region.target = region.target or (target if isinstance(target, str) else None)


def _fields(value: Mapping[str, Any], where: str, *names: str) -> np.ndarray:
    return numbers([required(value, name, where) for name in names], where, len(names))


def _add_box(lists: PointLists, region: Region, label: str, unit: np.ndarray) -> None:
    left, top, width, height = _fields(region.value, region.where, "x", "y", "width", "height")
    angle = math.radians(number(region.value.get("rotation") or 0, region.where))
    if not angle:
        lists.add_box(
            label, left * unit[0], top * unit[1], (left + width) * unit[0], (top + height) * unit[1]
        )
        return
    if region.size is None:
        raise ProcessingError(
            f"{region.where}: expected the picture's size in pixels for a turned box, got none; export it "
            "again"
        )
    pixel = np.array(region.size) / 100
    offsets = np.array([(0, 0), (width, 0), (width, height), (0, height)]) * pixel
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    ring = np.array([left, top]) + offsets @ turn / pixel  # about the upper left corner, clockwise, in pixels
    lists.add_polygon(label, [ring * unit])


def _add_ellipse(lists: PointLists, region: Region, label: str, unit: np.ndarray) -> None:
    """An ellipse, which is turned in pixels."""
    x, y, across, down = _fields(region.value, region.where, "x", "y", "radiusX", "radiusY").tolist()
    angle = number(region.value.get("rotation") or 0, region.where)
    if not angle or region.size is None or not min(across, down) > 0:  # the middle is the same, turned or not
        lists.add_ellipse(label, (x * unit[0], y * unit[1]), (across * unit[0], down * unit[1]))
        return
    pixel = np.array(region.size) / 100
    ring = ellipse_ring((x * pixel[0], y * pixel[1]), (across * pixel[0], down * pixel[1]), angle)
    lists.add_polygon(label, [ring / pixel * unit])


def _outline(value: Mapping[str, Any], where: str) -> np.ndarray:
    """(n, 2) corners of a closed vector.

    Raises:
        ProcessingError: it is open, or has curves.
    """
    vertices = [vertex for vertex in listed(value.get("vertices"), where) if isinstance(vertex, Mapping)]
    if not value.get("closed"):
        raise ProcessingError("an open line has no inside; use keypoints, boxes, ellipses, polygons or masks")
    if any(vertex.get("isBezier") for vertex in vertices):
        raise ProcessingError("outlines with curves are not read; use polygons or masks")
    return np.array([_fields(vertex, where, "x", "y") for vertex in vertices], dtype=np.float64).reshape(
        -1, 2
    )


def _mask(region: Region) -> np.ndarray:
    """(height, width) bool of a bitmask or a brush mask."""
    if region.shape == "bitmask":
        return embedded_mask(required(region.value, "imageDataURL", region.where), "A")
    if region.size is None:
        raise ProcessingError(
            f"{region.where}: expected original_width and original_height beside a mask, got none; export "
            "it again"
        )
    width, height = (int(side) for side in region.size)
    return decode_brush(required(region.value, "rle", region.where), width, height)


_CHANNELS = 4
_ALPHA = 3


def decode_brush(values: Any, width: int, height: int) -> np.ndarray:
    """(height, width) bool: where the mask is opaque.

    Args:
        values: bytes of the run lengths, 0 to 255.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Raises:
        ProcessingError: the runs are cut off or are of a picture of another size, or the mask is too large.
    """
    check_mask_size(width, height)
    listed = numbers(values, "rle")
    if ((listed < 0) | (listed > 255) | (listed % 1 != 0)).any():
        raise ProcessingError("rle: expected bytes from 0 to 255, got other numbers; export the mask again")
    try:
        opaque = _opaque(_Bits(listed.astype(np.uint8).tobytes()), width * height)
    except EOFError as error:
        raise ProcessingError(
            f"rle: expected runs over {width} x {height} pixels, got fewer; export the mask again"
        ) from error
    return opaque.reshape(height, width)


class _Bits:
    """Reads whole numbers of any width, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, count: int) -> int:
        """The number in the next `count` bits.

        Raises:
            EOFError: there are not so many.
        """
        end = self._at + count
        if end > 8 * len(self._data):
            raise EOFError
        first, last = self._at // 8, (end + 7) // 8
        self._at = end
        return (int.from_bytes(self._data[first:last], "big") >> (8 * last - end)) & ((1 << count) - 1)


def _opaque(bits: _Bits, pixels: int) -> np.ndarray:
    """(pixels,) bool: of all values only the last channel of each pixel is kept."""
    expected = pixels * _CHANNELS
    if (total := bits.read(32)) != expected:
        raise ProcessingError(
            f"rle: expected a mask of {expected} values, got {total}; the size of the picture is another one"
        )
    value_width = bits.read(5) + 1
    count_widths = [bits.read(4) + 1 for _ in range(4)]
    opaque = np.zeros(pixels, dtype=bool)
    at = 0
    while at < total:
        is_run = bits.read(1)
        count = min(1 + bits.read(count_widths[bits.read(2)]), total - at)
        skipped = (_ALPHA - at) % _CHANNELS  # values before the first of the last channel
        first, end = (at + skipped) // _CHANNELS, (at + count) // _CHANNELS  # pixels
        if is_run:
            opaque[first:end] = bits.read(value_width) > 0
        else:
            listed = [bits.read(value_width) for _ in range(count)]
            opaque[first:end] = [value > 0 for value in listed[skipped::_CHANNELS]]
        at += count
    return opaque
