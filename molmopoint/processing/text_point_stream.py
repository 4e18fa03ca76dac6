"""Streams of points as text: which points are complete after each piece of an answer that is still being
written.

The grammar is that of `text_points`; here it is followed piece by piece, for streams and for limits on the
number of points. Only lists with a `coords` attribute are followed: once an answer has one, other forms in it
are not read.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from molmopoint.points import Points
from molmopoint.processing.text_points import (
    COORDS_END,
    COORDS_NAME,
    INTEGER,
    SEPARATOR,
    TextForm,
    TextReader,
)

_OPENING = re.compile(r"<(points?|tracks)(?!\w)(?=.)", re.DOTALL)
"""A tag's name with the character after it, without which the name may go on."""
_NAMES = ("<points", "<point", "<tracks")
_LONGEST_NAME = len("<tracks")
_IN_TAG = re.compile(rf'{_OPENING.pattern}|["<>]', re.DOTALL)
_IN_QUOTE = re.compile(rf'{_OPENING.pattern}|"', re.DOTALL)
_PART = re.compile(rf"(?P<separator>{SEPARATOR.pattern})|(?P<blank>[^\S\t]+)|(?P<word>[^\s:;,]+)")
_LONGEST_WORD = 24
"""Characters kept of a word; any number that can be read is shorter."""


class _Place(enum.Enum):
    """Where the text read so far ends."""

    OUTSIDE = "between tags"
    TAG = "in a tag, before its coordinates"
    QUOTE = "in the quotes of another attribute"
    COORDS = "among coordinates"


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
    """Points in pixels from those a `CoordsScanner` finds, one by one; what `read_text_answer` makes of the
    whole begins with them.

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
    """Follows an answer piece by piece; every character is looked at once.

    Attributes:
        lists: how many lists have begun.
        count: how many points are complete: something follows them.
    """

    def __init__(self) -> None:
        self.lists = 0
        self.count = 0
        self._place = _Place.OUTSIDE
        self._held = ""  # what may be the beginning of a tag's name
        self._tag = ""
        self._run: list[str] = []  # of the tag, since its name or its last quotes
        self._words: list[str] = []  # of the unit: its key, and of the point being written what is whole
        self._word = ""

    @property
    def inside(self) -> bool:
        """Whether the text so far ends among the coordinates of a list."""
        return self._place is _Place.COORDS

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Id, x and y of the point at the end of the text, as far as they are written; the last one may go
        on.
        """
        if not self.inside:
            return ()
        words = [*self._words, self._word] if self._word else self._words
        return tuple(words[1:])

    def push(self, piece: str) -> list[WrittenPoint]:
        """The points that are complete after this piece."""
        text, self._held = self._held + piece, ""
        found: list[WrittenPoint] = []
        position = 0
        while position < len(text):
            position = self._read_on(text, position, found)
        return found

    def _read_on(self, text: str, position: int, found: list[WrittenPoint]) -> int:
        """One step; where it ends."""
        if self._place is _Place.COORDS:
            return self._read_coords(text, position, found)
        if self._place is _Place.OUTSIDE:
            return self._look_for_tag(text, position)
        if self._place is _Place.QUOTE:
            return self._look_for_end_of_quote(text, position)
        return self._look_for_quote(text, position)

    def _look_for_tag(self, text: str, position: int) -> int:
        """Reads on to the next tag, or to the end."""
        opening = _OPENING.search(text, position)
        if opening is not None:
            return self._open_tag(opening)
        self._hold_name(text, position)
        return len(text)

    def _look_for_end_of_quote(self, text: str, position: int) -> int:
        """Reads on to the end of the quotes, to another tag, or to the end of the text."""
        mark = _IN_QUOTE.search(text, position)
        if mark is None:
            self._hold_name(text, position)
            return len(text)
        if mark[1] is not None:
            return self._open_tag(mark)
        self._place, self._run = _Place.TAG, []
        return mark.end()

    def _look_for_quote(self, text: str, position: int) -> int:
        """Reads on to a quote in the tag, to its end, to another tag, or to the end of the text."""
        mark = _IN_TAG.search(text, position)
        if mark is None:
            self._run.append(text[position:])
            return len(text)
        if mark[1] is not None:
            return self._open_tag(mark)
        if mark[0] != '"':
            self._place = _Place.OUTSIDE
            return mark.start()  # which may begin a tag
        self._run.append(text[position : mark.start()])
        if COORDS_NAME.search("".join(self._run)):
            self._place, self._words, self._word = _Place.COORDS, [], ""
            self.lists += 1
        else:
            self._place = _Place.QUOTE
        return mark.end()

    def _read_coords(self, text: str, position: int, found: list[WrittenPoint]) -> int:
        """Reads on to the end of the list, or of the text."""
        end = COORDS_END.search(text, position)
        stop = end.start() if end is not None else len(text)
        for part in _PART.finditer(text, position, stop):
            if part["word"] is not None:
                self._word = (self._word + part["word"])[:_LONGEST_WORD]
                continue
            self._end_word(found)
            if part["separator"] is not None:
                self._words = []
        if end is not None:
            self._end_word(found)
            self._place = _Place.OUTSIDE
        return stop

    def _end_word(self, found: list[WrittenPoint]) -> None:
        """Takes the word that is whole now; with the third one of a point, the point."""
        if not self._word:
            return
        self._words.append(self._word)
        self._word = ""
        key, *rest = self._words
        if len(rest) == 3:
            found.append(WrittenPoint(self.lists - 1, self._tag, key, *rest))
            self.count += 1
            self._words = [key]

    def _open_tag(self, opening: re.Match[str]) -> int:
        self._place, self._tag, self._run = _Place.TAG, opening[1], []
        return opening.end()

    def _hold_name(self, text: str, position: int) -> None:
        """Keeps the end of the text for the next piece, if it may be the beginning of a tag's name."""
        bracket = text.rfind("<", max(position, len(text) - _LONGEST_NAME))
        if bracket >= 0 and any(name.startswith(text[bracket:]) for name in _NAMES):
            self._held = text[bracket:]
