"""Clips in windows: as many frames as the model takes at a time, with a part shared by each window and the
next.

Letters: T frames of a clip.

What people bring to be tracked in: a file stays one, everything else becomes frames with their times.

Letters: T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from molmopoint.backends.clips import ClipOptions, part_of, refuse_no_clip
from molmopoint.errors import ProcessingError
from molmopoint.files import is_folder
from molmopoint.processing.clips import checked_frames, pictures_in
from molmopoint.video import Clip, Cue


def as_clip(video: Any, timestamps: Sequence[float] | None) -> Any:
    """Frames with their times as one thing; files, and frames without times, as they are.

    Raises:
        ProcessingError: times of a file, which has its own.
    """
    if timestamps is None:
        return video
    if isinstance(video, (str, Path)) and is_folder(Path(video)):
        return Clip(pictures_in(Path(video)), timestamps)
    if isinstance(video, (str, Path, Clip)):
        raise ProcessingError(
            "expected no timestamps with a video file or a Clip, got some; they have their own"
        )
    return Clip(video, timestamps)


def check_is_clip(video: Any, options: ClipOptions) -> None:
    """Refuses what is clearly no clip, and frames whose times are not known or known twice.

    Raises:
        ProcessingError: it is one of these.
    """
    if isinstance(video, Image.Image) or (hasattr(video, "ndim") and video.ndim < 4):
        raise ProcessingError(
            f"expected a video, got a picture ({type(video).__name__}); use `point` for pictures"
        )
    refuse_no_clip(video)
    if isinstance(video, (str, Path)) and not is_folder(Path(video)):
        return  # the reader knows whether a file has times
    if isinstance(video, Clip) and options.frame_rate is not None:
        raise ProcessingError(
            "expected no frame_rate with a Clip or timestamps, got one; they say when frames were taken"
        )
    if not isinstance(video, Clip) and options.frame_rate is None:
        raise ProcessingError(
            f"expected a video file, or frames and their times, got {type(video).__name__} without times; "
            "pass "
            "timestamps=[seconds of each frame], frame_rate=frames a second, or a molmopoint.video.Clip"
        )


def in_memory(video: Any, options: ClipOptions, rate: float) -> Clip:
    """The frames to look at; times count from the start of the part.

    Args:
        video: a `Clip`; or with a frame rate a folder of pictures, an array (T, H, W, 3) or a list of
            pictures.
        options: what of it is to be seen.
        rate: most frames a second, of a `Clip` only where its options have a limit.

    Raises:
        ProcessingError: there are no frames, or none in the part.
    """
    if isinstance(video, Clip):
        if options.max_fps is None and options.end is None and not options.start:
            return video
        return part_of(video, options if options.max_fps is None else replace(options, max_fps=rate))
    assert options.frame_rate is not None, "checked before"
    frames = checked_frames(pictures_in(Path(video)) if isinstance(video, (str, Path)) else video)
    return part_of(Clip(frames, np.arange(len(frames)) / options.frame_rate), replace(options, max_fps=rate))


_SHARED_ANSWERS = 3
"""Moments asked for that a window shares with the next at least: one of them may be wrong or hidden."""

_SHARED_PART = 8
"""A window shares this part of its frames, where that is more."""


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a clip that the model looks at in one request.

    Attributes:
        video: a file, or a `Clip` whose times count from the start of the window.
        options: which part of a file, and how often to look.
        start: seconds from the start of the clip to that of the window.
    """

    video: Any
    options: ClipOptions = field(default_factory=ClipOptions)
    start: float = 0.0


def plan_windows(count: int, limit: int, step: int) -> list[slice]:
    """Which of T frames each window has.

    Args:
        count: T.
        limit: most frames of a window.
        step: frames from one moment that is asked for to the next; windows begin at such moments.

    Raises:
        ProcessingError: the limit has no room for shared moments and new ones.

    >>> plan_windows(10, 16, 1)
    [slice(0, 10, None)]
    >>> plan_windows(10, 6, 1)
    [slice(0, 6, None), slice(3, 9, None), slice(6, 10, None)]
    """
    if count <= limit:
        return [slice(0, count)]
    shared = max(_SHARED_ANSWERS, limit // _SHARED_PART // step) * step
    stride = (limit - shared) // step * step
    if stride < 1:
        raise ProcessingError(
            f"expected room for more than {shared} frames in a window, because so many are shared with the "
            f"next one, got {limit}; "
            "ask for more points per second, pass a shorter clip, or a smaller max_new_tokens"
        )
    last = -(-(count - limit) // stride) * stride
    return [slice(start, min(start + limit, count)) for start in range(0, last + 1, stride)]


def sampling_rate(fps: int | None, usual: float, limit: float | None = None) -> float:
    """Frames per second to look at: as usual, or the smallest multiple of the points asked for that is no
    less.

    A limit takes the place of the usual rate, and then the largest multiple that is no more.

    A model may see more frames than it is asked to point in, and does so in training; it can not point in
    frames it does not see.

    >>> sampling_rate(1, 2.0), sampling_rate(3, 2.0), sampling_rate(None, 2.0)
    (2.0, 3.0, 2.0)
    >>> sampling_rate(None, 2.0, 0.5), sampling_rate(2, 2.0, 5.0)
    (0.5, 4.0)
    """
    if limit is not None:
        return float(limit if fps is None else fps * max(limit // fps, 1))
    return usual if fps is None else float(fps * -(-usual // fps))


def frames_per_answer(fps: int | None, times: np.ndarray) -> int:
    """Frames from one moment that is asked for to the next, for (T,) times of frames."""
    if fps is None or len(times) < 2:
        return 1
    return max(1, round(1 / (fps * max(float(np.median(np.diff(times))), 1e-6))))


def windows_of_frames(
    frames: Any, times: np.ndarray, parts: Sequence[slice], cues: Sequence[Cue] = (), offset: float = 0.0
) -> list[Window]:
    """Windows of frames in memory and their times, by the parts that `plan_windows` made; times count from
    the start of each.

    Args:
        frames: T of them.
        times: (T,) seconds.
        parts: frames of each window.
        cues: subtitles, in seconds of the whole video.
        offset: second of the whole video from which the times count.
    """
    windows = []
    for part in parts:
        start = float(times[part.start])
        near = [
            (max(cue.start - offset - start, 0.0), cue.end - offset - start, cue.text)
            for cue in cues
            if cue.end > offset + start
        ]
        windows.append(
            Window(
                Clip(frames[part], times[part] - times[part.start]),
                ClipOptions(subtitles=near or None),
                start,
            )
        )
    return windows


def windows_of_file(
    path: str | Path, times: np.ndarray, parts: Sequence[slice], options: ClipOptions, cues: Sequence[Cue]
) -> list[Window]:
    """Windows of a file that is looked at at (T,) times from the start of a part; each is read when it is its
    turn.

    Args:
        path: of the file.
        times: (T,) seconds from the start of the part.
        parts: frames of each window.
        options: the part, and how often to look.
        cues: subtitles, in seconds of the whole video.
    """
    windows = []
    for part in parts:
        start = float(times[part.start])
        end = options.start + float(times[part.stop - 1]) if part.stop < len(times) else options.end
        seen = replace(
            options,
            start=options.start + start,
            end=end,
            frame_rate=None,  # the path knows it
            max_frames=part.stop - part.start,
            subtitles=list(cues) or None,
        )
        windows.append(Window(path, seen, start))
    return windows
