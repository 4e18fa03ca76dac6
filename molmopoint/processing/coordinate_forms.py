"""Points in answers of models that write coordinates in forms of their own: JSON, pairs of numbers, location tokens.

Every form knows what its numbers count. Reading never fails on what a model can write: what is no place is left
out, and a place outside the picture is counted as invalid by whoever reads it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Place = tuple[float, float]
"""x and y, in what the form counts."""

_NUMBER = r"(-?\d{1,9}(?:\.\d{1,12})?)"
_PAIR = re.compile(rf"[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]")
_BOX = re.compile(rf"[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]")
_BARE = re.compile(rf"(?<![\w.]){_NUMBER}(?:\s*+,|[^\S ]*+ )\s*+{_NUMBER}(?![\w.])")
_ATTRIBUTES = re.compile(rf"\bx(\d*)\s*=\s*[\"']?{_NUMBER}[\"']?\s+y\1\s*=\s*[\"']?{_NUMBER}")
_BRACKET = re.compile(r"[\[{]")
_DEEPEST = 20
"""Levels of JSON in which points are looked for."""
_FENCE = re.compile(r"```(?:json)?\s*(.*?)(?:```|\Z)", re.DOTALL)

_POINT_KEYS = ("point_2d", "point", "points", "coordinate", "coordinates", "click")
_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")

_FLORENCE = re.compile(r"<loc_(\d{1,3})>")
_FLORENCE_BINS = 1000
_PALIGEMMA_BOX = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>")
_PALIGEMMA_BINS = 1024


def plain_points(text: str) -> list[Place]:
    """Pairs of numbers in brackets, (x, y) or [x, y], in order; boxes of four numbers become their middle.
    Without brackets the first bare pair.
    """
    found: list[tuple[int, Place]] = []
    for box in _BOX.finditer(text):
        x1, y1, x2, y2 = map(float, box.groups())
        found.append((box.start(), ((x1 + x2) / 2, (y1 + y2) / 2)))
    found += [(pair.start(), (float(pair[1]), float(pair[2]))) for pair in _PAIR.finditer(text)]
    if not found and (bare := _BARE.search(text)):
        return [(float(bare[1]), float(bare[2]))]
    return [xy for _, xy in sorted(found)]


def json_points(text: str) -> list[Place]:
    """Points of a JSON answer as Qwen-style models write it: a list of objects with `point_2d` or `bbox_2d`
    (its middle), one object, or an object with `arguments.coordinate`. JSON that was cut is read as far as
    its objects are whole.
    """
    fenced = _FENCE.search(text)
    body = fenced[1] if fenced else text
    return [xy for value in _json_values(body) for xy in _points_in(value)]


def qwen_points(text: str) -> list[Place]:
    """Points of an answer of Qwen-VL: JSON, or `<points x1="..." y1="...">`, or else pairs of numbers."""
    written = [(float(found[2]), float(found[3])) for found in _ATTRIBUTES.finditer(text)]
    return written or json_points(text) or plain_points(text)


def moondream_points(text: str) -> list[Place]:
    """Points of an answer of Moondream, `{"points": [{"x": 0.5, "y": 0.25}]}`, as fractions of the picture."""
    return json_points(text)


def florence_points(text: str) -> list[Place]:
    """Middles of the boxes of an answer of Florence-2, as fractions: four tokens `<loc_n>` in a row are left, top,
    right and bottom, each a thousandth of the side; two are a point, and more than four the corners of an outline.
    """
    found = []
    for run in re.finditer(r"(?:<loc_\d{1,3}>)+", text):
        bins = [(int(number) + 0.5) / _FLORENCE_BINS for number in _FLORENCE.findall(run[0])]
        if len(bins) > 4 and len(bins) % 4 == 0:  # boxes of several objects of one name
            boxes = [bins[start : start + 4] for start in range(0, len(bins), 4)]
        else:
            boxes = [bins[: len(bins) // 2 * 2]]
        for box in boxes:
            if len(box) >= 2:
                xs, ys = box[::2], box[1::2]
                found.append(((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2))
    return found


def paligemma_points(text: str) -> list[Place]:
    """Middles of the boxes of an answer of PaliGemma, as fractions: four tokens `<locNNNN>` are top, left, bottom
    and right, each of 1024.
    """
    found = []
    for box in _PALIGEMMA_BOX.finditer(text):
        top, left, bottom, right = (int(number) / _PALIGEMMA_BINS for number in box.groups())
        found.append(((left + right) / 2, (top + bottom) / 2))
    return found


@dataclass(frozen=True)
class CoordinateForm:
    """How answers of a family name places.

    Attributes:
        places: of an answer, in its order.
        whole: number at the right and lower edge; None where numbers count pixels of the picture as it is seen.
    """

    places: Callable[[str], list[Place]]
    whole: float | None

    def points(self, text: str, displayed: tuple[int, int], seen: tuple[int, int]) -> tuple[list[Place], int]:
        """Pixels of the displayed picture, and how many places lie outside of it.

        Args:
            text: the answer.
            displayed: (width, height) of the picture for people.
            seen: (width, height) of the picture as the model sees it.
        """
        inside = []
        places = self.places(text)
        scale = seen if self.whole is None else (self.whole, self.whole)
        for x, y in places:
            across, down = x / scale[0], y / scale[1]
            if 0 <= across <= 1 and 0 <= down <= 1:
                inside.append((across * displayed[0], down * displayed[1]))
        return inside, len(places) - len(inside)


FORMS = {
    "qwen2.5-vl": CoordinateForm(qwen_points, None),
    "qwen3-vl": CoordinateForm(qwen_points, 1000.0),
    "moondream": CoordinateForm(moondream_points, 1.0),
    "florence-2": CoordinateForm(florence_points, 1.0),
    "paligemma": CoordinateForm(paligemma_points, 1.0),
}
"""Forms by the family that writes them."""


def _json_values(text: str) -> Iterator[Any]:
    """Whole JSON values in a text, one after the other; of a list that was cut its whole elements."""
    decoder = json.JSONDecoder()
    position = 0
    while (bracket := _BRACKET.search(text, position)) is not None:
        try:
            value, position = decoder.raw_decode(text, bracket.start())
            yield value
        except RecursionError:  # nobody nests points so deep
            return
        except ValueError:
            position = bracket.end()


def _points_in(value: Any, level: int = 0) -> Iterator[tuple[float, float]]:
    if level > _DEEPEST:
        return
    if isinstance(value, list):
        if (xy := _pair(value)) is not None:
            yield xy
            return
        for each in value:
            yield from _points_in(each, level + 1)
    elif isinstance(value, dict):
        yield from _points_of_object(value, level + 1)


def _points_of_object(value: dict[str, Any], level: int) -> Iterator[tuple[float, float]]:
    for key in _POINT_KEYS:
        if key in value:
            yield from _points_in(value[key], level)
            return
    for key in _BOX_KEYS:
        if (box := _numbers(value.get(key), 4)) is not None:
            yield (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            return
    if (xy := _numbers([value.get("x"), value.get("y")], 2)) is not None:
        yield xy[0], xy[1]
    elif isinstance(value.get("arguments"), dict):
        yield from _points_in(value["arguments"], level)


def _pair(value: list[Any]) -> tuple[float, float] | None:
    numbers = _numbers(value, 2)
    return None if numbers is None else (numbers[0], numbers[1])


def _numbers(value: Any, count: int) -> list[float] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    if any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in value):
        return None
    try:
        numbers = [float(each) for each in value]
    except OverflowError:  # of hundreds of digits
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
