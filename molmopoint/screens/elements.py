"""What a person sees on a screen: its elements, with what they are, are called, look like and do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""


@dataclass(frozen=True)
class Element:
    """One element that can be seen.

    Attributes:
        kind: what it is, a key of `molmopoint.screens.vocabulary.NOUNS`.
        boxes: its visible parts; the first is the largest. Text that is broken across lines has several.
        name: its accessible name, "" without one.
        text: words that are seen on it, "" without any.
        states: words of `molmopoint.screens.vocabulary.STATES` that are true of it.
        colour: the name of the colour a person would call it by, or None where there is no single one.
        icon: the picture on it, a key of `molmopoint.screens.icons.SYNONYMS`.
        row: number of the list item, table row or card that it stands in.
        series: number of the list, toolbar or other set in which it has a place among its like.
        areas: kinds of the parts of the screen that it stands in, from the innermost, such as "dialog".
        role: its role in the accessibility tree, as the browser tells it.
        also: another kind that a person may take it for, such as "button" of a link with a surface of its
            own.
    """

    kind: str
    boxes: tuple[Box, ...]
    name: str = ""
    text: str = ""
    states: frozenset[str] = frozenset()
    colour: str | None = None
    icon: str | None = None
    row: int | None = None
    series: int | None = None
    areas: tuple[str, ...] = ()
    role: str = ""
    also: str | None = None

    @property
    def box(self) -> Box:
        """The largest visible part."""
        return self.boxes[0]

    @property
    def point(self) -> tuple[float, float]:
        """The middle of the largest visible part, where a person would click."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def label(self) -> str:
        """What it is called: its accessible name, or else the words on it."""
        return self.name or self.text


@dataclass(frozen=True)
class Screen:
    """A picture of a page, and what is seen on it.

    Attributes:
        size: width and height in pixels of the picture.
        elements: in the order of the document.
        pixels: (height, width, 3) uint8 RGB; None once it is written and forgotten.
        address: of the page.
        view: size, pixel ratio, theme and scroll position, as a short name.
        left_out: how many elements were found but not seen.
        missed: how many were not looked at because there were too many.
    """

    size: tuple[int, int]
    elements: tuple[Element, ...]
    pixels: np.ndarray | None = None
    address: str = ""
    view: str = ""
    left_out: int = 0
    missed: int = 0

    def without_pixels(self) -> Screen:
        """The same, for lists of many screens."""
        return dataclasses.replace(self, pixels=None)
