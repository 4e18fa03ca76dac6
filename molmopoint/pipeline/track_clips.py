"""What people bring to be tracked in: a file stays one, everything else becomes frames with their times.

Letters: T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.pipeline.clips import ClipOptions, part_of
from molmopoint.processing.frames import checked_frames, pictures_in
from molmopoint.video import Clip


def as_clip(video: Any, timestamps: Sequence[float] | None) -> Any:
    """Frames with their times as one thing; files, and frames without times, as they are.

    Raises:
        ProcessingError: times of a file, which has its own.
    """
    if timestamps is None:
        return video
    if isinstance(video, (str, Path)) and Path(video).is_dir():
        return Clip(pictures_in(Path(video)), timestamps)
    if isinstance(video, (str, Path, Clip)):
        raise ProcessingError("expected no timestamps with a video file or a Clip, got some; they have their own")
    return Clip(video, timestamps)


def check_is_clip(video: Any, options: ClipOptions) -> None:
    """Refuses what is clearly no clip, and frames whose times are not known or known twice.

    Raises:
        ProcessingError: it is one of these.
    """
    if isinstance(video, Image.Image) or (hasattr(video, "ndim") and video.ndim < 4):
        raise ProcessingError(f"expected a video, got a picture ({type(video).__name__}); use `point` for pictures")
    if isinstance(video, (str, Path)) and not Path(video).is_dir():
        return  # the reader knows whether a file has times
    if isinstance(video, Clip) and options.frame_rate is not None:
        raise ProcessingError("expected no frame_rate with a Clip or timestamps, got one; they say when frames were taken")
    if not isinstance(video, Clip) and options.frame_rate is None:
        raise ProcessingError(
            f"expected a video file, or frames and their times, got {type(video).__name__} without times; pass "
            "timestamps=[seconds of each frame], frame_rate=frames a second, or a molmopoint.video.Clip"
        )


def in_memory(video: Any, options: ClipOptions, rate: float) -> Clip:
    """The frames to look at; times count from the start of the part.

    Args:
        video: a `Clip`; or with a frame rate a folder of pictures, an array (T, H, W, 3) or a list of pictures.
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
