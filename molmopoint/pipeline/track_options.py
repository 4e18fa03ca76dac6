"""What a request to track says, checked before any work is done, and the words it is sent in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from molmopoint.errors import ProcessingError
from molmopoint.pipeline.clips import ClipOptions
from molmopoint.pipeline.options import AnswerOptions
from molmopoint.pipeline.prompts import complete_prompt
from molmopoint.processing.track_requests import tagged, written_start
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
        if self.fps is not None and (isinstance(self.fps, bool) or not isinstance(self.fps, int) or self.fps < 1):
            raise ProcessingError(f"expected fps to be a whole number of 1 or more points per second, or None, got {self.fps!r}")
        if self.ground is not None and self.ground not in get_args(Ground):
            raise ProcessingError(f"expected ground to be 'start_end' or None, got {self.ground!r}")
        if self.ground is not None and (self.point is not None or self.fps is not None):
            raise ProcessingError("expected ground alone, got it with fps or point; the first and last places have no rate")
        if not isinstance(self.interpolate, bool) and not _positive(self.interpolate):
            raise ProcessingError(f"expected interpolate to be points per second above 0, True or False, got {self.interpolate!r}")
        for name, limit in (("max_fps", self.clip.max_fps), ("frame_rate", self.clip.frame_rate)):
            if self.fps is not None and limit is not None and self.fps > limit:
                raise ProcessingError(f"expected fps of at most {name}={limit:g}, got {self.fps}; points lie in frames that are seen")
        check_max_gap(self.max_gap)
        if self.max_gap is not None and self.interpolate is False:
            raise ProcessingError("expected interpolate together with max_gap, got max_gap alone; no gap is filled without it")
        self._check_start()
        for name in ("single", "max_crops"):
            if getattr(self.answer, name):
                raise ProcessingError(f"expected no {name} for tracks, got one; it is for pictures")

    @classmethod
    def of(cls, **options: Any) -> TrackOptions:
        """Options as they arrive as keywords of a call; what is no field here is one of an answer."""
        own = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        of_clip = {name: options.pop(name) for name in _CLIP_OPTIONS if name in options}
        return cls(**own, clip=ClipOptions(**of_clip), answer=AnswerOptions.of(**{"max_new_tokens": TRACKING_MAX_NEW_TOKENS, **options}))

    def _check_start(self) -> None:
        if isinstance(self.time, bool) or not isinstance(self.time, (int, float)) or not (math.isfinite(self.time) and self.time >= 0):
            raise ProcessingError(f"expected time to be 0 or more seconds, got {self.time!r}")
        if self.point is None:
            if self.time:
                raise ProcessingError(f"expected point together with time, got time={self.time:g} alone; pass point=(x, y)")
            return
        try:
            x, y = (float(value) for value in self.point)
        except (TypeError, ValueError) as error:
            raise ProcessingError(f"expected point as (x, y) in pixels of the video, got {self.point!r}") from error
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
            raise ProcessingError(f"expected a point inside the video of {size[0]} x {size[1]} pixels, got {self.point}")
        return tagged("track_from_point", complete_prompt(written_start(start, self.point, size, label), template or f"Track {{}}{rate}"))


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
