"""Pointing in a clip that is seen in windows: one result out of the answers to all of them.

Letters: n points, T frames of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request, RequestBuilder
from molmopoint.backends.result import PointingResult
from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.batching import run_in_batches
from molmopoint.pipeline.clip_plans import ClipPlan
from molmopoint.pipeline.windows import Window
from molmopoint.points import Points
from molmopoint.tracks.linking import pairs_within

LINK_REACH = 0.1
"""Part of the diagonal within which two windows mean the same object."""

Progress = Callable[[int, int], None]
"""Is told how many windows were answered, and how many there are."""


def point_in_windows(
    plan: ClipPlan,
    prompt: str,
    options: AnswerOptions,
    builder: RequestBuilder,
    answer: Callable[[Sequence[Request]], Sequence[PointingResult]],
    progress: Progress | None = None,
) -> PointingResult:
    """Asks the same about every window of a clip, and joins the answers.

    Args:
        plan: the windows of the clip.
        prompt: as it is sent with each of them.
        options: how each is answered.
        builder: of requests.
        answer: runs the model on a batch of requests.
        progress: is told after every window.

    Raises:
        ProcessingError: the clip cannot be read, or the request does not fit the model.
    """

    def prepare(window: Window) -> Request:
        return builder.about_video(window.video, prompt, window.options, options)

    found: list[PointingResult] = []
    for result in run_in_batches(plan.windows, prepare, answer, batch_size=1, on_error="raise"):
        assert isinstance(result, PointingResult), "errors are raised"
        found.append(result)
        if progress is not None:
            progress(len(found), len(plan.windows))
    return joined(plan, found)


def joined(plan: ClipPlan, answers: Sequence[PointingResult]) -> PointingResult:
    """One result out of the answers to all windows; times count from the start of the part that was looked
    at.
    """
    first = answers[0]
    if len(answers) == 1:
        return replace(first, answers=tuple(answers))
    notes = dict.fromkeys(note for answer in answers for note in answer.notes)
    seen = f"all {plan.times[-1]:.1f} s were looked at, {len(plan.times)} frames in {len(answers)} windows that share some"
    return PointingResult(
        points=_joined_points(plan, answers),
        text="\n".join(answer.text for answer in answers),
        raw_text="\n".join(answer.raw_text for answer in answers),
        prompt=first.prompt,
        truncated=any(answer.truncated for answer in answers),
        invalid=sum(answer.invalid for answer in answers),
        image_sizes=first.image_sizes,
        metadata=_times_alone(first.image_sizes, plan.times),
        displayed=plan.displayed,
        notes=(*notes, seen),
        answers=tuple(answers),
        left_out=sum(answer.left_out for answer in answers),
    )


def _joined_points(plan: ClipPlan, answers: Sequence[PointingResult]) -> Points:
    """Points of all windows in the order of time, without those that two windows say alike."""
    reach = LINK_REACH * math.hypot(*plan.size)
    table = _PointTable()
    end = -math.inf
    for window, answer in zip(plan.windows, answers, strict=True):
        points = answer.points
        # Sums of seconds are off by less than any step: each point has the very time of its frame.
        apart = np.abs(plan.times - (points.group + window.start)[:, None])  # (n, T)
        times = plan.times[apart.argmin(axis=1)]  # (n,)
        table.add(points, times, _numbers(table, points, times, end, reach))
        seen = answer.metadata.timestamps
        assert seen is not None, "a clip has times"
        end = window.start + float(seen.max())
    return table.points(answers[0].image_sizes)


class _PointTable:
    """Points of the windows so far."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float, float, float, str | None]] = []

    @property
    def object_ids(self) -> list[int]:
        """The numbers that are taken, in order."""
        return sorted({row[0] for row in self.rows})

    def place_of(self, number: int, time: float) -> np.ndarray:
        """(2,) where an object was nearest to a moment in time."""
        own = [row for row in self.rows if row[0] == number]
        nearest = min(own, key=lambda row: abs(row[1] - time))
        return np.array(nearest[2:4])

    def add(self, points: Points, times: np.ndarray, numbers: dict[int, int]) -> None:
        """Adds points (n) of a window at their times (n,), under new numbers."""
        taken = {row[:2] for row in self.rows}
        for point, time in zip(points, times.tolist(), strict=True):
            number = numbers[point.object_id]
            if (number, time) not in taken:
                self.rows.append((number, time, point.x, point.y, point.score, point.label))

    def points(self, image_sizes: Sequence[tuple[int, int]]) -> Points:
        """All of them in the order of time."""
        rows = sorted(self.rows, key=lambda row: row[1])
        if not rows:
            return Points.empty(video=True, image_sizes=image_sizes)
        object_id, group, x, y, score, labels = zip(*rows, strict=True)
        columns = [np.array(column, dtype=np.float64) for column in (group, x, y, score)]
        return Points(np.array(object_id), *columns, image_sizes=image_sizes, labels=labels)


