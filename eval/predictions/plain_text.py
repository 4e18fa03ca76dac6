"""Points in the text of models that do not use Molmo's forms. The space of their numbers is stated by the
caller, never guessed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

from molmopoint.errors import EvaluationError

Space = Literal["pixel", "percent", "norm1", "norm1000"]
FULL_SCALE: dict[str, float] = {"percent": 100.0, "norm1": 1.0, "norm1000": 1000.0}
"""Value at the right and lower edge; pixels need none."""

_NUMBER = r"(-?\d{1,9}(?:\.\d{1,12})?)"
_PAIR = re.compile(rf"[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]")
_BOX = re.compile(rf"[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]")
_BARE = re.compile(rf"(?<![\w.]){_NUMBER}(?:\s*+,|[^\S ]*+ )\s*+{_NUMBER}(?![\w.])")
_BRACKET = re.compile(r"[\[{]")
_DEEPEST = 20
"""Levels of JSON in which points are looked for."""
_FENCE = re.compile(r"```(?:json)?\s*(.*?)(?:```|\Z)", re.DOTALL)

_POINT_KEYS = ("point_2d", "point", "coordinate", "coordinates", "click")
_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")


def check_space(space: str | None) -> Space:
    """The space a caller named.

    Raises:
        EvaluationError: none, or one that is not known.
    """
    if space not in get_args(Space):
        raise EvaluationError(
            f"expected --coords with one of {', '.join(get_args(Space))}, got {space!r}; "
            "the numbers alone do not tell, and a wrong guess is a wrong score"
        )
    return space  # type: ignore[return-value]


def to_pixels(xy: tuple[float, float], space: Space, size: tuple[int, int]) -> tuple[float, float]:
    """A point in pixels of a picture of (width, height)."""
    if space == "pixel":
        return xy
    scale = FULL_SCALE[space]
    return xy[0] / scale * size[0], xy[1] / scale * size[1]


def plain_points(text: str) -> list[tuple[float, float]]:
    """Pairs of numbers in brackets, (x, y) or [x, y], in order; boxes of four numbers become their middle.
    Without brackets the first bare pair.
    """
    found: list[tuple[int, tuple[float, float]]] = []
    for box in _BOX.finditer(text):
        x1, y1, x2, y2 = map(float, box.groups())
        found.append((box.start(), ((x1 + x2) / 2, (y1 + y2) / 2)))
    found += [(pair.start(), (float(pair[1]), float(pair[2]))) for pair in _PAIR.finditer(text)]
    if not found and (bare := _BARE.search(text)):
        return [(float(bare[1]), float(bare[2]))]
    return [xy for _, xy in sorted(found)]


def json_points(text: str) -> list[tuple[float, float]]:
    """Points of a JSON answer as Qwen-style models write it: a list of objects with `point_2d` or `bbox_2d`
    (its middle), one object, or an object with `arguments.coordinate`. JSON that was cut is read as far as
    its objects are whole.
    """
    fenced = _FENCE.search(text)
    body = fenced[1] if fenced else text
    return [xy for value in _json_values(body) for xy in _points_in(value)]


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
