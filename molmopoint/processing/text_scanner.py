"""Coordinates of a point list while it is being written: what is complete after each piece of text.

The grammar is that of `text_answers`; here it is followed piece by piece, for streams and for limits on the number of points.
Only lists with a `coords` attribute are followed: once an answer has one, other forms in it are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from molmopoint.points import Points
from molmopoint.processing.text_answers import COORDS, COORDS_END, INTEGER, SEPARATOR, TAG_OPENING, TextForm, TextReader

_LONGEST_TAG_START = 7
"""Characters at the end of a text that may be the beginning of a tag's name."""


@dataclass(frozen=True)
class WrittenPoint:
    """A point as it is written, which need not name a place.

    Attributes:
        list_number: counts the lists of the answer, from 0.
        tag: "points" or "tracks" (or "point").
        key: number of the picture, or seconds.
        object_id: its number.
        x: thousandths of the width.
        y: thousandths of the height.
    """

    list_number: int
    tag: str
    key: str
    object_id: str
    x: str
    y: str


class WrittenPointReader:
    """Points in pixels from those a `CoordsScanner` finds, one by one; what `read_text_answer` makes of the whole begins with them.

    Args:
        image_sizes: (width, height) of each picture as displayed, or one entry for a clip.
        timestamps: (T,) seconds of the frames of a clip; None for pictures.
    """

    def __init__(self, image_sizes: Sequence[tuple[int, int]], timestamps: Any | None = None) -> None:
        self._sizes = list(image_sizes)
        self._timestamps = timestamps
        self._list_number = -1
        self._seen: set[tuple[float, int]] = set()

    def read(self, written: WrittenPoint) -> Points:
        """The point, or none where it names no place."""
        if written.list_number != self._list_number:
            self._list_number, self._seen = written.list_number, set()
        reader = TextReader(TextForm.COORDS)
        unit = [written.key, written.object_id, written.x, written.y]
        reader.read_unit(unit, INTEGER, self._seen if written.tag == "tracks" else None)
        return reader.finish(self._sizes, self._timestamps, self._timestamps is not None).points


class CoordsScanner:
    """Follows an answer piece by piece.

    Attributes:
        inside: whether the text so far ends among the coordinates of a list.
        lists: how many lists have begun.
        count: how many points are complete: something follows them.
    """

    def __init__(self) -> None:
        self.inside = False
        self.lists = 0
        self.count = 0
        self._held = ""
        self._tag = ""
        self._unit = ""

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Id, x and y of the point at the end of the text, as far as they are written; the last one may go on."""
        return tuple(self._unit.split()[1:]) if self.inside else ()

    def push(self, piece: str) -> list[WrittenPoint]:
        """The points that are complete after this piece."""
        self._held += piece
        found: list[WrittenPoint] = []
        while self._advance(found):
            pass
        return found

    def _advance(self, found: list[WrittenPoint]) -> bool:
        """One step through the held text; False where it needs more."""
        if self.inside:
            return self._read_coords(found)
        opening = TAG_OPENING.search(self._held)
        if opening is None:
            self._held = self._held[-_LONGEST_TAG_START:]
            return False
        self._held = self._held[opening.start() :]
        begun, following = COORDS.match(self._held), TAG_OPENING.search(self._held, 1)
        if begun and (following is None or following.start() >= begun.end()):
            self.inside, self._tag, self._unit = True, begun[1], ""
            self.lists += 1
            self._held = self._held[begun.end() :]
            return True
        if following is None:
            return False
        self._held = self._held[following.start() :]
        return True

    def _read_coords(self, found: list[WrittenPoint]) -> bool:
        end = COORDS_END.search(self._held)
        text, self._held = (self._held[: end.start()], self._held[end.start() :]) if end else (self._held, "")
        *whole, last = SEPARATOR.split(text)
        for unit in whole:
            self._unit += unit
            self._take(found, unit_ends=True)
        self._unit += last
        self._take(found, unit_ends=end is not None)
        self.inside = end is None
        return end is not None

    def _take(self, found: list[WrittenPoint], *, unit_ends: bool) -> None:
        """Moves whole points from the unit to `found`; its key stays as long as it goes on."""
        words = self._unit.split()
        closed = len(words) if unit_ends or self._unit[-1:].isspace() else len(words) - 1
        whole = max(closed - 1, 0) // 3
        for i in range(1, 3 * whole, 3):
            found.append(WrittenPoint(self.lists - 1, self._tag, words[0], *words[i : i + 3]))
        self.count += whole
        if unit_ends:
            self._unit = ""
        elif whole:
            trailing = " " * self._unit[-1:].isspace()
            self._unit = " ".join([words[0], *words[1 + 3 * whole :]]) + trailing