def _numbers(
    table: _PointTable, points: Points, times: np.ndarray, end: float, reach: float
) -> dict[int, int]:
    """The number in the table of every object of a window.

    An object that is pointed at in the part that two windows share, near where one was before, is that one.
    One that comes later was not there before, as far as the earlier window tells.

    Args:
        table: points so far.
        points: (n) of the window.
        times: (n,) their seconds in the clip.
        end: second at which the windows so far end.
        reach: pixels within which two places are of one object.
    """
    old = table.object_ids
    new = list(dict.fromkeys(points.object_id.tolist()))
    distances = np.full((len(old), len(new)), np.inf)
    for column, number in enumerate(new):
        row = int(np.flatnonzero(points.object_id == number)[0])
        if times[row] > end:
            continue
        for i, known in enumerate(old):
            distances[i, column] = np.hypot(*(table.place_of(known, times[row]) - points.xy[row]))
    numbers = {new[column]: old[i] for i, column in pairs_within(distances, reach)}
    following = 1 + max(old, default=0)
    rest = [number for number in new if number not in numbers]
    if not old:
        return {number: number for number in new}
    return numbers | {number: following + i for i, number in enumerate(rest)}


def _times_alone(image_sizes: Sequence[tuple[int, int]], times: np.ndarray) -> PointingMetadata:
    """Size and (T,) times of a clip; grounding tokens mean something for a single window only."""
    frames = np.arange(len(times))
    return PointingMetadata(
        pooling=frames[:, None],
        indexable=np.ones(len(times), dtype=bool),
        patch_maps=[np.array([[frame]]) for frame in frames.tolist()],
        image_sizes=image_sizes,
        timestamps=times,
        location_grid=0,
    )


def moved(result: PointingResult, seconds: float) -> PointingResult:
    """The result with times that count from the beginning of the video, of whose part that begins at some
    second it is.
    """
    points = replace(result.points, group=result.points.group + seconds)
    displayed = result.displayed
    assert displayed.timestamps is not None, "a clip has times"
    # Frames in memory are found by the times, which move with the points; a file is read at start + time.
    shown = replace(displayed, timestamps=displayed.timestamps + seconds, start=displayed.start - seconds)
    return replace(result, points=points, displayed=shown, time_offset=seconds)


def check_windows(options: AnswerOptions, max_frames: int | None, history: object) -> None:
    """Refuses options that mean nothing for a clip in windows.

    Raises:
        ProcessingError: there is one.
    """
    if max_frames is not None:
        raise ProcessingError(
            f"expected no max_frames with windows=True, got {max_frames}: every window has as many frames "
            "as the model takes; "
            "pass max_fps to look less often"
        )
    if history is not None:
        raise ProcessingError(
            "expected no history with windows=True, got one; ask about a part with start and end instead"
        )
    if options.max_crops is not None:
        raise ProcessingError("expected no max_crops for a clip, got one; every frame is a single crop")
