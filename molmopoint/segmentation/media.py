"""What masks are drawn on: a list of pictures, or the frames of a clip, those of a file a few at a time.

Letters: T frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from molmopoint.drawing import colour_of
from molmopoint.errors import ProcessingError
from molmopoint.metrics.segmentation import outline_of
from molmopoint.processing.pictures import load_picture
from molmopoint.video import open_video, until_undamaged

_WINDOW = 8
"""Frames of a file that are held at once; frames are asked for in order, forwards and then backwards."""

_SAME_MOMENT = 1e-3
"""Seconds between moments that show one frame."""


class MaskedPictures(Protocol):
    """What masks are drawn on."""

    many: bool
    """Whether drawing gives a list."""

    def pictures(self) -> Iterator[tuple[int | float, Image.Image]]:
        """Group and picture, one at a time."""
        ...


class PictureList:
    """Pictures in memory.

    Args:
        pictures: as `load_picture` takes them.
        many: whether drawing gives a list.
    """

    def __init__(self, pictures: Sequence[Any], *, many: bool) -> None:
        self.loaded = [load_picture(picture) for picture in pictures]
        self.many = many

    def pictures(self) -> Iterator[tuple[int | float, Image.Image]]:
        """Index and picture, one at a time."""
        return iter(enumerate(self.loaded))


class ClipFrames:
    """The frames of a clip by number.

    Args:
        clip: a video file; or T frames, (T, height, width, 3) uint8 or a list of pictures.
        times: (T,) rising seconds; the frames of a file are those on screen at these moments.
        start: second of a file from which the times count.

    Raises:
        ProcessingError: there are no frames, times do not fit them or go backwards, or the file cannot be
            read.
    """

    many = True

    def __init__(
        self,
        clip: str | Path | np.ndarray | Sequence[Any],
        times: np.ndarray | Sequence[float],
        start: float = 0.0,
    ) -> None:
        self.times = np.asarray(times, dtype=np.float64)
        self._start = start
        self._reader = open_video(clip) if isinstance(clip, (str, Path)) else None
        self._frames: Any = None if self._reader is not None else clip
        self._window: tuple[int, np.ndarray] = (-1, np.empty(0))
        count = len(self.times) if self._frames is None else len(self._frames)
        if not len(self.times) or count != len(self.times):
            raise ProcessingError(
                f"expected at least one frame, and a time per frame, got {count} frames and "
                f"{len(self.times)} times"
            )
        if not (np.isfinite(self.times).all() and (np.diff(self.times) >= 0).all()):
            raise ProcessingError(
                "expected times that rise from frame to frame, got some that go backwards or are no "
                "numbers; sort them"
            )
        self.height, self.width = self[0].shape[:2]

    @classmethod
    def at_rate(
        cls, clip: Any, fps: float, keep: np.ndarray, start: float = 0.0, end: float | None = None
    ) -> ClipFrames:
        """The frames of a file, or of its part from `start` to `end`, at a rate, and those on screen at the
        (n,) seconds `keep`.

        Raises:
            ProcessingError: it is no file, or no rate.
        """
        if not isinstance(clip, (str, Path)):
            raise ProcessingError(
                "expected no fps for frames in memory, got one; every frame that is given is looked at"
            )
        if not 0 < fps < math.inf:
            raise ProcessingError(
                f"expected fps above 0, got {fps}; leave it out to look at the moments of the request"
            )
        last = open_video(clip).duration
        if end is not None:
            last = min(end, last)
        num_frames = max(1, math.ceil((last - start) * fps - _SAME_MOMENT))
        times = np.arange(num_frames) / fps
        to_nearest = np.abs(times[:, None] - np.unique(keep)).min(axis=1, initial=np.inf)
        return cls(clip, np.union1d(times[to_nearest > _SAME_MOMENT], keep), start)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, number: int) -> np.ndarray:
        """(height, width, 3) uint8 of one frame."""
        if self._reader is None:
            frame = self._frames[number]
            is_ready = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
            if not is_ready:
                frame = np.asarray(load_picture(frame))
            return self._checked(frame, number)
        window, place = divmod(number, _WINDOW)
        if self._window[0] != window:
            moments = self.times[window * _WINDOW : (window + 1) * _WINDOW]
            self._window = (window, self._read(self._start + moments))
        return self._window[1][place]

    def _checked(self, frame: np.ndarray, number: int) -> np.ndarray:
        """The frame; raises ProcessingError where it is not as large as the first one."""
        if number and frame.shape[:2] != (self.height, self.width):
            raise ProcessingError(
                f"expected frames of {self.width} x {self.height} pixels as the first one, got "
                f"{frame.shape[1]} x {frame.shape[0]} "
                f"in frame {number}; bring them to one size"
            )
        return frame

    def _read(self, seconds: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) frames of the file; of a damaged one whatever can be read."""
        reader = self._reader
        assert reader is not None, "there is a file"
        return until_undamaged(reader, lambda: reader.frames_at(seconds))

    def pictures(self) -> Iterator[tuple[int | float, Image.Image]]:
        """Seconds and frame, one at a time."""
        for number, time in enumerate(self.times.tolist()):
            yield time, Image.fromarray(self[number])

    def nearest(self, seconds: np.ndarray) -> np.ndarray:
        """(n,) int64 number of the frame nearest to each of (n,) moments; the earlier one of two that are
        equally near.
        """
        last = len(self) - 1
        after = np.searchsorted(self.times, seconds).clip(1, max(last, 1))
        before = after - 1
        after = np.minimum(after, last)  # of a single frame both are that one
        is_later = np.abs(self.times[after] - seconds) < np.abs(self.times[before] - seconds)
        return np.where(is_later, after, before)


def draw_masks(
    picture: Image.Image, masks: Iterable[tuple[int, np.ndarray]], *, opacity: float = 0.45
) -> Image.Image:
    """A copy of the picture in which every object is tinted and outlined in its colour.

    Args:
        picture: any mode.
        masks: object id and (height, width) bool of the picture.
        opacity: of the tint, 0..1; the outline is opaque.

    Returns:
        An RGB picture of the same size.

    Raises:
        ProcessingError: the opacity is out of range, or a mask has another size.
    """
    if not 0 <= opacity <= 1:
        raise ProcessingError(f"expected an opacity from 0 to 1, got {opacity}")
    canvas = np.array(picture.convert("RGB"))
    for object_id, mask in masks:
        if mask.shape != canvas.shape[:2]:
            raise ProcessingError(
                f"expected a mask of (height, width) {canvas.shape[:2]}, got {mask.shape}; draw it on its "
                "own picture"
            )
        colour = np.array(colour_of(object_id))
        canvas[mask] = np.round(canvas[mask] * (1 - opacity) + colour * opacity)
        canvas[outline_of(mask)] = colour
    return Image.fromarray(canvas)
