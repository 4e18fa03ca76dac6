"""Points as text in chat answers, in the forms that agents read.

| style | form | read by |
| --- | --- | --- |
| json | `[{"point": [x, y], "label": ...}]`, pixels | anything |
| pixel | `(x, y)` and no other digit | Agent-S, which takes the first two integers |
| norm1000 | `(x, y)` on 0..1000 | |
| qwen | `[{"point_2d": [x, y], "label": ...}]` on 0..1000 | clients of Qwen3-VL |
| uitars | `click(start_box='(x,y)')` in pixels | UI-TARS desktop |
| molmo | `<points x1="..." y1="..." alt="...">...</points>` on 0..100 | clients of Molmo |
| native | the model's own words | |
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from molmopoint.backends.result import PointingResult
    from molmopoint.points import Point

PointStyle = Literal["json", "pixel", "norm1000", "qwen", "uitars", "molmo", "native"]
STYLES: tuple[str, ...] = get_args(PointStyle)


def write_points(result: PointingResult, style: PointStyle) -> str:
    """The answer of a chat; without points it is the model's own words.

    Args:
        result: of the question.
        style: form of the points.
    """
    if style == "native" or not len(result.points):
        return result.text
    points = list(result.points)
    label = re.sub(r"\s+", " ", result.text).strip()
    if style == "json":
        return json.dumps([{"point": [round(point.x), round(point.y)], "label": label} for point in points])
    if style == "qwen":
        return json.dumps(
            [{"point_2d": list(_thousandths(point, result)), "label": label} for point in points]
        )
    if style == "pixel":
        return " ".join(f"({round(point.x)}, {round(point.y)})" for point in points)
    if style == "norm1000":
        return " ".join("({}, {})".format(*_thousandths(point, result)) for point in points)
    if style == "uitars":
        return "\n".join(f"click(start_box='({round(point.x)},{round(point.y)})')" for point in points)
    return _molmo(points, result, label)


def _thousandths(point: Point, result: PointingResult) -> tuple[int, int]:
    width, height = _size_of(point, result)
    return round(1000 * point.x / width), round(1000 * point.y / height)


def _size_of(point: Point, result: PointingResult) -> tuple[int, int]:
    return result.image_sizes[int(point.group)]


def _molmo(points: list[Point], result: PointingResult, label: str) -> str:
    """Percents with one decimal, as Molmo writes them."""
    places = []
    for point in points:
        width, height = _size_of(point, result)
        places.append((f"{100 * point.x / width:.1f}", f"{100 * point.y / height:.1f}"))
    clean = label.replace('"', "'").replace("<", "").replace(">", "")
    if len(places) == 1:
        ((x, y),) = places
        return f'<point x="{x}" y="{y}" alt="{clean}">{clean}</point>'
    attributes = " ".join(f'x{number}="{x}" y{number}="{y}"' for number, (x, y) in enumerate(places, 1))
    return f'<points {attributes} alt="{clean}">{clean}</points>'
