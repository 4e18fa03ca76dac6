"""Tokens of an answer, one by one, to pieces of its words and points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from molmopoint.decoding import read_answer
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.markup import MarkupStripper
from molmopoint.pipeline.pieces import PieceDecoder
from molmopoint.points import Point


class EventReader:
    """Splits tokens into text pieces and points.

    The ids of an unfinished piece are kept and read again when it grows: text up to the last whole character, a point with
    its object id up to the first token that cannot belong to it.

    Args:
        decode: text of plain ids.
        metadata: of the request.
        vocabulary_start: first id of the extended vocabulary.
        answer_start: beginning of the answer that comes before the first token.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], metadata: PointingMetadata, vocabulary_start: int, answer_start: str = ""
    ) -> None:
        self._decode = decode
        self._metadata = metadata
        self._start = vocabulary_start
        self._point_length = 3 if metadata.num_locations else 2
        self._places: list[int] = []
        self._digits: list[int] = []
        self._text = PieceDecoder(decode)
        self._stripper = MarkupStripper()
        self._stripper.push(answer_start)
        self._largest_id = 0

    def push(self, token: int) -> Iterator[str | Point]:
        """Events that are complete with this token."""
        if token >= self._start:
            yield from self._words(self._text.finish())
            if self._digits or len(self._places) == self._point_length:
                yield from self._flush_point()
            self._places.append(token)
            if token == self._start + self._metadata.num_patches:
                self._places.clear()
        elif len(self._places) == self._point_length and self._is_number(token):
            self._digits.append(token)
        else:
            yield from self._flush_point()
            yield from self._words(self._text.push(token))

    def finish(self) -> Iterator[str | Point]:
        """What is left when the answer ends."""
        yield from self._flush_point()
        yield from self._words(self._text.finish())
        if words := self._stripper.finish():
            yield words

    def _is_number(self, token: int) -> bool:
        text = self._decode([*self._digits, token])
        return (text.removeprefix(" ") or "0").isdecimal()

    def _flush_point(self) -> Iterator[Point]:
        ids, numbered = [*self._places, *self._digits], bool(self._digits)
        self._places, self._digits = [], []
        if ids:
            for point in read_answer(ids, self._metadata, self._start, self._decode).points:
                number = point.object_id if numbered else self._largest_id + 1
                self._largest_id = max(self._largest_id, number)
                yield replace(point, object_id=number)

    def _words(self, text: str) -> Iterator[str]:
        closed = self._stripper.closed_lists
        if words := self._stripper.push(text):
            yield words
        if self._stripper.closed_lists > closed:
            self._largest_id = 0  # a missing object id counts on within its list
