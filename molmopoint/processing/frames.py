"""Frames in memory, and pictures of a folder, as frames of a clip.

Letters: T frames of a clip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molmopoint.errors import ProcessingError
from molmopoint.processing.pictures import load_picture, picture_to_tensor
from molmopoint.video import LATEST

_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder; numbers in names count as numbers, so frame 10 follows frame 9.

    Raises:
        ProcessingError: there are none.
    """
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURE_SUFFIXES]
    if not pictures:
        raise ProcessingError(f"expected pictures in the folder {str(folder)!r}, got none of {', '.join(sorted(_PICTURE_SUFFIXES))}")
    return sorted(pictures, key=lambda path: [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)])


def as_seconds(timestamps: Any) -> np.ndarray:
    """(T,) float64 seconds, whatever they are.

    Raises:
        ProcessingError: they are no numbers.
    """
    try:
        return np.asarray(timestamps, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        got = type(timestamps).__name__
        raise ProcessingError(f"expected the time of each frame in seconds, got {got} ({error}); pass a list of numbers") from error


def checked_times(timestamps: np.ndarray, count: int) -> np.ndarray:
    """The times of some frames, if there is one for each and they ascend.

    Raises:
        ProcessingError: they do not.
    """
    fits = timestamps.shape == (count,) and np.isfinite(timestamps).all() and (timestamps <= LATEST).all()
    if not fits or (np.diff(timestamps, prepend=0) < 0).any():
        got = np.array2string(timestamps, threshold=20, separator=", ")
        raise ProcessingError(f"expected one ascending time in seconds, from 0, for each of {count} frames, up to {LATEST:g} s, got {got}")
    return timestamps


def checked_frames(frames: Any) -> Any:
    """Frames that can be counted and indexed: arrays as (T, height, width, 3), tensors as (T, 3, height, width).

    Either may come in the other order, as long as no other reading is possible.

    Raises:
        ProcessingError: they are no frames, or none.
    """
    if not isinstance(frames, (Sequence, np.ndarray, torch.Tensor)) or isinstance(frames, (str, bytes)):
        raise ProcessingError(f"expected a clip (path, array, tensor, or list of frames), got {type(frames).__name__}; make a list of it")
    if isinstance(frames, (np.ndarray, torch.Tensor)) and frames.ndim != 4:
        raise ProcessingError(f"expected frames (T, height, width, 3), or a tensor (T, 3, height, width), got {tuple(frames.shape)}")
    if not len(frames):
        raise ProcessingError("expected at least one frame in a clip, got none; check the video or the list of frames")
    if isinstance(frames, torch.Tensor) and frames.shape[1] != 3 and frames.shape[3] == 3:
        return frames.movedim(3, 1)
    if isinstance(frames, np.ndarray) and frames.shape[1] == 3 and frames.shape[3] not in (1, 3, 4):
        return np.moveaxis(frames, 1, 3)
    return frames


def frames_to_tensor(frames: Any, indices: np.ndarray) -> torch.Tensor:
    """uint8 (n, 3, height, width) of some frames.

    Raises:
        ProcessingError: they differ in size, or one cannot be read.
    """
    read = [picture_to_tensor(load_picture(frames[i]) if isinstance(frames[i], Path) else frames[i]) for i in indices.tolist()]
    if len(shapes := {tuple(frame.shape[:0:-1]) for frame in read}) > 1:
        raise ProcessingError(unequal(shapes))
    return torch.stack(read)


def unequal(sizes: set[tuple[int, ...]]) -> str:
    """The message for frames of several sizes."""
    return f"expected frames of one size, got (width, height) {sorted(sizes)}; resize them to the size of the video"
