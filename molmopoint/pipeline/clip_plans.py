"""How a clip of any length is shown to the model: as a whole, or in windows that share some frames.

Letters: T frames of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.media import DisplayedMedia
from molmopoint.errors import ProcessingError
from molmopoint.files import is_folder
from molmopoint.pipeline.windows import (
    Window,
    check_is_clip,
    frames_per_answer,
    in_memory,
    plan_windows,
    sampling_rate,
    windows_of_file,
    windows_of_frames,
)
from molmopoint.processing.clips import as_seconds, checked_frames, checked_times
from molmopoint.processing.pictures import load_picture
from molmopoint.video import Clip, Cue, end_of_part, open_video, sample_times, subtitle_text

_ROOM_FOR_ANSWER, _ROOM_FOR_PROMPT, _PART_FOR_ANSWER = 2048, 128, 8
"""Tokens that windows leave free, for the answer at most the eighth part of all; a longer answer to a shorter
window is fine.
"""


@dataclass(frozen=True, eq=False)
class ClipPlan:
    """One clip, and what the model looks at of it.

    Attributes:
        windows: in the order of time; one where the clip is short enough.
        displayed: the clip for people.
        times: (T,) seconds of all frames that are looked at, from the start of the part.
        size: (width, height).
        rate: frames per second that are looked at.
        fps: frames per second of the file; None for frames.
    """

    windows: Sequence[Window]
    displayed: DisplayedMedia
    times: np.ndarray
    size: tuple[int, int]
    rate: float
    fps: float | None


class ClipPlanner:
    """Divides clips into windows.

    Args:
        processor: of the checkpoint.
        max_length: most tokens of a request and its answer.
    """

    def __init__(self, processor: Any, max_length: int) -> None:
        self._processor, self._max_length = processor, max_length

    def plan(
        self, video: Any, part: ClipOptions, *, fps: int | None = None, answer_tokens: int = _ROOM_FOR_ANSWER
    ) -> ClipPlan:
        """How one clip is shown.

        Args:
            video: a file, a `Clip`, a folder of pictures, or frames.
            part: what of it is looked at, and how often.
            fps: answers per second that are asked for; None leaves it to the model.
            answer_tokens: most tokens of the answer to a window.

        Raises:
            ProcessingError: it is no clip, or cannot be asked about so.
        """
        check_is_clip(video, part)
        if isinstance(video, (str, Path)) and not is_folder(Path(video)):
            return self._plan_file(part.rated(video), part, fps, answer_tokens)
        usual = float(self._processor.video_processor.max_fps or part.frame_rate or 1.0)
        rate = sampling_rate(fps, usual, part.max_fps)
        return self._plan_frames(in_memory(video, part, rate), part, fps, answer_tokens)

    def _plan_file(
        self, path: str | Path, part: ClipOptions, fps: int | None, answer_tokens: int
    ) -> ClipPlan:
        reader = open_video(path)
        usual = float(self._processor.video_processor.max_fps or reader.frame_rate)
        rate = sampling_rate(fps, usual, part.max_fps)
        if fps is not None and fps > math.ceil(reader.frame_rate):
            raise ProcessingError(
                f"expected fps of at most {math.ceil(reader.frame_rate)}, as the video has, got {fps}"
            )
        length = end_of_part(reader, str(path), part.start, part.end) - part.start
        times = sample_times(length, math.ceil(length * rate) + 2, rate)
        cues = part.cues()
        parts = self._parts(times, rate, part, fps, answer_tokens, cues)
        windows = windows_of_file(path, times, parts, replace(part, max_fps=rate), cues)
        displayed = DisplayedMedia(clip=path, timestamps=times, start=part.start, end=part.end)
        return ClipPlan(windows, displayed, times, reader.size, rate, reader.frame_rate)

    def _plan_frames(self, clip: Clip, part: ClipOptions, fps: int | None, answer_tokens: int) -> ClipPlan:
        frames = checked_frames(clip.frames)
        times = checked_times(as_seconds(clip.timestamps), len(frames))
        rate = 1 / max(float(np.median(np.diff(times))), 1e-6) if len(times) > 1 else 1.0
        cues = part.cues()
        parts = self._parts(times, rate, part, fps, answer_tokens, cues)
        windows = windows_of_frames(frames, times, parts, cues, part.start)
        displayed = DisplayedMedia(clip=frames, timestamps=times)
        return ClipPlan(windows, displayed, times, load_picture(frames[0]).size, rate, None)

    def _parts(
        self,
        times: np.ndarray,
        rate: float,
        part: ClipOptions,
        fps: int | None,
        answer_tokens: int,
        cues: Sequence[Cue],
    ) -> list[slice]:
        """Which frames each window has; there is room for the subtitles of each."""
        step = frames_per_answer(fps, times)
        parts = plan_windows(len(times), self._frame_limit(rate, answer_tokens, 0), step)
        if not cues:
            return parts
        texts = (
            self._processor.escape_user_text(subtitle_text(cues, times[piece].tolist(), part.start))
            for piece in parts
        )
        longest = max(len(self._processor.tokenizer.encode(text, add_special_tokens=False)) for text in texts)
        return plan_windows(len(times), self._frame_limit(rate, answer_tokens, longest), step)

    def _frame_limit(self, rate: float, answer_tokens: int, subtitles: int) -> int:
        """Most frames of a window: as many as the processor takes, and as the model has positions for, answer
        and subtitles included.
        """
        settings = self._processor.video_processor
        rows, cols = settings.grid
        seconds = len(f"{settings.num_frames / rate:.1f}")
        # A frame is its image tokens, the tokens around them, and its time, digit by digit, with a space.
        per_frame = rows * cols + 2 + seconds + 1
        answer = min(answer_tokens, _ROOM_FOR_ANSWER, self._max_length // _PART_FOR_ANSWER)
        room = self._max_length - answer - _ROOM_FOR_PROMPT - subtitles
        return max(1, min(settings.num_frames, room // per_frame))
