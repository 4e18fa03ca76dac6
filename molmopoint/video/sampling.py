"""Which frames of a video the model sees.

Two ways to say when: by time, when a file is read (the frame on screen at that moment), and by index, when
frames are
already in memory. Two modes: `uniform_last_frame`, at most `max_fps` frames a second and always the last
moment, and `fps`, a rate that divides that of the video, as tracking data was prepared.

Letters: T frames that are read.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from molmopoint.errors import ProcessingError

SampleMode = Literal["uniform_last_frame", "fps"]

MAX_RATE_OF_FPS_MODE = 8
"""Frames a second beyond which the `fps` mode does not go, as released."""

MAX_FRAMES = 4096
"""Most frames that one clip may have; ten times what released models were trained with."""


def sample_times(
    duration: float,
    max_frames: int,
    max_fps: float | None = 2.0,
    mode: SampleMode = "uniform_last_frame",
    *,
    frame_rate: float | None = None,
    sampling_fps: int = 2,
    max_rate: int = MAX_RATE_OF_FPS_MODE,
) -> np.ndarray:
    """Times at which to look at a video of the given length.

    Args:
        duration: seconds.
        max_frames: largest number of times.
        max_fps: largest number of times a second, None for no limit; not used in mode `fps`.
        mode: `uniform_last_frame` or `fps`.
        frame_rate: frames a second of the video, needed in mode `fps`.
        sampling_fps: base rate of mode `fps`.
        max_rate: largest rate of mode `fps`.

    Returns:
        (T,) float64 seconds, ascending, the first one 0.

    Raises:
        ProcessingError: a number is out of range, or the base rate does not divide the frame rate.

    Source: Molmo2 paper, section on video; the times, not those of the frames found there, are what the
    prompt states.
    """
    _check_sampling(max_frames, max_fps, mode)
    if not (math.isfinite(duration) and duration >= 0):
        raise ProcessingError(
            f"expected a duration of zero or more seconds, got {duration}; check the video file"
        )
    if mode == "fps":
        rate = _common_rate(duration, max_frames, frame_rate, sampling_fps, max_rate)
        times = np.arange(max_frames) / rate
        return times[(times < duration) | (times == 0)]
    if max_fps is None or (max_frames - 1) / max_fps < duration:
        return np.linspace(0.0, duration, max_frames)
    times = np.arange(math.ceil(duration * max_fps) + 1) / max_fps
    return np.append(times[times < duration], duration)


def sample_indices(
    num_frames: int,
    fps: float,
    max_frames: int,
    max_fps: float | None = 2.0,
    mode: SampleMode = "uniform_last_frame",
    *,
    sampling_fps: int = 2,
    max_rate: int = MAX_RATE_OF_FPS_MODE,
) -> np.ndarray:
    """Which of the frames in memory to keep.

    Args:
        num_frames: how many there are.
        fps: frames a second they were taken with.
        max_frames: largest number of frames to keep.
        max_fps: as in `sample_times`.
        mode: as in `sample_times`.
        sampling_fps: as in `sample_times`.
        max_rate: as in `sample_times`.

    Returns:
        (T,) int64 ascending indices, the first one 0; the time of a frame is its index divided by `fps`.

    Raises:
        ProcessingError: there are no frames, or a number is out of range.

    Source: as released, except that frames slower than `max_fps` are kept once each; the released rule
    repeats them.
    """
    _check_sampling(max_frames, max_fps, mode)
    if num_frames < 1:
        raise ProcessingError("expected at least one frame, got none; check the video or the list of frames")
    if not (math.isfinite(fps) and fps > 0):
        raise ProcessingError(
            f"expected a positive number of frames a second, got {fps}; pass the rate the frames were taken "
            "with"
        )
    if mode == "fps":
        rate = _common_rate(num_frames / fps, max_frames, fps, sampling_fps, max_rate)
        indices = np.rint(np.arange(max_frames) * (fps / rate))
        return indices[indices < num_frames].astype(np.int64)
    if num_frames <= 2:
        return np.arange(min(num_frames, max_frames))
    if max_fps is None or num_frames / fps > (max_frames - 1) / max_fps:
        return np.linspace(0, num_frames - 1, min(max_frames, num_frames)).astype(np.int64)
    step = max(fps / max_fps, 1.0)
    last = num_frames - 1
    exact = np.arange(math.ceil(last / step) + 1) * step
    indices = np.rint(exact[exact < last]).astype(np.int64)
    if indices[-1] != last:
        indices = np.append(indices, last)
    return indices


def check_frame_count(count: int) -> None:
    """Refuses more frames than a clip may have.

    Raises:
        ProcessingError: there are more than `MAX_FRAMES`.
    """
    if count > MAX_FRAMES:
        raise ProcessingError(
            f"expected a clip of at most {MAX_FRAMES} frames, got {count}; look at fewer of them, or at a "
            "part at a time"
        )


def _check_sampling(max_frames: int, max_fps: float | None, mode: str) -> None:
    if mode not in get_args(SampleMode):
        raise ProcessingError(
            f"expected a frame sample mode out of {', '.join(get_args(SampleMode))}, got {mode!r}"
        )
    if max_frames < 1:
        raise ProcessingError(f"expected room for at least one frame, got max_frames {max_frames}")
    check_frame_count(max_frames)
    if max_fps is not None and not max_fps > 0:
        raise ProcessingError(f"expected max_fps above 0, or None for no limit, got {max_fps}")


def _common_rate(
    duration: float, max_frames: int, frame_rate: float | None, sampling_fps: int, max_rate: int
) -> int:
    """Largest multiple of the base rate that divides the frame rate and still reaches the end of the video."""
    whole = int(round(frame_rate or 0, 2))  # times in whole milliseconds make 29.9995 of 30
    if sampling_fps < 1 or whole < 1 or whole % sampling_fps:
        raise ProcessingError(
            f"expected a frame rate whose whole part is a multiple of sampling_fps {sampling_fps} for mode "
            f"'fps', got {frame_rate}; "
            "pass sampling_fps=1, or mode 'uniform_last_frame'"
        )
    chosen = sampling_fps
    for rate in range(2 * sampling_fps, min(whole, max_rate) + 1, sampling_fps):
        if whole % rate:
            continue
        if max_frames / rate < duration:
            break
        chosen = rate
    return chosen
