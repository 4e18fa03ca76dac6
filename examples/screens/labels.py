"""What stands at each patch of a page, and what a question names, as numbers.

Questions and elements are described by the same vector: kind, colour, icon, states and letters. A question
for "the red save button" and a red button that says Save agree in all that the question names.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from molmopoint.screens.colours import COLOURS
from molmopoint.screens.icons import SYNONYMS
from molmopoint.screens.vocabulary import NOUNS, STATES
from screens.settings import GRID, LOCATIONS, PATCH

KINDS, ICONS, STATE_NAMES = tuple(NOUNS), tuple(SYNONYMS), tuple(STATES)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PAIRS = 128
"""Buckets of pairs of letters."""
NAME_SIZE = 3 * len(LETTERS) + _PAIRS
"""Numbers that describe a name: its letters, its first and its last one, and its pairs of letters."""
GROUPS = {
    "kind": len(KINDS),
    "colour": len(COLOURS),
    "icon": len(ICONS),
    "state": len(STATE_NAMES),
    "name": NAME_SIZE,
}
"""Parts of the vector, in order."""
SIZE = sum(GROUPS.values())
_STARTS = dict(zip(GROUPS, np.cumsum([0, *GROUPS.values()]).tolist(), strict=False))
_PLACES = {"kind": KINDS, "colour": COLOURS, "icon": ICONS, "state": STATE_NAMES}


@lru_cache(maxsize=100_000)
def _name_numbers(name: str) -> tuple[int, ...]:
    """Where the vector of a name is 1."""
    kept = "".join(letter for letter in name.lower() if letter in LETTERS or letter == " ").strip()
    found = [LETTERS.index(letter) for letter in kept if letter != " "]
    if not found:
        return ()
    numbers = {*found, len(LETTERS) + found[0], 2 * len(LETTERS) + found[-1]}
    padded = f" {kept} "
    for pair in itertools.pairwise(padded):
        numbers.add(3 * len(LETTERS) + zlib.crc32("".join(pair).encode()) % _PAIRS)
    return tuple(numbers)


def vector_of(mentions: Iterable[tuple[str, str]]) -> np.ndarray:
    """(SIZE,) float32: 1 where a question or an element says so."""
    vector = np.zeros(SIZE, dtype=np.float32)
    for group, word in mentions:
        if group == "name":
            vector[[_STARTS["name"] + number for number in _name_numbers(word)]] = 1
        elif group in _PLACES and word in _PLACES[group]:
            vector[_STARTS[group] + _PLACES[group].index(word)] = 1
    return vector


def element_vector(element: Mapping[str, Any]) -> np.ndarray:
    """(SIZE,) float32 for an element of a shard."""
    mentions = [("kind", element["kind"]), ("name", element["text"] or element["name"])]
    if element["kind"] in ("text field", "dropdown") and element["name"]:
        mentions[1] = ("name", element["name"])
    mentions += [("colour", element["colour"])] if element["colour"] else []
    mentions += [("icon", element["icon"])] if element["icon"] else []
    mentions += [("state", state) for state in element["states"]]
    return vector_of(mentions)


class PageLabels:
    """What stands at each patch of one page.

    Args:
        elements: of the page, as a shard has them, moved along with the picture.
        letters: the same, with their boxes.
        shift: pixels to the right and downwards that the picture was moved.

    Attributes:
        vectors: (elements, SIZE) float32.
        owner: (GRID * GRID,) which element is at each patch, -1 for the ground.
        centre: (GRID * GRID,) which element has its point in the patch, -1 for none.
        cell: (GRID * GRID,) in which cell that point lies, column first, -1 for none.
        letters: (GRID * GRID, 36) float32, 1 for letters that stand in the patch.
    """

    def __init__(
        self,
        elements: Sequence[Mapping[str, Any]],
        letters: Sequence[Sequence[Any]],
        shift: tuple[int, int] = (0, 0),
    ) -> None:
        self.vectors = (
            np.stack([element_vector(element) for element in elements])
            if elements
            else np.zeros((0, SIZE), np.float32)
        )
        self.owner = np.full(GRID * GRID, -1, dtype=np.int64)
        self.centre = np.full(GRID * GRID, -1, dtype=np.int64)
        self.cell = np.full(GRID * GRID, -1, dtype=np.int64)
        grid = self.owner.reshape(GRID, GRID)
        move = np.array((*shift, *shift))
        boxes = [np.array(element["boxes"][0]) + move for element in elements]
        for i in sorted(range(len(boxes)), key=lambda i: -_surface(boxes[i])):
            columns, rows = _covered(boxes[i][0], boxes[i][2]), _covered(boxes[i][1], boxes[i][3])
            grid[rows, columns] = i
            patch, cell = place_of((boxes[i][:2] + boxes[i][2:]) / 2)
            if patch >= 0:
                self.centre[patch], self.cell[patch], self.owner[patch] = i, cell, i
        self.letters = np.zeros((GRID, GRID, len(LETTERS)), dtype=np.float32)
        for letter, left, top, right, bottom in letters:
            self._note_letter(
                letter.lower(), (left + right) / 2 + shift[0], top + shift[1], bottom + shift[1]
            )
        self.letters = self.letters.reshape(GRID * GRID, -1)

    def _note_letter(self, letter: str, x: float, top: float, bottom: float) -> None:
        if letter not in LETTERS or not 0 <= x < GRID * PATCH:
            return
        # Of the line's height, the letter itself takes about the middle half.
        upper, lower = top + 0.25 * (bottom - top), bottom - 0.25 * (bottom - top)
        first, last = int(upper // PATCH), int(lower // PATCH)
        for row in range(max(0, first), min(GRID - 1, last) + 1):
            self.letters[row, int(x // PATCH), LETTERS.index(letter)] = 1


def place_of(xy: Sequence[float] | np.ndarray) -> tuple[int, int]:
    """Patch and cell (column first) of a place in pixels of a small page; (-1, -1) outside of it."""
    x, y = float(xy[0]) / PATCH, float(xy[1]) / PATCH
    if not (0 <= x < GRID and 0 <= y < GRID):
        return -1, -1
    return int(y) * GRID + int(x), LOCATIONS * int(LOCATIONS * (x - int(x))) + int(LOCATIONS * (y - int(y)))


def _covered(low: float, high: float) -> slice:
    """Patches of which more than a third lies between two edges; at least one."""
    first = int(np.clip(np.ceil(low / PATCH - 0.65), 0, GRID - 1))
    last = int(np.clip(np.floor(high / PATCH - 0.35), first, GRID - 1))
    return slice(first, last + 1)


def _surface(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
