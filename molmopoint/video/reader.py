"""What reading a video gives, and what every reader of one can do.

Letters: T frames that are read. Frames are uint8 (T, height, width, 3) as displayed, times are seconds from
the start of the video (or of the clip cut from it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from molmopoint.errors import ProcessingError

TIME_TOLERANCE = 1e-6
"""Seconds by which a frame may start late; sums of times in binary floating point are off by less."""

LATEST = 1e7
"""Largest second of a frame or a subtitle, about 116 days; a larger number is a mistake, and would be written
out digit by digit.
"""

_DECLARED_SHARE, _DECLARED_SECONDS = 1.02, 0.5
"""What a file may claim to have beyond what it has, as a factor and in seconds, before it counts as cut off;
headers are rounded.
"""

_PLACE_IN_SOURCE = re.compile(r"\A.*\.cpp:\d+, ")
"""How torchcodec begins its messages."""

MAX_FRAME_PIXELS = 2**26
"""Largest width times height of a frame, 8192 x 8192."""


class Clip:
    """Decoded frames and their times; unpacks into the two. No tuple or dataclass: transformers takes those
    in messages apart.

    Attributes:
        frames: (T, height, width, 3) uint8, or a list of T pictures.
        timestamps: (T,) seconds.
    """

    __slots__ = ("frames", "timestamps")

    def __init__(self, frames: Any, timestamps: Any) -> None:
        self.frames, self.timestamps = frames, timestamps

    def __iter__(self) -> Iterator[Any]:
        yield self.frames
        yield self.timestamps

    def __repr__(self) -> str:
        return f"Clip({len(self.frames)} frames, {len(self.timestamps)} timestamps)"


class RatedFile(str):
    """The path of a video file that does not say when its frames are shown, with their rate; it goes wherever
    a path goes.

    Attributes:
        frame_rate: frames a second.
    """

    frame_rate: float

    def __new__(cls, path: str | Path, frame_rate: float) -> RatedFile:
        """The path, and the frames a second that the file is shown at."""
        rated = super().__new__(cls, path)
        rated.frame_rate = frame_rate
        return rated


class VideoReader(Protocol):
    """An open video file. Its first frame is at second 0, wherever the file starts to count."""

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one that can be read."""
        ...

    @property
    def frame_rate(self) -> float:
        """Average frames a second."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as displayed."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the file, where a part of it can be used all the same; some of it turns up while
        frames are read.
        """
        ...

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """(T, height, width, 3) uint8, the frame on screen at each of (T,) ascending times; the last one from
        the end on.

        Raises:
            DamagedVideoError: a frame cannot be decoded; from now on the video ends before it.
            ProcessingError: not even the first frame can be decoded.
        """
        ...


class DamagedVideoError(ProcessingError):
    """A video that can be read up to some moment only. The reader has shortened itself, so reading again can
    succeed.
    """


def average_rate(count: int, duration: float) -> float:
    """Frames a second; times in whole milliseconds are off by less than it is rounded."""
    return round(count / duration, 2) if duration > TIME_TOLERANCE else 1.0


def check_frame_size(size: tuple[int, int], name: str) -> None:
    """Refuses frames without pixels, and those with too many.

    Raises:
        ProcessingError: they have none, or more than `MAX_FRAME_PIXELS`.
    """
    width, height = size
    if not 0 < width * height <= MAX_FRAME_PIXELS:
        raise ProcessingError(
            f"expected frames of 1 to {MAX_FRAME_PIXELS:,} pixels in {name}, got {width} x {height} (width "
            "x height); "
            "make the video smaller, the model sees far fewer"
        )


def damage_note(name: str, good: float, total: float) -> str:
    """What a user is told of a video that breaks off; seconds that are good, and that there should be."""
    return f"{name} is damaged or cut off: the first {good:.2f} of {total:.2f} seconds can be read, and only they are used"


def cut_off_note(name: str, found: float, declared: float) -> str | None:
    """The same, if a file claims to have clearly more seconds than were found in it."""
    tolerated = max(_DECLARED_SHARE * found, found + _DECLARED_SECONDS)
    return damage_note(name, found, declared) if declared > tolerated else None


def unreadable(name: str, reason: object) -> str:
    """The message for a file that cannot be read."""
    told = str(reason).strip() or repr(reason)
    first_line = _PLACE_IN_SOURCE.sub("", told.splitlines()[0])
    return f"expected a readable video in {name}, got: {first_line}; export it again, as MP4 for example"
