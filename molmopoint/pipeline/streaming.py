"""An answer while it is being generated: pieces of its words, and points as soon as they are complete."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import StoppingCriteria

from molmopoint.decoding import read_answer
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.markup import MarkupStripper
from molmopoint.pipeline.result import PointingResult
from molmopoint.points import Point

_END = object()


class AnswerStream(Iterator["str | Point"]):
    """Events of one answer; `result` has the whole of it, with scores, once the stream is exhausted.

    A point is complete when its object id ends, so its event comes with the token after it. Scores are only known at the
    end: those of the events are NaN. Closing the stream, or leaving it as a context, stops the generation.

    Args:
        generate: runs the model with the stopping criterion it is given, and returns the result.
        decode: text of plain ids.
        metadata: of the request.
        vocabulary_start: first id of the extended vocabulary.
        eos_token_ids: ids that end the answer.
    """

    def __init__(
        self,
        generate: Callable[[StoppingCriteria], PointingResult],
        decode: Callable[[list[int]], str],
        metadata: PointingMetadata,
        vocabulary_start: int,
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self.result: PointingResult | None = None
        self._events = _EventReader(decode, metadata, vocabulary_start)
        self._eos_token_ids = eos_token_ids
        self._ready: list[str | Point] = []
        self._tokens: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._finished = False
        self._thread = threading.Thread(target=self._work, args=(generate,), name="molmopoint-stream", daemon=True)
        self._thread.start()

    def __next__(self) -> str | Point:
        while not self._ready:
            if self._finished:
                raise StopIteration
            token = self._tokens.get()
            if isinstance(token, int):
                self._ready.extend(self._events.push(token) if token not in self._eos_token_ids else ())
                continue
            self._finished = True
            self._thread.join()
            if isinstance(token, BaseException):
                raise token
            self._ready.extend(self._events.finish())
        return self._ready.pop(0)

    def close(self) -> None:
        """Stops the generation after the token in work."""
        self._stopped.set()
        self._thread.join()
        self._finished = True
        self._ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, generate: Callable[[StoppingCriteria], PointingResult]) -> None:
        try:
            self.result = generate(_TokenWatcher(self._tokens, self._stopped))
            self._tokens.put(_END)
        except BaseException as error:  # handed to whoever iterates: a thread has nobody else to tell
            self._tokens.put(error)


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


class _EventReader:
    """Splits tokens into text pieces and points.

    The ids of an unfinished piece are kept and read again when it grows: text up to the last whole character, a point with
    its object id up to the first token that cannot belong to it.
    """

    def __init__(self, decode: Callable[[list[int]], str], metadata: PointingMetadata, vocabulary_start: int) -> None:
        self._decode = decode
        self._metadata = metadata
        self._start = vocabulary_start
        self._point_length = 3 if metadata.num_locations else 2
        self._places: list[int] = []
        self._digits: list[int] = []
        self._text: list[int] = []
        self._stripper = MarkupStripper()
        self._largest_id = 0

    def push(self, token: int) -> Iterator[str | Point]:
        """Events that are complete with this token."""
        if token >= self._start:
            yield from self._flush_text()
            if self._digits or len(self._places) == self._point_length:
                yield from self._flush_point()
            self._places.append(token)
            if token == self._start + self._metadata.num_patches:
                self._places.clear()
        elif len(self._places) == self._point_length and self._is_number(token):
            self._digits.append(token)
        else:
            yield from self._flush_point()
            self._text.append(token)
            text = self._decode(self._text)
            if not text.endswith("\ufffd"):
                self._text.clear()
                yield from self._words(text)

    def finish(self) -> Iterator[str | Point]:
        """What is left when the answer ends."""
        yield from self._flush_point()
        yield from self._flush_text()
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

    def _flush_text(self) -> Iterator[str]:
        text, self._text = self._decode(self._text) if self._text else "", []
        yield from self._words(text)

    def _words(self, text: str) -> Iterator[str]:
        closed = self._stripper.closed_lists
        if words := self._stripper.push(text):
            yield words
        if self._stripper.closed_lists > closed:
            self._largest_id = 0  # a missing object id counts on within its list
