"""An answer while it is being generated: pieces of its words, and points as soon as they are complete.

The model runs in a thread. The thread knows the queue of tokens and the flag that stops it, and not the
stream: so a stream that nobody holds any more is collected, and its end stops the generation.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from transformers import StoppingCriteria

from molmopoint.backends.base import Events
from molmopoint.backends.result import PointingResult
from molmopoint.errors import ProcessingError
from molmopoint.points import Point

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

    A point is complete when its object id ends, so its event comes with the token after it. Scores are only
    known at the end: those of the events are NaN. Closing the stream, leaving it as a context, or dropping it
    stops the generation after the token in work. One thread reads it: a second one that loops over it, or
    that asks while another waits, gets an error.

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
        self._thread = threading.Thread(
            target=_work, args=(generate, self._channel), name="molmopoint-stream", daemon=True
        )
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
        return torch.full(
            (len(input_ids),), self._stopped.is_set(), dtype=torch.bool, device=input_ids.device
        )


def _work(generate: Callable[[StoppingCriteria], PointingResult], channel: _Channel) -> None:
    """Runs the model; what it raises is handed to whoever reads, because a thread has nobody else to tell."""
    try:
        channel.result = generate(_TokenWatcher(channel.tokens, channel.stopped))
        channel.tokens.put(_END)
    except BaseException as error:
        channel.tokens.put(error)
