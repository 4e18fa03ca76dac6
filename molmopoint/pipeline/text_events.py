"""Tokens of an answer in which points are text, one by one, to pieces of its words and points."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.markup import MarkupStripper
from molmopoint.pipeline.pieces import PieceDecoder
from molmopoint.points import Point
from molmopoint.processing.text_answers import read_text_answer
from molmopoint.processing.text_scanner import CoordsScanner, WrittenPointReader


class TextEventReader:
    """Splits tokens into text pieces and points.

    Points of a `coords` list come as soon as something follows them. Those of older forms come at the end: only the whole answer
    decides which form is read. Either way they are those of the result, in its order.

    Args:
        decode: text of ids, without special tokens.
        metadata: of the request.
        answer_start: beginning of the answer that comes before the first token.
        limit: most points of the answer.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], metadata: PointingMetadata, answer_start: str = "", limit: int | None = None
    ) -> None:
        self._pieces = PieceDecoder(decode)
        self._metadata = metadata
        self._limit = limit
        self._scanner = CoordsScanner()
        self._reader = WrittenPointReader(metadata.image_sizes, metadata.timestamps)
        self._stripper = MarkupStripper()
        self._text: list[str] = []
        self._count = 0
        list(self._events(answer_start))

    def push(self, token: int) -> Iterator[str | Point]:
        """Events that are complete with this token."""
        yield from self._events(self._pieces.push(token))

    def finish(self) -> Iterator[str | Point]:
        """What is left when the answer ends."""
        yield from self._events(self._pieces.finish())
        answer = read_text_answer("".join(self._text), self._metadata.image_sizes, self._metadata.timestamps)
        yield from answer.points[: self._limit][self._count :]
        if words := self._stripper.finish():
            yield words

    def _events(self, piece: str) -> Iterator[str | Point]:
        self._text.append(piece)
        inside = self._scanner.inside
        points = [point for written in self._scanner.push(piece) for point in self._reader.read(written)]
        points = points[: None if self._limit is None else max(self._limit - self._count, 0)]
        self._count += len(points)
        words = self._stripper.push(piece)
        yield from points if inside else ()
        if words:
            yield words
        yield from () if inside else points
