"""One model that answers many requests: a queue, batches of requests that fit together, and answers that can
be followed and ended.

Pictures are prepared in threads while the model runs in one of its own. A batch takes requests in the order
of their arrival, as long as their options are alike and their tokens fit; an answer does not depend on its
batch. A picture that is asked about again is encoded once and kept. A request whose client is gone stops at
its next token.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from molmopoint.backends.media import EncodedImage
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointingResult
from molmopoint.errors import MolmoPointError, NumericalError
from molmopoint.files import picture_limit
from molmopoint.pipeline import Pointer
from molmopoint.pipeline.zooming import Looker
from molmopoint.points import Point
from molmopoint.serving.figures import ModelFigures
from molmopoint.serving.limits import Limits

_LOG = logging.getLogger("molmopoint.serving")


class Prepared:
    """Says to the follower of a stream that its request is a good one."""


Event = str | Point | PointingResult | BaseException | Prepared
"""What a follower of an answer gets: pieces of its words and points, then the result or what went wrong."""


class QueueFull(RuntimeError):
    """More requests wait than the server takes."""


class Cancelled(RuntimeError):
    """Nobody waits for the answer any more."""


class Closed(RuntimeError):
    """The server is being stopped."""


@dataclass(eq=False)
class Job:
    """One question on its way.

    Attributes:
        pictures: as bytes, none for a question of text alone.
        key: of the pictures, for the cache; None where they are not kept.
        prompt: as it is sent.
        options: how it is answered.
        notify: is told every event, from a thread of the engine.
        streams: whether pieces and points are wanted before the result.
        history: earlier turns.
        started: second at which it came.
        request: the row, once it is prepared.
        cancelled: set when nobody waits for the answer any more.
    """

    pictures: tuple[bytes, ...]
    key: str | None
    prompt: str
    options: AnswerOptions
    notify: Callable[[Event], None]
    streams: bool = False
    history: tuple[Any, ...] = ()
    started: float = field(default_factory=time.monotonic)
    request: Request | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def num_tokens(self) -> int:
        """Of the row and its longest answer."""
        assert self.request is not None, "it is prepared"
        return len(self.request.row) + self.options.max_new_tokens


class Engine:
    """Answers jobs with one model.

    Args:
        pointer: the model.
        limits: of the server.
        figures: that are counted.
        preparers: threads that prepare pictures.
    """

    def __init__(self, pointer: Pointer, limits: Limits, figures: ModelFigures, preparers: int = 2) -> None:
        self.pointer = pointer
        self.limits = limits
        self._figures = figures
        self._backend = pointer.backend
        self._encoded: OrderedDict[tuple[str, int | None], EncodedImage] = OrderedDict()
        self._seen: OrderedDict[tuple[str, int | None], None] = OrderedDict()
        self._pool = ThreadPoolExecutor(preparers, thread_name_prefix="molmopoint-prepare")
        self._ready: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._lock = threading.Lock()
        self._num_open = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="molmopoint-engine", daemon=True)
        self._thread.start()

    @property
    def num_open(self) -> int:
        """Jobs that wait or are being answered."""
        return self._num_open

    @property
    def num_waiting(self) -> int:
        """Jobs that are prepared and wait for the model."""
        return self._ready.qsize() + len(self._waiting)

    def submit(self, job: Job) -> None:
        """Takes a job; its events come through `job.notify`, the last of them a result or an exception.

        Raises:
            QueueFull: too many jobs are open.
            Closed: the engine is being stopped.
        """
        with self._lock:
            if self._closed:
                raise _closed()
            if self._num_open >= self.limits.queue:
                raise QueueFull(
                    f"expected at most {self.limits.queue} open requests, got more; ask again in a moment"
                )
            self._num_open += 1
        self._pool.submit(self._prepare, job)

    def answer(
        self, requests: Sequence[Request], options: AnswerOptions, cancelled: threading.Event
    ) -> list[PointingResult]:
        """Answers requests that are prepared, among all others; waits for the last of them.

        Args:
            requests: windows of a clip.
            options: of all of them.
            cancelled: set when nobody waits for them any more.

        Raises:
            Cancelled: nobody does.
            Closed: the engine is being stopped.
            Exception: what went wrong with one of them.
        """
        replies: list[queue.SimpleQueue[Event]] = [queue.SimpleQueue() for _ in requests]
        with self._lock:
            if self._closed:
                raise _closed()
            self._num_open += len(requests)
        for request, reply in zip(requests, replies, strict=True):
            self._ready.put(
                Job((), None, request.prompt, options, reply.put, request=request, cancelled=cancelled)
            )
        events = [reply.get() for reply in replies]
        for event in events:
            if isinstance(event, BaseException):
                raise event
        if cancelled.is_set():
            raise _cancelled()
        return [event for event in events if isinstance(event, PointingResult)]

    def count_tokens(self, result: PointingResult) -> int:
        """Tokens of an answer."""
        return len(self._backend.processor.tokenizer.encode(result.raw_text, add_special_tokens=False))

    def refuse_queue(self) -> None:
        """Takes nothing more, and refuses what waits; what is being answered goes on."""
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """Refuses what waits, and ends once the answers that are being written are whole."""
        self.refuse_queue()
        self._pool.shutdown(wait=True)
        self._ready.put(None)
        self._thread.join()

    # In the threads that prepare

    def _prepare(self, job: Job) -> None:
        if job.cancelled.is_set() or self._closed:
            self._finish(job, _closed() if self._closed else _cancelled())
            return
        begin = time.perf_counter()
        try:
            self._backend.check_options(job.options)
            image: Any = self._known_picture(job)
            if image is None:
                image = list(job.pictures) if len(job.pictures) != 1 else job.pictures[0]
            with picture_limit(self.limits.pixels):
                job.request = self._backend.requests.about_pictures(
                    image or None, job.prompt, job.options, job.history
                )
        except Exception as error:
            if not isinstance(error, MolmoPointError):
                _LOG.exception("a request could not be prepared")
            self._finish(job, error)
            return
        self._figures.add_seconds("prepare", time.perf_counter() - begin)
        if job.streams:
            job.notify(Prepared())
        self._ready.put(job)

    def _known_picture(self, job: Job) -> EncodedImage | None:
        """The pictures of a job if they are encoded."""
        if job.key is None:
            return None
        with self._lock:
            known = self._encoded.get((job.key, job.options.max_crops))
            if known is not None:
                self._encoded.move_to_end((job.key, job.options.max_crops))
                self._figures.count_cached()
        return known

    # In the thread of the model

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            begin = time.perf_counter()
            try:
                self._answer(batch)
            except NumericalError as error:
                self._answer_alone(batch, error)
            except Exception as error:
                _LOG.exception("a batch of %d requests failed", len(batch))
                for job in batch:
                    self._finish(job, error)
            self._figures.add_seconds("answer", time.perf_counter() - begin)
            self._figures.count_batch(len(batch))

    def _next_batch(self) -> list[Job] | None:
        """The oldest job and those that can be answered with it; None at the end."""
        while True:
            if not self._gather():
                return None
            batch = self._take()
            if batch:
                return batch

    def _gather(self) -> bool:
        """Takes what is prepared, and waits where there is nothing; False at the end."""
        while not self._waiting:
            job = self._ready.get()
            if job is None:
                return False
            self._waiting.append(job)
        while not self._ready.empty():
            job = self._ready.get()
            if job is None:
                self._ready.put(None)  # for the next turn, when nothing waits any more
                break
            self._waiting.append(job)
        return True

    def _take(self) -> list[Job]:
        """The oldest job and those that fit; none if nobody waits for any."""
        batch: list[Job] = []
        left: deque[Job] = deque()
        longest = 0
        for job in self._waiting:
            if job.cancelled.is_set() or self._closed:
                self._finish(job, _closed() if self._closed else _cancelled())
                continue
            longest_with = max(longest, job.num_tokens)
            fits = (
                len(batch) < self.limits.batch and longest_with * (len(batch) + 1) <= self.limits.batch_tokens
            )
            if not batch or (fits and _alike(batch[0], job)):
                batch.append(job)
                longest = longest_with
            else:
                left.append(job)
        self._waiting = left
        return batch

    def _answer(self, batch: Sequence[Job]) -> None:
        for job in batch:
            self._keep_features(job)
        follower = _Follower(batch, self._backend.eos_token_ids, [self._events(job) for job in batch])
        requests = [job.request for job in batch if job.request is not None]
        options = batch[0].options
        results = self._backend.answer(
            requests, options.for_one_look(), stopping_criteria=StoppingCriteriaList([follower])
        )
        follower.finish()
        if options.looks_again is not None:
            results = self._look_again(batch, requests, results, options)
        for job, result in zip(batch, results, strict=True):
            self._finish(job, result)

    def _look_again(
        self,
        batch: Sequence[Job],
        requests: Sequence[Request],
        firsts: Sequence[PointingResult],
        options: AnswerOptions,
    ) -> list[PointingResult]:
        """Answers of a batch after a second look; nothing more is looked at for those whose client is gone."""

        def ask(owners: Sequence[int], asked: Sequence[Request]) -> list[PointingResult]:
            jobs = [batch[owner] for owner in owners]
            follower = _Follower(jobs, self._backend.eos_token_ids, [None] * len(jobs))
            return self._backend.answer(
                asked, options.for_one_look(), stopping_criteria=StoppingCriteriaList([follower])
            )

        with picture_limit(self.limits.pixels):
            return Looker(self._backend).look_again(requests, firsts, options, ask)

    def _answer_alone(self, batch: Sequence[Job], error: NumericalError) -> None:
        """Answers a batch again one by one, so that good rows keep their answers."""
        if len(batch) == 1:
            self._finish(batch[0], error)
            return
        for job in batch:
            try:
                self._answer([job])
            except Exception as fault:
                self._finish(job, fault)

    def _events(self, job: Job) -> Any:
        """Reads the answer of a job that streams token by token."""
        if not job.streams or job.request is None:
            return None
        return self._backend.events(job.request, job.options)

    def _keep_features(self, job: Job) -> None:
        """Encodes pictures that were asked about before; the first time, a batch looks at all of its pictures
        at once.
        """
        request = job.request
        if job.key is None or request is None or request.features is not None or not request.media.pixels:
            return
        name = (job.key, job.options.max_crops)
        with self._lock:
            known = self._encoded.get(name)
            is_new = name not in self._seen
            self._seen[name] = None
            while len(self._seen) > 8 * max(self.limits.cached_pictures, 1):
                self._seen.popitem(last=False)
        if known is None and (is_new or not self.limits.cached_pictures):
            return
        if known is None:
            begin = time.perf_counter()
            known = EncodedImage(request.media, self._backend.encode(request.media), job.options.max_crops)
            self._figures.add_seconds("encode", time.perf_counter() - begin)
            with self._lock:
                self._encoded[name] = known
                while len(self._encoded) > self.limits.cached_pictures:
                    self._encoded.popitem(last=False)
        job.request = replace(request, features=known.features)

    def _finish(self, job: Job, last: PointingResult | BaseException) -> None:
        """Closes a job."""
        with self._lock:
            self._num_open -= 1
        job.notify(last)


def _closed() -> Closed:
    return Closed("expected a running server, got one that is being stopped; ask again in a moment")


def _cancelled() -> Cancelled:
    return Cancelled("expected somebody to wait for the answer, got nobody")


def _alike(first: Job, other: Job) -> bool:
    """Whether one run of the model can answer both: equal options but those that rows are made with."""
    return (
        first.options.generate_arguments() == other.options.generate_arguments()
        and first.options.max_points == other.options.max_points
        and first.options.single == other.options.single
        and first.options.min_score == other.options.min_score
        and first.options.calibrated == other.options.calibrated
        and first.options.zoom == other.options.zoom
        and (first.options.looks_again is None or first.options.max_crops == other.options.max_crops)
    )


class _Follower(StoppingCriteria):
    """Hands every new token to the readers of the rows, and ends rows that nobody waits for.

    Args:
        jobs: rows of the batch.
        eos_token_ids: ids that end an answer.
        readers: of the rows that stream, None for the others.
    """

    def __init__(self, jobs: Sequence[Job], eos_token_ids: Sequence[int], readers: Sequence[Any]) -> None:
        self._jobs = jobs
        self._ends = frozenset(eos_token_ids)
        self._readers = list(readers)
        self._open = [True] * len(jobs)
        self._nobody: Tensor | None = None  # (B,), made once and not at every token

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """(B,) which rows are done."""
        if any(reader is not None for reader in self._readers):
            for row, token in enumerate(input_ids[:, -1].tolist()):
                self._push(row, token)
        gone = [job.cancelled.is_set() for job in self._jobs]
        if any(gone):
            return torch.tensor(gone, device=input_ids.device)
        if self._nobody is None:
            self._nobody = torch.zeros(len(gone), dtype=torch.bool, device=input_ids.device)
        return self._nobody

    def finish(self) -> None:
        """Hands out what the readers still hold."""
        for job, reader in zip(self._jobs, self._readers, strict=True):
            if reader is not None:
                _tell(job, reader.finish())

    def _push(self, row: int, token: int) -> None:
        reader = self._readers[row]
        if reader is None or not self._open[row]:
            return
        if token in self._ends:
            self._open[row] = False
            return
        _tell(self._jobs[row], reader.push(token))


def _tell(job: Job, events: Iterator[str | Point]) -> None:
    for event in events:
        job.notify(event)
