"""Reading with Pillow: animated GIF, WebP, PNG and AVIF as videos. Pillow knows the duration of every frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from molmopoint.errors import ProcessingError
from molmopoint.files import open_picture
from molmopoint.video.reader import TIME_TOLERANCE, average_rate, check_frame_size, damage_note, unreadable

_MOVING = frozenset({"GIF", "WEBP", "PNG", "AVIF"})
_JPEG_STREAMS = frozenset({".mjpeg", ".mjpg"})
_SHORTEST, _USUAL = 10, 100
"""Milliseconds: frames of at most the first are shown for the second, as browsers do; authors mean "as fast
as possible".
"""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError)
"""What Pillow raises for cut or garbled files."""


class AnimationReader:
    """A `VideoReader` of an animated picture. Transparent pixels are laid on white, as those of still
    pictures.

    Args:
        path: of the file.
        durations: (T,) milliseconds of its frames that can be read.
        size: width and height.
        count: frames that it should have.
    """

    def __init__(self, path: Path, durations: list[float], size: tuple[int, int], count: int) -> None:
        name = repr(str(path))
        check_frame_size(size, name)
        self._path = path
        self.size = size
        shown = [_USUAL if duration <= _SHORTEST else duration for duration in durations]  # milliseconds
        self._ends = np.cumsum(shown) / 1000  # (T,) seconds
        self.duration = float(self._ends[-1])
        self.frame_rate = average_rate(len(durations), self.duration)
        self.notes: tuple[str, ...] = ()
        missing = count - len(durations)
        if missing:
            self.notes = (damage_note(name, self.duration, self.duration + missing / self.frame_rate),)

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """As `VideoReader` says; frames are drawn one on the other, so all up to the last one needed are
        read.
        """
        seconds = np.asarray(times, dtype=np.float64) + TIME_TOLERANCE
        on_screen = np.searchsorted(self._ends, seconds, side="right")
        wanted = np.minimum(on_screen, len(self._ends) - 1).tolist()
        found = dict(self._decode(sorted(set(wanted))))
        return np.stack([found[i] for i in wanted])

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        with open_picture(self._path) as picture:
            for i in wanted:
                picture.seek(i)
                frame = picture.convert("RGBA")
                paper = Image.new("RGBA", frame.size, "white")
                yield i, np.asarray(Image.alpha_composite(paper, frame).convert("RGB"))


def open_animation(path: Path) -> AnimationReader | None:
    """A reader if the file is an animated picture, whatever its name; None if it is no picture at all.

    Raises:
        ProcessingError: it is a still picture.
    """
    try:
        with open_picture(path) as picture:
            kind = picture.format
            count = getattr(picture, "n_frames", 1) if kind in _MOVING else 1
            if count > 1:
                return AnimationReader(path, list(_durations(picture)), picture.size, count)
        if kind == "JPEG" and path.suffix.lower() in _JPEG_STREAMS:
            return None  # one picture behind the other
    except UnidentifiedImageError:
        return None
    except _BROKEN as error:
        raise ProcessingError(unreadable(repr(str(path)), error)) from error
    raise ProcessingError(
        f"expected a video in {str(path)!r}, got a still picture ({kind}); "
        "ask about it as a picture, or pass several pictures with timestamps"
    )


def _durations(picture: Image.Image) -> Iterator[float]:
    for i in range(getattr(picture, "n_frames", 1)):
        try:
            picture.seek(i)
            picture.load()  # WebP and AVIF know the duration only then
        except _BROKEN:
            if i == 0:
                raise
            return  # the rest of a truncated file
        yield float(picture.info.get("duration") or 0)
