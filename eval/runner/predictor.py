"""Predicts the answers to a benchmark's items with a model that points, in batches, and tells where the time
goes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from molmopoint.eval.benchmark import GenerationSettings, Item
from molmopoint.eval.datasets.videos import read_frames
from molmopoint.eval.predictions.records import NO_ID, PredictedPoint, Prediction
from molmopoint.eval.runner.resizing import displayed_sizes, points_in, read_with_area
from molmopoint.pipeline import Pointer, PointingResult

FAULTS = (ValueError, OSError, RuntimeError)
"""What may be wrong with one item: its media (the library's errors are ValueErrors), or memory. Other errors
are faults of the program and end the run; the answers so far are on the disk."""

OnProgress = Callable[[int], None]
"""Is told how many more items are done."""

Outcome = PointingResult | Exception
"""Of one item."""

_REASON = 500
"""Characters kept of an error."""


class Profile:
    """Seconds by phase. "prepare" runs beside the model and counts only as far as "wait" shows it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, phase: str, seconds: float) -> None:
        """Counts time of a phase."""
        self.seconds[phase] += seconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def to_dict(self) -> dict[str, float]:
        """Milliseconds are enough."""
        return {phase: round(seconds, 3) for phase, seconds in self.seconds.items()}


class Predictor:
    """Has a model point in the items of one benchmark.

    Args:
        pointer: the model.
        task: name of the benchmark.
        version: of its rules.
        settings: how to ask.
        batch_size: items per run of the model; clips go one by one.
        rank: of this process.
        profile: is told where the time goes.
    """

    def __init__(
        self,
        pointer: Pointer,
        task: str,
        version: int,
        settings: GenerationSettings,
        *,
        batch_size: int = 8,
        rank: int = 0,
        profile: Profile | None = None,
    ) -> None:
        self.pointer = pointer
        self.task = task
        self.version = version
        self.settings = settings
        self.batch_size = batch_size
        self.rank = rank
        self.profile = profile or Profile()

    def predict(self, items: Sequence[Item]) -> Iterator[list[Prediction]]:
        """Answers in the order of the items, pictures first, a batch at a time; an item that fails has its
        error.
        """
        pictures = [item for item in items if item.clip is None]
        clips = [item for item in items if item.clip is not None]
        yield from self._in_batches(pictures)
        for item in clips:
            yield [self._timed_alone(item)]

    def _in_batches(self, items: Sequence[Item]) -> Iterator[list[Prediction]]:
        """Batches of the pointer; one that fails as a whole is asked item by item, and the rest goes on in
        batches.
        """
        done = 0
        while done < len(items):
            left = items[done:]
            outcomes = self.pointer.point_batch(
                (self._media(item) for item in left),
                [self._prompt(item) for item in left],
                batch_size=self.batch_size,
                on_error="yield",
                on_phase=self.profile.add,
                **self._point_options(),
            )
            try:
                for batch in self._timed_batches(outcomes, left):
                    done += len(batch)
                    yield batch
            except FAULTS:
                for item in items[done : done + self.batch_size]:
                    yield [self._timed_alone(item)]
                done += self.batch_size

    def _point_options(self) -> dict[str, Any]:
        """How to ask; a family with a form of its own puts what is asked into that."""
        options = self.settings.point_options()
        if self._has_own_form:
            options["template"] = None
        return options

    @property
    def _has_own_form(self) -> bool:
        """Whether the model's family is asked in a form of its own."""
        backend = getattr(self.pointer, "backend", None)
        return backend is not None and backend.has_own_form

    def _prompt(self, item: Item) -> str:
        """What is asked; a family with a form of its own puts the bare phrase into that."""
        if self._has_own_form and item.phrase is not None:
            return item.phrase
        return item.prompt

    def _media(self, item: Item) -> Any:
        """One picture as it is, or of the area that is asked for; several as a list, which is one request."""
        area = self.settings.picture_area
        pictures: list[Any] = list(item.images)
        if area is not None:
            pictures = [read_with_area(path, area) for path in item.images]
        return pictures[0] if len(pictures) == 1 else pictures

    def _timed_batches(
        self, outcomes: Iterator[Outcome], items: Sequence[Item]
    ) -> Iterator[list[Prediction]]:
        waiting = iter(items)
        while True:
            start = time.perf_counter()
            batch = list(islice(outcomes, self.batch_size))
            if not batch:
                return
            latency = (time.perf_counter() - start) / len(batch)
            asked = islice(waiting, len(batch))
            yield [
                self._prediction(item, outcome, latency) for item, outcome in zip(asked, batch, strict=True)
            ]

    def _timed_alone(self, item: Item) -> Prediction:
        start = time.perf_counter()
        outcome = self._alone(item)
        return self._prediction(item, outcome, time.perf_counter() - start)

    def _alone(self, item: Item) -> Outcome:
        """A single item; memory that ran out in a batch may suffice for one."""
        options = self._point_options()
        try:
            if item.clip is None:
                return self.pointer.point(self._media(item), self._prompt(item), **options)
            frames, timestamps = read_frames(item.clip, self.settings)
            del options["max_crops"], options["zoom"]
            return self.pointer.point_video(frames, self._prompt(item), timestamps=timestamps, **options)
        except FAULTS as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            return error

    def _prediction(self, item: Item, outcome: Outcome, latency: float) -> Prediction:
        common: dict[str, Any] = {
            "item_id": item.item_id,
            "task": self.task,
            "task_version": self.version,
            "rank": self.rank,
        }
        if isinstance(outcome, Exception):
            return failed_prediction({**common, "prompt": self._prompt(item)}, outcome, latency)
        times = outcome.metadata.timestamps
        points = _points(outcome)
        sizes = tuple((int(width), int(height)) for width, height in outcome.image_sizes)
        if self.settings.picture_area is not None:
            seen, sizes = sizes, displayed_sizes(item.images)
            points = points_in(points, seen, sizes)
        return Prediction(
            **common,
            prompt=outcome.prompt,
            raw_text=outcome.raw_text,
            text=outcome.text,
            points=points,
            image_sizes=sizes,
            timestamps=None if times is None else tuple(float(t) for t in times),
            finish_reason="length" if outcome.truncated else "stop",
            invalid=outcome.invalid,
            latency=round(latency, 6),
            looks=outcome.looks,
        )


def failed_prediction(common: Mapping[str, Any], error: Exception, latency: float) -> Prediction:
    """What is stored of an item whose model or media failed.

    Args:
        common: what all predictions have.
        error: why.
        latency: seconds until then.
    """
    message = f"{type(error).__name__}: {error}"[:_REASON]
    return Prediction(**common, finish_reason="error", error=message, latency=latency)


def _points(result: PointingResult) -> tuple[PredictedPoint, ...]:
    points = []
    for point in result.points:
        has_id = point.object_id is not None and int(point.object_id) != NO_ID
        points.append(
            PredictedPoint(
                id=int(point.object_id) if has_id else None,
                group=float(point.group),
                x=float(point.x),
                y=float(point.y),
                score=float(point.score),
            )
        )
    return tuple(points)
