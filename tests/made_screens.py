"""Screens made by hand, for tests of what is asked about them."""

from __future__ import annotations

from typing import Any

from molmopoint.screens.elements import Element, Screen


def element(
    kind: str, left: float, top: float, width: float = 40, height: float = 20, **more: Any
) -> Element:
    states = frozenset(more.pop("states", ()))
    return Element(kind, ((left, top, left + width, top + height),), states=states, **more)


def screen(*elements: Element, size: tuple[int, int] = (400, 300)) -> Screen:
    return Screen(size, elements)


def files_screen() -> Screen:
    """Three files, each with its name, a box to tick, and two icon buttons; a bar with two buttons and a
    field.
    """
    elements = [
        element("button", 10, 10, text="Save", name="Save", colour="blue", series=0),
        element("button", 60, 10, text="Cancel", name="Cancel", colour="gray", series=0),
        element("text field", 120, 10, name="Search term", text="Search term", states=("empty",)),
    ]
    for i, name in enumerate(("report-3.pdf", "notes.txt", "photo.png")):
        top = 50 + 40 * i
        elements += [
            element(
                "checkbox",
                10,
                top,
                16,
                16,
                name=f"Select {name}",
                states=("checked" if i == 0 else "empty",),
                row=i,
                series=1,
                colour="white",
            ),
            element("text", 40, top, 120, text=name, row=i, series=1),
            element("button", 200, top, icon="trash", name=f"Delete {name}", colour="red", row=i, series=1),
            element(
                "button", 250, top, icon="download", name=f"Download {name}", colour="green", row=i, series=1
            ),
        ]
    return screen(*elements)
