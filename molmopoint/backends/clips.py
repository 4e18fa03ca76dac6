"""Clips of requests: what a user says about one, choosing its frames, and whether they fit the model, before
any is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import IOBase
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.files import is_clip_file, is_folder
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.clips import SampledClip, as_seconds, checked_frames, checked_times, pictures_in
from molmopoint.video import (
    MAX_FRAMES,
    Clip,
    Cue,
    RatedFile,
    as_cues,
    check_part,
    is_number,
    sample_times,
    subtitle_text,
)

_ROOM = 256
"""Tokens that a suggested number of frames leaves for the prompt and its answer."""

_COARSER = 1.1
"""Steps between frames, in those that the model is used to, from which a user is told."""

_SLOWEST, _FASTEST = 1e-6, 1e6
"""Frames a second that can be meant."""


@dataclass(frozen=True)
class ClipOptions:
    """What of a video the model is to see.

    Attributes:
        timestamps: (T,) seconds of frames in memory or of the pictures of a folder; not allowed for a file.
        frame_rate: frames a second they were taken with, instead of timestamps; then frames are chosen as
            from a file. Of a file, only where it does not say itself when its frames are shown.
        start: second at which the part to look at begins; all times of the answer count from here.
        end: second at which it ends; None for the end of the video.
        max_frames: most frames to look at; None for the checkpoint's number, and for all of frames with
            timestamps.
        max_fps: most frames to look at in a second; None for the checkpoint's number, and for all of frames
            with timestamps.
        subtitles: a file with subtitles, or (start, end, text) in seconds of the whole video.
    """

    timestamps: Sequence[float] | None = None
    frame_rate: float | None = None
    start: float = 0.0
    end: float | None = None
    max_frames: int | None = None
    max_fps: float | None = None
    subtitles: str | Path | Sequence[tuple[float, float, str]] | None = None

    def __post_init__(self) -> None:
        check_part(self.start, self.end)
        if self.max_frames is not None and (
            isinstance(self.max_frames, bool) or not isinstance(self.max_frames, int) or self.max_frames < 1
        ):
            raise ProcessingError(
                f"expected max_frames to be a whole number of 1 or more or None, got {self.max_frames!r}"
            )
        if self.max_frames is not None and self.max_frames > MAX_FRAMES:
            raise ProcessingError(
                f"expected max_frames of at most {MAX_FRAMES}, got more; look at a part at a time, or pass "
                "windows=True"
            )
        for name, value in (("max_fps", self.max_fps), ("frame_rate", self.frame_rate)):
            if value is not None and not (is_number(value) and _SLOWEST <= value <= _FASTEST):
                limits = f"{_SLOWEST:g} to {_FASTEST:g}"
                raise ProcessingError(
                    f"expected {name} to be a number above 0, of {limits}, or None, got {value!r:.40}"
                )
        if self.timestamps is not None and self.frame_rate is not None:
            raise ProcessingError(
                "expected timestamps or a frame_rate, got both; timestamps say when frames were taken"
            )

    def rated(self, path: str | Path) -> str | Path:
        """A file, with the rate of its frames where one is given."""
        return path if self.frame_rate is None else RatedFile(path, self.frame_rate)

    def cues(self) -> list[Cue]:
        """The subtitles; none where there are none."""
        return [] if self.subtitles is None else as_cues(self.subtitles)

    def subtitle_text(self, cues: Sequence[Cue], timestamps: Sequence[float]) -> str:
        """What the model reads of them after the frames at (T,) seconds."""
        return subtitle_text(cues, timestamps, self.start)


def is_clip(media: Any) -> bool:
    """Whether what may be pictures is a clip: a `Clip`, a file whose ending says so, or a picture that moves."""
    return isinstance(media, Clip) or (isinstance(media, (str, Path)) and is_clip_file(Path(media)))


def refuse_no_clip(video: Any) -> None:
    """Refuses what is neither a file nor frames.

    Raises:
        ProcessingError: it is such a thing, for example the number of a camera.
    """
    if isinstance(video, (bytes, bytearray, memoryview, IOBase)):
        raise ProcessingError(
            f"expected a video as a file, or as frames with their times, got {type(video).__name__}; write it to a "
            "file first"
        )
    if not isinstance(video, (str, Path, Clip)) and not hasattr(video, "__iter__"):
        raise ProcessingError(
            "expected a video (a file, a folder of pictures, or frames with their times), got "
            f"{video!r:.60}; "
            "cameras are not read: pass the frames that you took"
        )


def choose_frames(processor: MolmoPointProcessor, video: Any, options: ClipOptions) -> SampledClip:
    """The frames of a clip that are to be looked at; none is decoded.

    Args:
        processor: of the checkpoint.
        video: a file, a folder of pictures, a `Clip`, or frames.
        options: what of it is to be seen.

    Raises:
        ProcessingError: the clip cannot be read, frames come without times, or a file with them.
    """
    sample = processor.video_processor.sample
    settings = {
        "num_frames": options.max_frames,
        "max_fps": options.max_fps,
        "start": options.start,
        "end": options.end,
    }
    refuse_no_clip(video)
    if isinstance(video, (str, Path)):
        if not is_folder(Path(video)):
            if options.timestamps is not None:
                raise ProcessingError(
                    "expected no timestamps with a video file, got some; they are read from the file"
                )
            return sample(options.rated(video), **settings)
        video = pictures_in(Path(video))
    if options.timestamps is not None:
        video = Clip(video, options.timestamps)
    if isinstance(video, Clip):
        return sample(part_of(video, options))
    if options.frame_rate is None:
        raise ProcessingError(
            "expected timestamps with the frames of a clip, got none; pass timestamps=[seconds of each "
            "frame], "
            "or frame_rate=frames a second they were taken with"
        )
    return sample(video, {"fps": float(options.frame_rate)}, **settings)


def seen_note(clip: SampledClip, usual: float | None) -> str | None:
    """How much of a clip is looked at, where that is less often than the model is used to; None where it is
    not.

    Args:
        clip: its chosen frames.
        usual: frames a second that the model is used to; None for all there are.
    """
    times = clip.metadata.timestamps
    taken = clip.metadata.fps
    if taken is None or len(times) < 2:
        return None
    length = times[-1] - times[0]
    step = length / (len(times) - 1)
    finest = 1 / min(taken, usual or taken)
    if step <= _COARSER * finest:
        return None
    return (
        f"{len(times)} frames of {length:.1f} s were looked at, one every {step:.1f} s instead of every "
        f"{finest:.2g} s: "
        "what is in sight for less may be missed; look at all of it with windows=True, or at a part with "
        "start and end"
    )


def check_budget(processor: MolmoPointProcessor, clip: SampledClip, max_length: int | None) -> None:
    """Refuses a clip that the model has no room for, before it is decoded.

    Args:
        processor: of the checkpoint.
        clip: its chosen frames.
        max_length: positions of the model; None where it is not known.

    Raises:
        ProcessingError: its tokens do not fit; the message has the number of frames that would.
    """
    rows, cols = processor.video_processor.grid
    text = processor.get_video_string(np.array([clip.count, rows, cols]), clip.metadata.timestamps)
    tokens = len(processor.tokenizer.encode(text, add_special_tokens=False))
    if max_length is not None and tokens >= max_length:
        per_frame = -(-tokens // clip.count)
        fits = max((max_length - min(_ROOM, max_length // 4)) // per_frame, 1)
        raise ProcessingError(
            f"expected a clip of fewer than {max_length} tokens, as the model has positions, got "
            f"{clip.count} frames of about {per_frame}, "
            f"{tokens} tokens; pass max_frames={fits} or fewer, a lower max_fps, or a part with start and end"
        )
    window = processor.video_processor.pooling_size
    processor.check_places(clip.count * rows * cols, window[0] * window[1])


def part_of(clip: Clip, options: ClipOptions) -> Clip:
    """The frames of a clip with times that are asked for: those within the part, and of them as few as the
    limits say.

    Raises:
        ProcessingError: there are none, or times do not fit them.
    """
    frames = checked_frames(clip.frames)
    times = checked_times(as_seconds(clip.timestamps), len(frames))
    keep = np.flatnonzero(
        (times >= options.start) & (times <= (np.inf if options.end is None else options.end))
    )
    if not len(keep):
        raise ProcessingError(
            f"expected a part within 0..{times[-1]:g} seconds, got {options.start:g}..{options.end}; it has "
            "no frame"
        )
    if options.max_frames is not None or options.max_fps is not None:
        length = float(times[keep[-1]] - times[keep[0]])
        wanted = times[keep[0]] + sample_times(length, options.max_frames or len(keep), options.max_fps)
        keep = np.unique(keep[np.searchsorted(times[keep], wanted + 1e-6, side="right") - 1])
    if len(keep) == len(frames) and not options.start:
        return Clip(frames, times)
    return Clip([frames[i] for i in keep.tolist()], times[keep] - options.start)
