"""Reading with torchcodec, which needs FFmpeg's libraries on the machine. It turns rotated videos upright by
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.video.av_reader import first_look
from molmopoint.video.containers import import_av, not_media, recognised
from molmopoint.video.display import Display, read_matrix
from molmopoint.video.reader import (
    TIME_TOLERANCE,
    DamagedVideoError,
    VideoReader,
    average_rate,
    check_frame_size,
    cut_off_note,
    damage_note,
    unreadable,
)

if TYPE_CHECKING:
    from torchcodec.decoders._video_decoder import VideoDecoder

_FAILURES = (RuntimeError, ValueError, IndexError)
_NO_TIME = 1e9
"""Seconds from which on the start of a stream is none: the cover of a record has no time."""


def torchcodec_decoder(path: str | Path) -> VideoDecoder | None:
    """A decoder; None where torchcodec is missing, too old to turn videos, or without FFmpeg, which some
    versions notice only here.

    Raises:
        ProcessingError: it cannot read the file, or the file is not clearly of a format that holds its own
            frames.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[reportPrivateImportUsage]

        # torchcodec lets FFmpeg guess, lists of other files included, so it is given nothing whose format is
        # not known already.
        if recognised(path) is None:
            raise ProcessingError(not_media(path))
        # FFmpeg takes a name with a per cent sign for a pattern of names; by PyAV it can be told not to.
        if "%" in str(path):
            raise ProcessingError(
                f"expected a name without '%', got {str(path)!r}; rename the file, or install PyAV, which "
                "reads it"
            )
        decoder = VideoDecoder(f"file:{path}", dimension_order="NHWC", seek_mode="exact")
    except (ImportError, OSError):
        return None
    except _FAILURES as error:
        if "libtorchcodec" in str(error):
            return None
        raise ProcessingError(unreadable(repr(str(path)), error)) from error
    return decoder if hasattr(decoder.metadata, "rotation") else None


class TorchcodecReader:
    """A `VideoReader` by torchcodec.

    Args:
        path: of the file.
        decoder: of the file.
        instead: another reader of the file, if there is one; it is asked where this one fails.

    Raises:
        ProcessingError: the file has no frames.
    """

    def __init__(
        self,
        path: str | Path,
        decoder: VideoDecoder,
        instead: Callable[[], VideoReader | None] = lambda: None,
    ) -> None:
        self._decoder = decoder
        self._name = repr(str(path))
        self._open_instead = instead
        self._other: VideoReader | None = None
        self._singly = False
        metadata = decoder.metadata
        begin, end = metadata.begin_stream_seconds, metadata.end_stream_seconds
        self._count = metadata.num_frames or 0
        if not self._count or begin is None or end is None or abs(begin) > _NO_TIME:
            raise ProcessingError(
                f"expected a video stream with frames in {self._name}, got none; record or export it again"
            )
        self._begin, self._end = begin, end
        self.frame_rate = average_rate(self._count, self.duration)
        self._turns = round((metadata.rotation or 0) / 90) % 4
        self._display = self._look(path)
        self.size = self._display.size
        declared = metadata.num_frames_from_header
        self._total = self.duration * max((declared or 0) / self._count, 1.0)
        self._damage = cut_off_note(self._name, self.duration, self._total)
        self._notes: tuple[str, ...] = ()
        if self._display.note is not None:
            self._notes = (f"{self._name}: {self._display.note}",)
        if declared is None:  # some formats do not count their frames
            other = instead()
            if other is not None:
                self._damage, self._notes = None, other.notes
        check_frame_size(self.size, self._name)

    @property
    def duration(self) -> float:
        """Seconds that can be read."""
        if self._other is not None:
            return self._other.duration
        return float(self._end - self._begin)

    @property
    def notes(self) -> tuple[str, ...]:
        """As `VideoReader` says."""
        if self._other is not None:
            return self._other.notes
        if self._damage is not None:
            return (self._damage, *self._notes)
        return self._notes

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """As `VideoReader` says."""
        seconds = np.asarray(times, dtype=np.float64) + self._begin + TIME_TOLERANCE
        if not self._singly:
            try:
                return self._together(seconds)
            except _FAILURES:  # damage, or frames of several sizes
                self._other = self._open_instead()
                self._singly = True
        if self._other is not None:
            return self._other.frames_at(times)
        return self._one_by_one(seconds)

    def _look(self, path: str | Path) -> Display:
        """How frames are shown. torchcodec tells of no mirror, so PyAV is asked where it is installed."""
        metadata = self._decoder.metadata
        av = import_av()
        if av is not None:
            try:
                return first_look(path)
            except (ProcessingError, av.error.FFmpegError, OSError):
                pass  # the two bring their own FFmpeg, which may know other codecs
        width, height = int(metadata.width or 0), int(metadata.height or 0)
        stored = (height, width) if self._turns % 2 else (width, height)
        aspect = Fraction(metadata.pixel_aspect_ratio or 1)
        matrix = read_matrix(path) if recognised(path) == "mov" else None
        if matrix is None:
            return Display.turned(stored, self._turns, aspect)
        return Display.of(stored, matrix, aspect)

    def _shown(self, frames: np.ndarray) -> np.ndarray:
        """Frames (T, height, width, 3), which torchcodec has turned, as they are displayed."""
        display = self._display
        if not display.is_mirrored and display.stretched == display.stored:
            return frames
        return np.stack([display.show(np.rot90(frame, -self._turns)) for frame in frames])

    def _together(self, seconds: np.ndarray) -> np.ndarray:
        inside = seconds[seconds < self._end]
        beyond = len(seconds) - len(inside)
        parts = []
        if len(inside):
            parts.append(self._decoder.get_frames_played_at(inside.tolist()).data.numpy())
        if beyond:
            last = self._decoder.get_frame_at(self._count - 1).data.numpy()
            parts.append(np.repeat(last[None], beyond, axis=0))
        frames = np.concatenate(parts) if len(parts) > 1 else parts[0]  # (T, height, width, 3)
        return self._shown(frames)

    def _one_by_one(self, seconds: np.ndarray) -> np.ndarray:
        """Slower, and tells where the damage begins."""
        frames = []
        good = self._begin  # where the frames end that can be decoded
        for second in seconds.tolist():
            try:
                frame = self._decoder.get_frame_played_at(min(second, self._end - TIME_TOLERANCE))
            except _FAILURES as error:
                self._shorten(good, error)
            frames.append(frame.data.numpy())
            good = frame.pts_seconds + frame.duration_seconds
        return self._shown(np.stack(frames))

    def _shorten(self, good: float, reason: Exception) -> NoReturn:
        """Ends the video where the frames after a good one cannot be decoded any more."""
        while good < self._end:
            end = self._end_of_frame(good + TIME_TOLERANCE)
            if end is None or end <= good:
                break
            good = end
        good = min(good, self._end - 1 / self.frame_rate)
        if good <= self._begin:
            raise ProcessingError(unreadable(self._name, reason)) from reason
        self._end = good
        self._damage = damage_note(self._name, self.duration, self._total)
        raise DamagedVideoError(
            f"expected a video that can be read to its end, but {self._damage}"
        ) from reason

    def _end_of_frame(self, second: float) -> float | None:
        """When the frame on screen goes, None if it cannot be decoded."""
        try:
            frame = self._decoder.get_frame_played_at(second)
        except _FAILURES:
            return None
        return frame.pts_seconds + frame.duration_seconds
