"""An answer while it is being generated: pieces of its words, and points as soon as they are complete.

The model runs in a thread. The thread knows the queue of tokens and the flag that stops it, and not the stream: so a stream that nobody
holds any more is collected, and its end stops the generation.

Tokens of an answer, one by one, to pieces of its words and points.

Tokens of an answer in which points are text, one by one, to pieces of its words and points.

Tokens of an answer, one by one, to text that ends with a whole character.

Answers in words: the markup of point lists is taken out, their labels stay.

A list is written as

    '<points coords="' places '">' label '</point>'      (or '<tracks'; also '</points>', '</tracks>')

where places are grounding tokens or, in models without them, numbers. Older models write

    '<point x="' number '" y="' number '" alt="' label '">' label '</point>'        (or '<points x1=... y1=... x2=...')
    '<points ' time (' ' id ' ' x ' ' y)* '/>'
"""

from __future__ import annotations

import queue
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import StoppingCriteria

from molmopoint.decoding import read_answer
from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.family import Events
from molmopoint.pipeline.result import PointingResult
from molmopoint.points import Point
from molmopoint.processing.text_point_stream import CoordsScanner, WrittenPointReader
from molmopoint.processing.text_points import read_text_answer

_PLACE = re.compile(r"<POINT_\d+>")
_OPENING = re.compile(r'<(?:points?|tracks)(?:\s+(?P<older>\d)|\b[^<>]*?(?:coords="|\b(?P<attribute>[xy]\d*\s*=\s*")))')
_CLOSING = re.compile(r"</(?:point|track)s?>")
_END_OF_PLACES, _END_OF_TAG = '">', ">"
_OPENED = ("<points ", "<point ", "<tracks ")
_TAGS = (*_OPENED, "</points>", "</point>", "</tracks>", "</track>")
_LONGEST_TAG = 200
_SHORTEST_CUT = 2
"""What is left of a tag at the end of an answer is taken out if it is longer than this; "<" alone is more likely text."""


def plain_text(raw_text: str) -> str:
    """The answer in words; of a list that was cut among its places nothing is left.

    >>> plain_text('Counting the <points coords="<POINT_7><POINT_9><POINT_3>1<POINT_8>">cups</point> shows a total of 1.')
    'Counting the cups shows a total of 1.'
    >>> plain_text('<point x="61.5" y="40.4" alt="the cup">the cup</point>')
    'the cup'
    """
    stripper = MarkupStripper()
    return (stripper.push(_PLACE.sub("", raw_text)) + stripper.finish()).strip()


class MarkupStripper:
    """Takes an answer piece by piece and gives its words as soon as they are certain.

    Attributes:
        closed_lists: how many closing tags have passed.
    """

    def __init__(self) -> None:
        self.closed_lists = 0
        self._held = ""
        self._awaited = ""  # what ends the places that the text is among

    def push(self, piece: str) -> str:
        """The words that are certain after this piece, which may be none."""
        text, self._held = self._held + piece, ""
        words: list[str] = []
        position = 0
        while position < len(text):
            if self._awaited:
                position = self._leave_places(text, position)
                continue
            bracket = text.find("<", position)
            if bracket < 0:
                words.append(text[position:])
                break
            words.append(text[position:bracket])
            if opening := _OPENING.match(text, bracket):
                self._awaited = _END_OF_TAG if opening["older"] or opening["attribute"] else _END_OF_PLACES
                position = opening.end()
            elif closing := _CLOSING.match(text, bracket):
                self.closed_lists += 1
                position = closing.end()
            elif _may_become_tag(text[bracket : bracket + _LONGEST_TAG]):
                self._held = text[bracket:]
                break
            else:
                words.append("<")
                position = bracket + 1
        return "".join(words)

    def finish(self) -> str:
        """What was held back because it could have become a tag, if the answer is really over."""
        held, self._held = self._held, ""
        begun = any(tag.startswith(held) or (tag in _OPENED and held.startswith(tag)) for tag in _TAGS)
        return "" if self._awaited or (len(held) > _SHORTEST_CUT and begun) else held

    def _leave_places(self, text: str, position: int) -> int:
        """Drops places up to their end, or up to that of the text."""
        end = text.find(self._awaited, position)
        if end >= 0:
            position, self._awaited = end + len(self._awaited), ""
            return position
        # Only the beginning of the end at the very end can still become one.
        self._held = '"' * (self._awaited == _END_OF_PLACES and text.endswith('"'))
        return len(text)


def _may_become_tag(held: str) -> bool:
    """Whether more text could turn what is held into a tag."""
    inside = held.startswith(_OPENED) and ">" not in held and "<" not in held[1:] and len(held) < _LONGEST_TAG
    return inside or any(tag.startswith(held) for tag in _TAGS)


_UNFINISHED = "\ufffd"
"""What a decoder writes for a character whose last bytes are still to come."""


