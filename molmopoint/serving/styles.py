"""Points as text in chat answers, in the forms that agents read.

| style | form | read by |
| --- | --- | --- |
| json | `[{"point": [x, y], "label": ...}]`, pixels | anything |
| pixel | `(x, y)` and no other digit, in pixels | Agent-S, which takes the first two integers |
| norm1000 | `(x, y)` on 0..1000 | |
| qwen | `[{"point_2d": [x, y], "label": ...}]` on 0..1000 | clients of Qwen3-VL |
| uitars | `click(start_box='(x,y)')`, pixels of the picture as UI-TARS 1.5 resizes it | UI-TARS desktop |
| midscene | `{"bbox": [x, y, x, y]}` on 0..1000, a box without extent | Midscene, family `qwen3-vl` |
| molmo | `<points x1="..." y1="..." alt="...">...</points>` on 0..100 | clients of Molmo |
| native | the model's own words | |
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from molmopoint.backends.result import PointingResult
    from molmopoint.points import Point

PointStyle = Literal["json", "pixel", "norm1000", "qwen", "uitars", "midscene", "molmo", "native"]
STYLES: tuple[str, ...] = get_args(PointStyle)

_UITARS_SIDE = 28
_UITARS_LEAST = 100 * 28 * 28
_UITARS_MOST = 16_384 * 28 * 28
"""What UI-TARS 1.5 resizes pictures to: sides that are multiples, and least and most pixels."""

_FRAMES = (
    # Agent-S, gui_agents/s3/agents/grounding.py
    re.compile(
        r"Query:(?P<name>.+)\nOutput only the coordinate of one point in your response\.\s*", re.DOTALL
    ),
    # Midscene, packages/core/src/ai-model/model-adapter/default-locate-protocol.ts
    re.compile(r"Find: (?P<name>.+)", re.DOTALL),
)
"""What agents write around the name of what they look for."""


def write_points(result: PointingResult, style: PointStyle) -> str:
    """The answer of a chat; without points it is the model's own words.

    Args:
        result: of the question.
        style: form of the points.
    """
    if not len(result.points):
        return _without_points(result.text, style)
    if style == "native":
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
        # Its parser takes actions apart at empty lines.
        return "\n\n".join("click(start_box='({},{})')".format(*_resized(point, result)) for point in points)
    if style == "midscene":
        return json.dumps({"bbox": [*_thousandths(points[0], result)] * 2})
    return _molmo(points, result, label)


def name_asked_for(prompt: str) -> str:
    """What an agent looks for, without the sentences that it always writes around it.

    >>> name_asked_for("Find: the search button")
    'the search button'
    """
    for frame in _FRAMES:
        found = frame.fullmatch(prompt.strip())
        if found is not None:
            return found["name"].strip()
    return prompt


def _without_points(text: str, style: PointStyle) -> str:
    """The words of an answer that points at nothing, so that no agent reads a place into them."""
    if style == "pixel":
        return "There are none." if re.search(r"\d", text) else text
    if style == "midscene":
        return json.dumps({"bbox": [], "error": text})
    return text


def _resized(point: Point, result: PointingResult) -> tuple[int, int]:
    """Pixels of the picture as UI-TARS 1.5 resizes it, by which its clients divide."""
    width, height = _size_of(point, result)
    across, down = uitars_size(width, height)
    return round(point.x * across / width), round(point.y * down / height)


def uitars_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture as UI-TARS 1.5 sees it.

    Source: `smartResizeForV15` of packages/ui-tars/action-parser in UI-TARS desktop.

    >>> uitars_size(1280, 800), uitars_size(64, 64)
    ((1288, 812), (280, 280))
    """
    side = _UITARS_SIDE
    across = max(side, math.floor(width / side + 0.5) * side)
    down = max(side, math.floor(height / side + 0.5) * side)
    if across * down > _UITARS_MOST:
        shrink = math.sqrt(width * height / _UITARS_MOST)
        return math.floor(width / shrink / side) * side, math.floor(height / shrink / side) * side
    if across * down < _UITARS_LEAST:
        grow = math.sqrt(_UITARS_LEAST / (width * height))
        return math.ceil(width * grow / side) * side, math.ceil(height * grow / side) * side
    return across, down


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
