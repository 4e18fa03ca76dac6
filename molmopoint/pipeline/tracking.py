"""Tracks from clips: how a clip is shown to the model, and what its answers become.

A clip with more frames than the model takes is shown in windows that share some frames; each is asked the same, and objects are
linked by their places in the shared frames. Windows of many clips run through the model in batches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.pipeline.batching import OnError, Watch, run_in_batches
from molmopoint.pipeline.requests import Request, RequestBuilder
from molmopoint.pipeline.result import PointingResult
from molmopoint.pipeline.track_clips import check_is_clip, in_memory
from molmopoint.pipeline.track_options import TrackOptions
from molmopoint.pipeline.track_result import TrackingResult
from molmopoint.pipeline.visual import Displayed
from molmopoint.pipeline.windows import Window, frames_per_answer, plan_windows, sampling_rate, windows_of_file, windows_of_frames
from molmopoint.processing.pictures import load_picture
from molmopoint.tracks import Tracks
from molmopoint.tracks.linking import link
from molmopoint.video import Clip, Cue, end_of_part, open_video, sample_times, subtitle_text

LINK_REACH = 0.1
"""Part of the diagonal within which two windows mean the same object."""

_ROOM_FOR_ANSWER, _ROOM_FOR_PROMPT, _PART_FOR_ANSWER = 2048, 128, 8
"""Tokens that windows leave free, for the answer at most the eighth part of all; a longer answer to a shorter window is fine."""

_ON_GRID = 0.05
"""Part of a step by which a frame may miss a moment that was asked for."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """One clip of a call.

    Attributes:
        prompt: as it is sent, with every window.
        windows: what the model looks at.
        displayed: the clip for people.
        size: (width, height).
        rate: points per second that are expected; None for one at each frame.
        fps: frames per second of the file; None for frames.
        start: seconds of the frame of the point that is followed.
    """

    prompt: str
    windows: Sequence[Window]
    displayed: Displayed
    size: tuple[int, int]
    rate: float | None
    fps: float | None
    start: float = 0.0


class Tracker:
    """Follows objects in clips; `Pointer.track` and `Pointer.track_batch` are its front.

    Args:
        builder: of requests.
        processor: of the checkpoint.
        max_length: most tokens of a request and its answer.
        answer: runs the model on a batch of requests.
    """

    def __init__(self, builder: RequestBuilder, processor: Any, max_length: int, answer: Callable[..., list[PointingResult]]) -> None:
        self._builder, self._processor, self._max_length, self._answer = builder, processor, max_length, answer

    def run(
        self,
        requests: Iterable[tuple[Any, str]],
        options: TrackOptions,
        *,
        batch_size: int,
        on_error: OnError,
        watch: Watch | None = None,
    ) -> Iterator[TrackingResult | Exception]:
        """One result per clip and prompt, in order; see `Pointer.track_batch`."""
        plans: deque[_Plan | Exception] = deque()

        def windows() -> Iterator[tuple[_Plan, Window] | Exception]:
            for video, prompt in requests:
                try:
                    plan = self._plan(video, prompt, options)
                except Exception as error:  # of this clip alone; the caller decides
                    plans.append(error)
                    yield error
                    continue
                plans.append(plan)
                yield from ((plan, window) for window in plan.windows)

        def prepare(item: tuple[_Plan, Window] | Exception) -> Request:
            if isinstance(item, Exception):
                raise item
            return self._builder.about_video(item[1].video, item[0].prompt, item[1].options, options.answer)

        answers = run_in_batches(
            windows(),
            prepare,
            lambda batch: self._answer(batch, options.answer),
            batch_size=batch_size,
            on_error=on_error,
            watch=watch,
        )
        return self._collected(answers, plans, options)

    def _collected(
        self, answers: Iterator[PointingResult | Exception], plans: deque[_Plan | Exception], options: TrackOptions
    ) -> Iterator[TrackingResult | Exception]:
        """The answers to the windows of one clip become its result, or the first error among them."""
        held: list[PointingResult | Exception] = []
        for answer in answers:
            held.append(answer)
            plan = plans[0]
            if isinstance(plan, _Plan) and len(held) < len(plan.windows):
                continue
            plans.popleft()
            error = next((each for each in held if isinstance(each, Exception)), None)
            found = [each for each in held if isinstance(each, PointingResult)]
            held = []
            if error is not None:
                yield error
            elif isinstance(plan, _Plan):
                yield _result(plan, found, options)

    def _plan(self, video: Any, prompt: str, options: TrackOptions) -> _Plan:
        """How one clip is shown and asked about.

        Raises:
            ProcessingError: it is no clip, or cannot be asked about so.
        """
        check_is_clip(video, options.clip)
        if isinstance(video, (str, Path)) and not Path(video).is_dir():
            return self._plan_file(video, prompt, options)
        usual = float(self._processor.video_processor.max_fps or options.clip.frame_rate or 1.0)
        rate = sampling_rate(options.fps, usual, options.clip.max_fps)
        return self._plan_frames(in_memory(video, options.clip, rate), prompt, options)

    def _plan_file(self, path: str | Path, prompt: str, options: TrackOptions) -> _Plan:
        reader = open_video(path)
        settings = self._processor.video_processor
        part = options.clip
        usual = float(settings.max_fps or reader.frame_rate)
        rate = sampling_rate(options.fps, usual, part.max_fps)
        if options.fps is not None and options.fps > math.ceil(reader.frame_rate):
            raise ProcessingError(f"expected fps of at most {math.ceil(reader.frame_rate)}, as the video has, got {options.fps}")
        length = end_of_part(reader, str(path), part.start, part.end) - part.start
        times = sample_times(length, math.ceil(length * rate) + 2, rate)
        cues = part.cues()
        parts = self._parts(times, rate, options, cues)
        windows = windows_of_file(path, times, parts, replace(part, max_fps=rate), cues)
        displayed = Displayed(clip=path, timestamps=times, start=part.start, end=part.end)
        return self._planned(prompt, options, windows, displayed, times, reader.size, options.fps or rate, reader.frame_rate)

    def _plan_frames(self, clip: Clip, prompt: str, options: TrackOptions) -> _Plan:
        frames = clip.frames
        times = np.asarray(clip.timestamps, dtype=np.float64)
        if times.ndim != 1 or len(times) != len(frames) or not len(times):
            raise ProcessingError(f"expected one time in seconds for each of one frame or more, got {times.shape} for {len(frames)} frames")
        rate = 1 / max(float(np.median(np.diff(times))), 1e-6) if len(times) > 1 else 1.0
        cues = options.clip.cues()
        parts = self._parts(times, rate, options, cues)
        windows = windows_of_frames(frames, times, parts, cues, options.clip.start)
        displayed = Displayed(clip=frames, timestamps=times)
        return self._planned(prompt, options, windows, displayed, times, load_picture(frames[0]).size, options.fps, None)

    def _planned(
        self,
        prompt: str,
        options: TrackOptions,
        windows: list[Window],
        displayed: Displayed,
        times: np.ndarray,
        size: tuple[int, int],
        rate: float | None,
        fps: float | None,
    ) -> _Plan:
        start = 0.0
        if len(windows) > 1 and (options.point is not None or options.ground is not None):
            raise ProcessingError(
                f"expected a clip that the model can look at as a whole for point= and ground=, got one of {len(times)} frames, "
                f"which takes {len(windows)} windows; cut it, or track by name"
            )
        if options.point is not None:
            if options.time > times[-1]:
                raise ProcessingError(f"expected the time of a point within the clip of {times[-1]:g} s, got {options.time:g}")
            start = float(times[np.abs(times - options.time).argmin()])
        return _Plan(options.request(prompt, size, start), windows, displayed, size, rate, fps, start)

    def _parts(self, times: np.ndarray, rate: float, options: TrackOptions, cues: Sequence[Cue]) -> list[slice]:
        """Which frames each window has; there is room for the subtitles of each."""
        step = frames_per_answer(options.fps, times)
        parts = plan_windows(len(times), self._frame_limit(rate, options, 0), step)
        if not cues:
            return parts
        texts = (self._processor.escape_user_text(subtitle_text(cues, times[part].tolist(), options.clip.start)) for part in parts)
        longest = max(len(self._processor.tokenizer.encode(text, add_special_tokens=False)) for text in texts)
        return plan_windows(len(times), self._frame_limit(rate, options, longest), step)

    def _frame_limit(self, rate: float, options: TrackOptions, subtitles: int) -> int:
        """Most frames of a window: as many as the processor takes, and as the model has positions for, answer and subtitles included."""
        settings = self._processor.video_processor
        rows, cols = settings.grid
        seconds = len(f"{settings.num_frames / rate:.1f}")
        # A frame is its image tokens, the tokens around them, and its time, digit by digit, with a space.
        per_frame = rows * cols + 2 + seconds + 1
        answer = min(options.answer.max_new_tokens, _ROOM_FOR_ANSWER, self._max_length // _PART_FOR_ANSWER)
        room = self._max_length - answer - _ROOM_FOR_PROMPT - subtitles
        return max(1, min(settings.num_frames, room // per_frame))


def _result(plan: _Plan, answers: Sequence[PointingResult], options: TrackOptions) -> TrackingResult:
    """What the answers to all windows of a clip say together."""
    several = len(answers) > 1
    parts = []
    for window, answer in zip(plan.windows, answers, strict=True):
        moments = None if options.ground is not None else _asked(answer.metadata.timestamps, plan.rate)
        part = Tracks.from_points(answer.points, fps=plan.fps, moments=moments)
        parts.append(part.shifted(window.start) if several else part)
    tracks = replace(link(parts, LINK_REACH * math.hypot(*plan.size)), size=plan.size)
    if options.point is not None:
        tracks = _with_start(tracks, options.point, plan.start)
    if options.interpolate is True and plan.fps is None:
        tracks = tracks.interpolated(times=plan.displayed.timestamps, max_gap=options.max_gap)
    elif options.interpolate:
        rate = plan.fps if options.interpolate is True else float(options.interpolate)
        tracks = replace(tracks.interpolated(rate, max_gap=options.max_gap), fps=rate)
    return TrackingResult(
        tracks=tracks,
        text="\n".join(answer.text for answer in answers),
        raw_text="\n".join(answer.raw_text for answer in answers),
        prompt=plan.prompt,
        truncated=any(answer.truncated for answer in answers),
        invalid=sum(answer.invalid for answer in answers),
        notes=tuple(dict.fromkeys(note for answer in answers for note in answer.notes)),
        size=plan.size,
        answers=tuple(answers),
        displayed=plan.displayed,
    )


def _asked(times: Any, rate: float | None) -> np.ndarray:
    """Those of the times of frames at which points were asked for."""
    times = np.asarray(times, dtype=np.float64)
    if rate is None:
        return times
    steps = times * rate
    return times[np.abs(steps - np.rint(steps)) <= _ON_GRID]


def _with_start(tracks: Tracks, point: tuple[float, float], seconds: float) -> Tracks:
    """The tracks with the point that was given, which answers do not repeat."""
    number = tracks.object_ids[0] if len(tracks) else 1
    if ((tracks.object_id == number) & (tracks.time == seconds)).any():
        return tracks
    columns = {"object_id": number, "time": seconds, "x": point[0], "y": point[1], "visible": True, "score": np.nan}
    added = {name: np.append(getattr(tracks, name), value) for name, value in columns.items()}
    return replace(tracks, **added, moments=np.union1d(tracks.moments, [seconds]))