class PieceDecoder:
    """Keeps the ids of an unfinished piece and reads them again when it grows.

    Args:
        decode: text of ids, without special tokens.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that is certain with this token, which may be none."""
        self._held.append(token)
        text = self._decode(self._held)
        if text.endswith(_UNFINISHED):
            return ""
        self._held = []
        return text

    def finish(self) -> str:
        """What is left, characters without an end included."""
        held, self._held = self._held, []
        return self._decode(held) if held else ""


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


_END = object()

_ONE_READER = (
    "expected one reader of a stream, got several at a time: each would miss what the others get; "
    "read it in one thread, and hand on what it gives"
)


@dataclass
class _Channel:
    """What the thread of the model and the stream share.

    Attributes:
        tokens: ids of the answer, then an exception or the end.
        stopped: set to end the generation after the token in work.
        result: the whole answer, once there is one.
    """

    tokens: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    stopped: threading.Event = field(default_factory=threading.Event)
    result: PointingResult | None = None


class AnswerStream(Iterator["str | Point"]):
    """Events of one answer; `result` has the whole of it, with scores, once the stream is exhausted.

    A point is complete when its object id ends, so its event comes with the token after it. Scores are only known at the
    end: those of the events are NaN. Closing the stream, leaving it as a context, or dropping it stops the generation after
    the token in work. One thread reads it: a second one that loops over it, or that asks while another waits, gets an error.

    Args:
        generate: runs the model with the stopping criterion it is given, and returns the result.
        events: turns tokens into events.
        eos_token_ids: ids that end the answer.

    Raises:
        ProcessingError: two threads read the same stream.
    """

    def __init__(
        self,
        generate: Callable[[StoppingCriteria], PointingResult],
        events: Events,
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self._channel = _Channel()
        self._events = events
        self._eos_token_ids = eos_token_ids
        self._ready: list[str | Point] = []
        self._finished = self._is_shared = False
        self._reading = threading.Lock()
        self._looping: int | None = None
        weakref.finalize(self, self._channel.stopped.set)
        self._thread = threading.Thread(target=_work, args=(generate, self._channel), name="molmopoint-stream", daemon=True)
        self._thread.start()

    @property
    def result(self) -> PointingResult | None:
        """The whole answer, once the stream is exhausted."""
        return self._channel.result

    def __iter__(self) -> Self:
        here = threading.get_ident()
        if self._looping not in (None, here):
            raise ProcessingError(_ONE_READER)
        self._looping = here
        return self

    def __next__(self) -> str | Point:
        if not self._reading.acquire(blocking=False):
            # Nobody can have the whole answer any more, so the other reader is told as well.
            self._is_shared = True
            self._channel.stopped.set()
            raise ProcessingError(_ONE_READER)
        try:
            return self._next_event()
        finally:
            self._reading.release()

    def _next_event(self) -> str | Point:
        while not self._ready and not self._is_shared:
            if self._finished:
                raise StopIteration
            token = self._channel.tokens.get()
            if isinstance(token, int):
                self._ready.extend(self._events.push(token) if token not in self._eos_token_ids else ())
                continue
            self._finished = True
            self._thread.join()
            if isinstance(token, BaseException):
                raise token
            self._ready.extend(self._events.finish())
        if self._is_shared:
            raise ProcessingError(_ONE_READER)
        return self._ready.pop(0)

    def close(self) -> None:
        """Stops the generation after the token in work."""
        self._channel.stopped.set()
        self._thread.join()
        self._finished = True
        self._ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TextStream(Iterator[str]):
    """Pieces of an answer in words; see `AnswerStream`, whose points are left out here."""

    def __init__(
        self,
        generate: Callable[[StoppingCriteria], PointingResult],
        events: Events,
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self._events = AnswerStream(generate, events, eos_token_ids)

    @property
    def result(self) -> PointingResult | None:
        """The whole answer, once the stream is exhausted."""
        return self._events.result

    def __iter__(self) -> Self:
        iter(self._events)
        return self

    def __next__(self) -> str:
        while not isinstance(event := next(self._events), str):
            pass
        return event

    def close(self) -> None:
        """Stops the generation after the token in work."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _TokenWatcher(StoppingCriteria):
    """Hands over every new token, and ends the generation once it is told to.

    Stopping criteria see each token of every decoding loop; a streamer would need a second object to stop it.
    """

    def __init__(self, tokens: queue.SimpleQueue[Any], stopped: threading.Event) -> None:
        self._tokens = tokens
        self._stopped = stopped

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **_: Any) -> Tensor:
        self._tokens.put(int(input_ids[0, -1]))
        return torch.full((len(input_ids),), self._stopped.is_set(), dtype=torch.bool, device=input_ids.device)


def _work(generate: Callable[[StoppingCriteria], PointingResult], channel: _Channel) -> None:
    """Runs the model; what it raises is handed to whoever reads, because a thread has nobody else to tell."""
    try:
        channel.result = generate(_TokenWatcher(channel.tokens, channel.stopped))
        channel.tokens.put(_END)
    except BaseException as error:
        channel.tokens.put(error)
