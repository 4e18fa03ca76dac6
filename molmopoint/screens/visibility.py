"""From what the browser tells of a page to the elements that a person sees.

The browser gives every element's rectangles with a grid of places, and says of each place whether the element
is what the eye meets there. Rectangles shrink to the part that is seen; elements of which too little is left,
or nothing can be told from the ground, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from molmopoint.screens.colours import colour_of, has_surface, is_blank
from molmopoint.screens.elements import Box, Element, Screen
from molmopoint.screens.icons import icon_of
from molmopoint.screens.vocabulary import AREAS, kind_of, states_of

SEEN = 0.5
"""An element is seen if at least this part of it is, or `SEEN_LARGE` of a large one."""
SEEN_LARGE = 0.2
LARGE = 120.0
"""Shorter side, in pixels of the page, from which an element is large."""
LARGEST_ICON = 48.0
"""Longer side, in pixels of the page, up to which a picture that is named like an icon is one."""
SMALLEST = 5.0
"""Shorter side below which nobody can point at an element, in pixels of the page."""

_COLOURED = {
    "button",
    "icon",
    "link",
    "checkbox",
    "radio button",
    "switch",
    "tab",
    "avatar",
    "progress bar",
    "slider",
}
_SURFACES = _COLOURED - {"icon"}


def seen_part(box: Box, seen: Sequence[str], whole: float) -> tuple[Box, float] | None:
    """The part of a rectangle in which an element is seen.

    Args:
        box: the rectangle, cut at the edges of the screen.
        seen: a grid of places in the middle of equal cells of the rectangle, row by row: "1" where the
            element is seen.
        whole: surface of the rectangle before it was cut.

    Returns:
        The rectangle without the rows and columns at its edges in which hardly anything is seen, and the part
        of the whole element that is seen; None if nothing is.
    """
    grid = np.array([list(row) for row in seen]) == "1"  # (rows, columns)
    if not grid.any():
        return None
    left, top, right, bottom = map(float, box)
    cell_width = (right - left) / grid.shape[1]
    cell_height = (bottom - top) / grid.shape[0]
    first_row, end_row = _seen_range(grid.mean(axis=1))
    first_column, end_column = _seen_range(grid.mean(axis=0))
    part = (
        left + cell_width * first_column,
        top + cell_height * first_row,
        left + cell_width * end_column,
        top + cell_height * end_row,
    )
    share = float(grid.mean()) * (right - left) * (bottom - top) / max(whole, 1e-9)
    return part, min(1.0, share)


def _seen_range(shares: np.ndarray) -> tuple[int, int]:
    """The first of some rows, or columns, that are seen, and the one after the last, from the share of each
    that is.
    """
    # Round corners and gaps between lines hide some places of a row that is seen all the same.
    seen = np.flatnonzero(shares >= 0.5 * shares.max())
    return int(seen[0]), int(seen[-1]) + 1


def seen_boxes(parts: Sequence[Mapping[str, Any]]) -> tuple[Box, ...]:
    """The visible boxes of an element, the largest first; none if too little of it is seen.

    Args:
        parts: its rectangles, each with `box`, `seen` and `whole` as `seen_part` takes them.
    """
    boxes = []
    surface = visible = 0.0
    for part in parts:
        whole = float(part["whole"])
        surface += whole
        found = seen_part(tuple(part["box"]), part["seen"], whole)
        if found is None:
            continue
        box, share = found
        visible += share * whole
        boxes.append(box)
    boxes = [box for box in boxes if _short_side(box) >= SMALLEST]
    if not boxes:
        return ()
    boxes.sort(key=lambda box: -_surface(box))
    needed = SEEN_LARGE if _short_side(boxes[0]) >= LARGE else SEEN
    return tuple(boxes) if visible >= needed * surface else ()


def read_screen(found: Mapping[str, Any], pixels: np.ndarray, address: str = "", view: str = "") -> Screen:
    """A screen from the answer of the browser.

    Args:
        found: what `collect.js` returns.
        pixels: (height, width, 3) uint8 RGB, the picture of the same moment.
        address: of the page.
        view: name of the view.
    """
    height, width = pixels.shape[:2]
    scale = width / found["width"]
    elements = []
    left_out = int(found["leftOut"])
    wordless = {told["number"] for told in found["elements"] if not told["icon"] and not told["text"]}
    for told in found["elements"]:
        if told["icon"] and told["within"] in wordless:
            continue  # the icon of a button without words is the button
        element = _element(told, pixels, scale)
        if element is None:
            left_out += 1
        else:
            elements.append(element)
    return Screen((width, height), tuple(elements), pixels, address, view, left_out, int(found["missed"]))


def _element(told: Mapping[str, Any], pixels: np.ndarray, scale: float) -> Element | None:
    seen = seen_boxes(told["parts"])
    if not seen:
        return None
    boxes = []
    for left, top, right, bottom in seen:
        boxes.append((left * scale, top * scale, right * scale, bottom * scale))
    largest = boxes[0]
    if is_blank(pixels, largest):
        return None

    icon = icon_of(told["hints"]) if told["hints"] else None
    is_icon_size = _long_side(largest) <= LARGEST_ICON * scale
    kind = _kind(told, may_be_icon=icon is not None and is_icon_size)
    if kind in ("image", "avatar"):
        icon = None
    colour = colour_of(pixels, largest, kind in _SURFACES) if kind in _COLOURED else None
    is_like_button = kind == "link" and has_surface(pixels, largest)
    return Element(
        kind=kind,
        boxes=tuple(boxes),
        name=told["name"],
        text=told["text"],
        states=states_of(kind, told["states"]),
        colour=colour,
        icon=icon,
        row=told["row"],
        series=told["series"],
        areas=tuple(AREAS[area] for area in told["areas"] if area in AREAS),
        role=told["role"],
        also="button" if is_like_button else None,
    )


def _kind(told: Mapping[str, Any], *, may_be_icon: bool) -> str:
    """What an element is; a picture may be an icon by its name and its size."""
    kind = kind_of(told["role"], told["tag"], told["type"], told["classes"])
    if kind == "button" and told["popup"] in ("listbox", "menu", "true") and told["text"]:
        return "dropdown"
    if told["icon"] and kind not in ("image", "avatar"):
        return "icon"
    if kind == "image" and may_be_icon:
        return "icon"
    return kind


def _long_side(box: Box) -> float:
    return max(box[2] - box[0], box[3] - box[1])


def _short_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _surface(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
