"""The frames of a benchmark's clip that the model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Asking, Clip
from molmopoint.files import open_picture
from molmopoint.video import read_video, sample_indices

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
