"""Tracks from clips: how a clip is shown to the model, and what its answers become.

A clip with more frames than the model takes is shown in windows that share some frames; each is asked the
same, and objects are linked by their places in the shared frames. Windows of many clips run through the model
in batches.

What a request to track says, checked before any work is done, and the words it is sent in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.options import AnswerOptions, complete_prompt, refuse_zoom
from molmopoint.backends.requests import Request, RequestBuilder
from molmopoint.backends.result import PointingResult
from molmopoint.errors import ProcessingError
from molmopoint.pipeline.batching import OnError, OnPhase, run_in_batches
from molmopoint.pipeline.clip_answers import Progress
from molmopoint.pipeline.clip_plans import ClipPlan, ClipPlanner
from molmopoint.pipeline.track_result import TrackingResult
from molmopoint.pipeline.windows import Window
from molmopoint.processing.text_points import tagged, written_start
from molmopoint.tracks import Tracks
from molmopoint.tracks.linking import link
from molmopoint.tracks.resampling import check_max_gap

TRACKING_MAX_NEW_TOKENS = 4096
"""Tokens of an answer: enough for about 800 points."""

_START_END_TEMPLATE = "Find the first and last visible position of {} in the video."

_CLIP_OPTIONS = ("frame_rate", "start", "end", "max_fps", "subtitles")

Ground = Literal["start_end"]


@dataclass(frozen=True)
class TrackOptions:
    """How objects are to be tracked; see `Pointer.track`.

    Attributes:
        fps: points per second and object that are asked for; None leaves it to the model.
        ground: "start_end" asks for the first and the last place of each object only.
        point: (x, y) pixels of one object to follow.
        time: seconds of `point`.
        interpolate: points per second to fill in, True for the rate of the video, False for none.
        max_gap: seconds beyond which a gap is not filled.
        clip: what of the video is looked at.
        answer: as for every request.
    """

    fps: int | None = None
    ground: Ground | None = None
    point: tuple[float, float] | None = None
    time: float = 0.0
    interpolate: float | bool = False
    max_gap: float | None = None
    clip: ClipOptions = field(default_factory=ClipOptions)
    answer: AnswerOptions = field(default_factory=AnswerOptions)

    def __post_init__(self) -> None:
        if self.fps is not None and (
            isinstance(self.fps, bool) or not isinstance(self.fps, int) or self.fps < 1
        ):
            raise ProcessingError(
                f"expected fps to be a whole number of 1 or more points per second, or None, got {self.fps!r}"
            )
        if self.ground is not None and self.ground not in get_args(Ground):
            raise ProcessingError(f"expected ground to be 'start_end' or None, got {self.ground!r}")
        if self.ground is not None and (self.point is not None or self.fps is not None):
            raise ProcessingError(
                "expected ground alone, got it with fps or point; the first and last places have no rate"
            )
        if not isinstance(self.interpolate, bool) and not _positive(self.interpolate):
            raise ProcessingError(
                "expected interpolate to be points per second above 0, True or False, got "
                f"{self.interpolate!r}"
            )
        for name, limit in (("max_fps", self.clip.max_fps), ("frame_rate", self.clip.frame_rate)):
            if self.fps is not None and limit is not None and self.fps > limit:
                raise ProcessingError(
                    f"expected fps of at most {name}={limit:g}, got {self.fps}; points lie in frames that "
                    "are seen"
                )
        check_max_gap(self.max_gap)
        if self.max_gap is not None and self.interpolate is False:
            raise ProcessingError(
                "expected interpolate together with max_gap, got max_gap alone; no gap is filled without it"
            )
        self._check_start()
        for name in ("single", "max_crops"):
            if getattr(self.answer, name):
                raise ProcessingError(f"expected no {name} for tracks, got one; it is for pictures")
        refuse_zoom(self.answer)

    @classmethod
    def of(cls, **options: Any) -> TrackOptions:
        """Options as they arrive as keywords of a call; what is no field here is one of an answer."""
        own = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        of_clip = {name: options.pop(name) for name in _CLIP_OPTIONS if name in options}
        return cls(
            **own,
            clip=ClipOptions(**of_clip),
            answer=AnswerOptions.of(**{"max_new_tokens": TRACKING_MAX_NEW_TOKENS, **options}),
        )

    def _check_start(self) -> None:
        if (
            isinstance(self.time, bool)
            or not isinstance(self.time, (int, float))
            or not (math.isfinite(self.time) and self.time >= 0)
        ):
            raise ProcessingError(f"expected time to be 0 or more seconds, got {self.time!r}")
        if self.point is None:
            if self.time:
                raise ProcessingError(
                    f"expected point together with time, got time={self.time:g} alone; pass point=(x, y)"
                )
            return
        try:
            x, y = (float(value) for value in self.point)
        except (TypeError, ValueError) as error:
            raise ProcessingError(
                f"expected point as (x, y) in pixels of the video, got {self.point!r}"
            ) from error
        object.__setattr__(self, "point", (x, y))

    def request(self, text: str, size: tuple[int, int], start: float) -> str:
        """The request as it is sent.

        Args:
            text: what the person typed.
            size: (width, height) of the video.
            start: seconds of the frame that `point` is in.

        Raises:
            ProcessingError: the text is empty, or the point lies outside the video.
        """
        rate = "" if self.fps is None else f" at {self.fps} FPS"
        template = self.answer.template
        if self.ground is not None:
            return tagged("track_start_end", complete_prompt(text, template, default=_START_END_TEMPLATE))
        if self.point is None:
            return complete_prompt(text, template, default=f"Track {{}}{rate}")
        label = complete_prompt(text, "{}").strip()
        if not (0 <= self.point[0] <= size[0] and 0 <= self.point[1] <= size[1]):
            raise ProcessingError(
                f"expected a point inside the video of {size[0]} x {size[1]} pixels, got {self.point}"
            )
        return tagged(
            "track_from_point",
            complete_prompt(written_start(start, self.point, size, label), template or f"Track {{}}{rate}"),
        )


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


LINK_REACH = 0.1
"""Part of the diagonal within which two windows mean the same object."""

_ON_GRID = 0.05
"""Part of a step by which a frame may miss a moment that was asked for."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """One clip of a call.

    Attributes:
        prompt: as it is sent, with every window.
        shown: how the clip is shown to the model and to people.
        rate: points per second that are expected; None for one at each frame.
        start: seconds of the frame of the point that is followed.
    """

    prompt: str
    shown: ClipPlan
    rate: float | None
    start: float = 0.0


class Tracker:
    """Follows objects in clips; `Pointer.track` and `Pointer.track_batch` are its front.

    Args:
        builder: of requests.
        planner: divides clips into windows.
        answer: runs the model on a batch of requests.
    """

    def __init__(
        self, builder: RequestBuilder, planner: ClipPlanner, answer: Callable[..., list[PointingResult]]
    ) -> None:
        self._builder, self._planner, self._answer = builder, planner, answer

    def run(
        self,
        requests: Iterable[tuple[Any, str]],
        options: TrackOptions,
        *,
        batch_size: int,
        on_error: OnError,
        on_phase: OnPhase | None = None,
        progress: Progress | None = None,
    ) -> Iterator[TrackingResult | Exception]:
        """One result per clip and prompt, in order; see `Pointer.track_batch`.

        `progress` is told how many windows of a clip were answered, and how many it has.
        """
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
                yield from ((plan, window) for window in plan.shown.windows)

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
            on_phase=on_phase,
        )
        return self._collected(answers, plans, options, progress)

    def _collected(
        self,
        answers: Iterator[PointingResult | Exception],
        plans: deque[_Plan | Exception],
        options: TrackOptions,
        progress: Progress | None,
    ) -> Iterator[TrackingResult | Exception]:
        """The answers to the windows of one clip become its result, or the first error among them."""
        held: list[PointingResult | Exception] = []
        for answer in answers:
            held.append(answer)
            plan = plans[0]
            if progress is not None and isinstance(plan, _Plan):
                progress(len(held), len(plan.shown.windows))
            if isinstance(plan, _Plan) and len(held) < len(plan.shown.windows):
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
        shown = self._planner.plan(
            video, options.clip, fps=options.fps, answer_tokens=options.answer.max_new_tokens
        )
        times, windows = shown.times, shown.windows
        start = 0.0
        if len(windows) > 1 and (options.point is not None or options.ground is not None):
            raise ProcessingError(
                "expected a clip that the model can look at as a whole for point= and ground=, got one of "
                f"{len(times)} frames, "
                f"which takes {len(windows)} windows; cut it, or track by name"
            )
        if options.point is not None:
            if options.time > times[-1]:
                raise ProcessingError(
                    f"expected the time of a point within the clip of {times[-1]:g} s, got {options.time:g}"
                )
            start = float(times[np.abs(times - options.time).argmin()])
        usual = None if shown.fps is None else shown.rate
        return _Plan(options.request(prompt, shown.size, start), shown, options.fps or usual, start)


def _result(plan: _Plan, answers: Sequence[PointingResult], options: TrackOptions) -> TrackingResult:
    """What the answers to all windows of a clip say together."""
    several = len(answers) > 1
    parts = []
    for window, answer in zip(plan.shown.windows, answers, strict=True):
        moments = None if options.ground is not None else _asked(answer.metadata.timestamps, plan.rate)
        part = Tracks.from_points(answer.points, fps=plan.shown.fps, moments=moments)
        parts.append(part.shifted(window.start) if several else part)
    tracks = replace(link(parts, LINK_REACH * math.hypot(*plan.shown.size)), size=plan.shown.size)
    if options.point is not None:
        tracks = _with_start(tracks, options.point, plan.start)
    if options.interpolate is True and plan.shown.fps is None:
        tracks = tracks.interpolated(times=plan.shown.displayed.timestamps, max_gap=options.max_gap)
    elif options.interpolate:
        rate = plan.shown.fps if options.interpolate is True else float(options.interpolate)
        tracks = replace(tracks.interpolated(rate, max_gap=options.max_gap), fps=rate)
    return TrackingResult(
        tracks=tracks,
        text="\n".join(answer.text for answer in answers),
        raw_text="\n".join(answer.raw_text for answer in answers),
        prompt=plan.prompt,
        truncated=any(answer.truncated for answer in answers),
        invalid=sum(answer.invalid for answer in answers),
        notes=tuple(dict.fromkeys(note for answer in answers for note in answer.notes)),
        size=plan.shown.size,
        answers=tuple(answers),
        displayed=plan.shown.displayed,
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
    columns = {
        "object_id": number,
        "time": seconds,
        "x": point[0],
        "y": point[1],
        "visible": True,
        "score": np.nan,
    }
    added = {name: np.append(getattr(tracks, name), value) for name, value in columns.items()}
    return replace(tracks, **added, moments=np.union1d(tracks.moments, [seconds]))
