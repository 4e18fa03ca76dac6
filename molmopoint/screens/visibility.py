"""From what the browser tells of a page to the elements that a person sees.

The browser gives every element's rectangles with a grid of places, and says of each place whether the element is what the eye
meets there. Rectangles shrink to the part that is seen; elements of which too little is left, or nothing can be told from the
ground, are left out.
"""

from __future__ import annotations

import dataclasses
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
SMALLEST = 5.0
"""Shorter side below which nobody can point at an element, in pixels of the page."""

_COLOURED = {"button", "icon", "link", "checkbox", "radio button", "switch", "tab", "avatar", "progress bar", "slider"}
_SURFACES = _COLOURED - {"icon"}


def seen_part(box: Box, seen: Sequence[str], whole: float) -> tuple[Box, float] | None:
    """The part of a rectangle in which an element is seen.

    Args:
        box: the rectangle, cut at the edges of the screen.
        seen: a grid of places in the middle of equal cells of the rectangle, row by row: "1" where the element is seen.
        whole: surface of the rectangle before it was cut.

    Returns:
        The rectangle without the rows and columns at its edges in which hardly anything is seen, and the part of the whole
        element that is seen; None if nothing is.
    """
    grid = np.array([[place == "1" for place in row] for row in seen], dtype=bool)
    if not grid.any():
        return None
    # Round corners and gaps between lines hide some places of a row that is seen all the same.
    rows = np.flatnonzero(grid.mean(axis=1) >= 0.5 * grid.mean(axis=1).max())
    columns = np.flatnonzero(grid.mean(axis=0) >= 0.5 * grid.mean(axis=0).max())
    left, top, right, bottom = map(float, box)
    wide, high = (right - left) / grid.shape[1], (bottom - top) / grid.shape[0]
    first, last = (int(columns[0]), int(rows[0])), (int(columns[-1]) + 1, int(rows[-1]) + 1)
    part = (left + wide * first[0], top + high * first[1], left + wide * last[0], top + high * last[1])
    share = float(grid.mean()) * (right - left) * (bottom - top) / max(whole, 1e-9)
    return part, min(1.0, share)


def seen_boxes(parts: Sequence[Mapping[str, Any]]) -> tuple[Box, ...]:
    """The visible boxes of an element, the largest first; none if too little of it is seen.

    Args:
        parts: its rectangles, each with `box`, `seen` and `whole` as `seen_part` takes them.
    """
    boxes, surface, visible = [], 0.0, 0.0
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
    scale = pixels.shape[1] / found["width"]
    elements, left_out = [], int(found["leftOut"])
    wordless = {told["number"] for told in found["elements"] if not told["icon"] and not told["text"]}
    for told in found["elements"]:
        if told["icon"] and told["within"] in wordless:
            continue  # the icon of a button without words is the button
        element = _element(told, pixels, scale)
        if element is None:
            left_out += 1
        else:
            elements.append(element)
    size = pixels.shape[1], pixels.shape[0]
    return Screen(size, tuple(elements), pixels, address, view, left_out, int(found["missed"]))


def _element(told: Mapping[str, Any], pixels: np.ndarray, scale: float) -> Element | None:
    boxes = seen_boxes(told["parts"])
    if not boxes:
        return None
    boxes = tuple((left * scale, top * scale, right * scale, bottom * scale) for left, top, right, bottom in boxes)
    if is_blank(pixels, boxes[0]):
        return None
    kind = kind_of(told["role"], told["tag"], told["type"], told["classes"])
    if kind == "button" and told["popup"] in ("listbox", "menu", "true") and told["text"]:
        kind = "dropdown"
    icon = icon_of(told["hints"]) if told["hints"] else None
    if told["icon"] and kind not in ("image", "avatar"):
        kind = "icon"
    if kind == "image" and icon is not None and max(boxes[0][2] - boxes[0][0], boxes[0][3] - boxes[0][1]) <= 48 * scale:
        kind = "icon"
    if kind in ("image", "avatar"):
        icon = None
    colour = colour_of(pixels, boxes[0], kind in _SURFACES) if kind in _COLOURED else None
    element = Element(kind, boxes, told["name"], told["text"], states_of(kind, told["states"]), colour, icon, role=told["role"])
    areas = tuple(AREAS[area] for area in told["areas"] if area in AREAS)
    also = "button" if kind == "link" and has_surface(pixels, boxes[0]) else None
    return dataclasses.replace(element, row=told["row"], series=told["series"], areas=areas, also=also)


def _short_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _surface(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
