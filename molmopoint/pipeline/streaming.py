"""An answer while it is being generated: pieces of its words, and points as soon as they are complete."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor
from transformers import StoppingCriteria

from molmopoint.pipeline.family import Events
from molmopoint.pipeline.result import PointingResult
from molmopoint.points import Point

_END = object()


class AnswerStream(Iterator["str | Point"]):
    """Events of one answer; `result` has the whole of it, with scores, once the stream is exhausted.

    A point is complete when its object id ends, so its event comes with the token after it. Scores are only known at the
    end: those of the events are NaN. Closing the stream, or leaving it as a context, stops the generation.

    Args:
        generate: runs the model with the stopping criterion it is given, and returns the result.
        events: turns tokens into events.
        eos_token_ids: ids that end the answer.
    """

    def __init__(
        self,
        generate: Callable[[StoppingCriteria], PointingResult],
        events: Events,
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self.result: PointingResult | None = None
        self._events = events
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

    def __next__(self) -> str:
        return next(event for event in self._events if isinstance(event, str))

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
