"""Asks a model the items of a benchmark and writes down every answer as soon as it is there.

The frames of a benchmark's clip that the model sees.

Where the time of a run went.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Asking, Clip, Item
from molmopoint.eval.runner.records import NO_ID, PredictedPoint, Prediction
from molmopoint.files import open_picture
from molmopoint.pipeline import Pointer, PointingResult
from molmopoint.video import read_video, sample_indices


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


MAX_RATE = 10
"""Frames a second at most in mode `fps`, as in the training and the evaluation of the released models."""

FRAME_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def cut_clip(clip: Clip, asking: Asking) -> tuple[np.ndarray, list[float]]:
    """Frames (T, height, width, 3) uint8 and their seconds from the start of the clip.

    Args:
        clip: a video file, or a folder of frames in the order of their names.
        asking: frames per second, and frames at most.

    Raises:
        EvaluationError: a folder without frames or without a frame rate.
        ProcessingError: a file that is no video.
    """
    if not clip.path.is_dir():
        read = read_video(
            clip.path,
            asking.max_frames,
            asking.fps,
            asking.sample_mode,
            sampling_fps=round(asking.fps),
            max_rate=MAX_RATE,
            start=clip.start or 0.0,
            end=clip.end,
        )
        return np.asarray(read.frames), [float(t) for t in read.timestamps]
    rate = clip.frames_per_second
    if not rate:
        raise EvaluationError(f"expected the frame rate of the folder of frames {clip.path}, got {rate}; the benchmark must give it")
    files = _frames_between(clip, rate)
    chosen = sample_indices(
        len(files), rate, asking.max_frames, asking.fps, asking.sample_mode, sampling_fps=round(asking.fps), max_rate=MAX_RATE
    )
    frames = []
    for i in chosen:
        with open_picture(files[i]) as picture:
            frames.append(np.asarray(picture.convert("RGB")))
    return np.stack(frames), [float(i / rate) for i in chosen]


def _frames_between(clip: Clip, rate: float) -> list[Path]:
    files = sorted(file for file in clip.path.iterdir() if file.suffix.lower() in FRAME_ENDINGS)
    first = 0 if clip.start is None else round(clip.start * rate)
    last = len(files) if clip.end is None else round(clip.end * rate) + 1
    if not files[first:last]:
        raise EvaluationError(f"expected frames in {clip.path}, got none from {clip.start} to {clip.end} seconds; check the folder")
    return files[first:last]


Answered = PointingResult | Exception


class Asker:
    """Asks items of one benchmark.

    Args:
        pointer: the model.
        task: name of the benchmark.
        version: of its file.
        asking: how to ask.
        batch_size: items per run of the model; clips go one by one.
        rank: of this process.
        profile: is told where the time goes.
    """

    def __init__(
        self,
        pointer: Pointer,
        task: str,
        version: int,
        asking: Asking,
        *,
        batch_size: int = 8,
        rank: int = 0,
        profile: Profile | None = None,
    ) -> None:
        self.pointer = pointer
        self.task, self.version = task, version
        self.asking = asking
        self.batch_size = batch_size
        self.rank = rank
        self.profile = profile or Profile()

    def ask(self, items: Sequence[Item]) -> Iterator[list[Prediction]]:
        """Answers in the order of the items, a batch at a time. An item that fails is answered with its error."""
        pictures = [item for item in items if item.clip is None]
        clips = [item for item in items if item.clip is not None]
        yield from self._in_batches(pictures)
        for item in clips:
            start = time.perf_counter()
            yield [self._prediction(item, self._one(item), time.perf_counter() - start)]

    def _in_batches(self, items: Sequence[Item]) -> Iterator[list[Prediction]]:
        """Batches of the pointer; one that fails as a whole is asked item by item, and the rest goes on in batches."""
        done = 0
        while done < len(items):
            answers = self.pointer.point_batch(
                (_media(item) for item in items[done:]),
                [item.prompt for item in items[done:]],
                batch_size=self.batch_size,
                on_error="yield",
                watch=self.profile.add,
                **self._options(),
            )
            try:
                for batch in self._timed_batches(answers, items[done:]):
                    done += len(batch)
                    yield batch
            except FAULTS:
                for item in items[done : done + self.batch_size]:
                    start = time.perf_counter()
                    yield [self._prediction(item, self._one(item), time.perf_counter() - start)]
                done += self.batch_size

    def _timed_batches(self, answers: Iterator[Answered], items: Sequence[Item]) -> Iterator[list[Prediction]]:
        waiting = iter(items)
        while True:
            start = time.perf_counter()
            batch = list(islice(answers, self.batch_size))
            if not batch:
                return
            each = (time.perf_counter() - start) / len(batch)
            yield [self._prediction(item, answer, each) for item, answer in zip(islice(waiting, len(batch)), batch, strict=True)]

    def _one(self, item: Item) -> Answered:
        """A single item; memory that ran out in a batch may suffice for one."""
        try:
            if item.clip is None:
                return self.pointer.point(_media(item), item.prompt, **self._options())
            video, timestamps = cut_clip(item.clip, self.asking)
            options = {name: value for name, value in self._options().items() if name != "max_crops"}
            return self.pointer.point_video(video, item.prompt, timestamps=timestamps, **options)
        except FAULTS as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            return error

    def _options(self) -> dict[str, Any]:
        asking = self.asking
        return {
            "template": asking.template or "{}",
            "max_new_tokens": asking.max_new_tokens,
            "single": asking.single,
            "max_crops": asking.max_crops,
        }

    def _prediction(self, item: Item, answer: Answered, latency: float) -> Prediction:
        common: dict[str, Any] = {"item_id": item.item_id, "task": self.task, "task_version": self.version, "rank": self.rank}
        if isinstance(answer, Exception):
            return failed_prediction({**common, "prompt": item.prompt}, answer, latency)
        times = answer.metadata.timestamps
        return Prediction(
            **common,
            prompt=answer.prompt,
            raw_text=answer.raw_text,
            text=answer.text,
            points=_points(answer),
            image_sizes=tuple((int(width), int(height)) for width, height in answer.image_sizes),
            timestamps=None if times is None else tuple(float(t) for t in times),
            finish_reason="length" if answer.truncated else "stop",
            invalid=answer.invalid,
            latency=round(latency, 6),
        )


FAULTS = (ValueError, OSError, RuntimeError)
"""What may be wrong with one item: its media (the library's errors are ValueErrors), or memory. Other errors are faults of the
program and end the run; the answers so far are on the disk."""

_REASON = 500
"""Characters kept of an error."""


def failed_prediction(common: Mapping[str, Any], error: Exception, latency: float) -> Prediction:
    """What is stored of an item whose model or media failed.

    Args:
        common: what all predictions have.
        error: why.
        latency: seconds until then.
    """
    return Prediction(**common, finish_reason="error", error=f"{type(error).__name__}: {error}"[:_REASON], latency=latency)


def _media(item: Item) -> Any:
    """One picture as it is; several as a list, which is one request."""
    return item.images[0] if len(item.images) == 1 else list(item.images)


def _points(result: PointingResult) -> tuple[PredictedPoint, ...]:
    return tuple(
        PredictedPoint(
            id=None if point.object_id is None or int(point.object_id) == NO_ID else int(point.object_id),
            group=float(point.group),
            x=float(point.x),
            y=float(point.y),
            score=float(point.score),
        )
        for point in result.points
    )


Progress = Callable[[int], None]
"""Is told how many more items are done."""
