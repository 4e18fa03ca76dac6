"""Reading with PyAV, which brings FFmpeg with it.

The time of every frame is found first, without decoding; then decoding goes on from where it stands, or from the key frame
before the first frame needed, whichever is nearer.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.video.clip import TIME_TOLERANCE, DamagedVideoError, average_rate, check_frame_size, cut_off_note, damage_note, unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


def import_av() -> ModuleType | None:
    """PyAV, or None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


class AvReader:
    """A `VideoReader` by PyAV.

    Args:
        path: of the file.

    Raises:
        ProcessingError: PyAV is not installed, or the file is no video.
    """

    def __init__(self, path: str | Path) -> None:
        if (av := import_av()) is None:
            raise ProcessingError(
                'expected torchcodec or PyAV to read a video, got neither; install the extra with pip install "molmopoint[video]", '
                "or pass frames and timestamps"
            )
        self._av, self._path, self._name = av, str(path), repr(str(path))
        self._failures = (av.error.FFmpegError, OSError)
        self._decoding: Iterator[VideoFrame] | None = None
        self._last = 0
        try:
            with av.open(self._path) as container:
                stream = _video_stream(container, self._name)
                base = Fraction(stream.time_base or 1)
                packets, missing = _scan(container, stream, self._failures)
            stored, self._turn = _first_look(av, self._path, self._failures)
        except self._failures as error:
            raise ProcessingError(unreadable(self._name, error)) from error
        self._keys = np.array(sorted(packet.pts for packet in packets if packet.key), dtype=np.int64)
        start = self._keys[0] if len(self._keys) else None  # what comes before cannot be decoded
        shown = sorted(packet for packet in packets if packet.shown and (start is None or packet.pts >= start))
        if not shown:
            raise ProcessingError(f"expected frames in the video {self._name}, got none; record or export it again")
        self._pts = np.array([packet.pts for packet in shown], dtype=np.int64)
        self._seconds = (self._pts - self._pts[0]) * base.numerator / base.denominator
        self.size = (stored[1], stored[0]) if self._turn % 2 else stored
        self.duration = float((max(packet.pts + packet.length for packet in shown) - shown[0].pts) * base)
        self.frame_rate = average_rate(len(shown), self.duration)
        self._total = self.duration + missing
        self.note = cut_off_note(self._name, self.duration, self._total)
        check_frame_size(self.size, self._name)

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """As `VideoReader` says."""
        wanted = np.searchsorted(self._seconds, np.asarray(times, dtype=np.float64) + TIME_TOLERANCE, side="right") - 1
        pts = self._pts[np.clip(wanted, 0, len(self._pts) - 1)].tolist()
        found = self._decode(set(pts), from_start=False)
        if set(pts) - set(found):  # some formats cannot seek to where they are told
            found = self._decode(set(pts), from_start=True)
        if missing := set(pts) - set(found):
            self._shorten(min(missing))
        return np.stack([found[one] for one in pts])

    def _decode(self, wanted: set[int], *, from_start: bool) -> dict[int, np.ndarray]:
        """Those of the wanted frames that can be decoded, by their pts."""
        found: dict[int, np.ndarray] = {}
        try:
            for frame in self._frames_from(min(wanted), from_start=from_start):
                if frame.pts is None:
                    continue
                self._last = frame.pts
                if frame.pts in wanted:
                    found[frame.pts] = np.rot90(frame.to_ndarray(format="rgb24"), self._turn)
                if frame.pts >= max(wanted):
                    return found
        except self._failures:
            pass  # what is missing then is told by the caller
        self._decoding = None
        return found

    def _frames_from(self, pts: int, *, from_start: bool) -> Iterator[VideoFrame]:
        """Goes on decoding if the frame still lies ahead and no key frame is nearer to it."""
        key = self._keys[: np.searchsorted(self._keys, pts, side="right")]
        if from_start or self._decoding is None or self._last >= pts or (len(key) and key[-1] > self._last):
            place = None if from_start else int(key[-1]) if len(key) else pts
            self._decoding = _decoded(self._av, self._path, place)
        return self._decoding

    def _shorten(self, first_bad: int) -> NoReturn:
        good = self._good_frames(first_bad)
        if not good:
            raise ProcessingError(unreadable(self._name, "not one frame that can be decoded"))
        end = self._seconds[good]
        self._pts, self._seconds, self.duration = self._pts[:good], self._seconds[:good], float(end)
        self.note = damage_note(self._name, self.duration, self._total)
        raise DamagedVideoError(f"expected a video that can be read to its end, but {self.note}")

    def _good_frames(self, first_bad: int) -> int:
        """How many frames before a bad one can be decoded, as far as its key frame tells."""
        key = self._keys[: np.searchsorted(self._keys, first_bad, side="right")]
        first = int(np.searchsorted(self._pts, key[-1])) if len(key) else 0
        near = self._pts[first : np.searchsorted(self._pts, first_bad)]
        if not len(near):
            return first
        self._decoding = None
        found = self._decode(set(near.tolist()), from_start=False)
        return first + next((i for i, pts in enumerate(near.tolist()) if pts not in found), len(near))


class _Packet(NamedTuple):
    """What is known of a frame before it is decoded, in units of the stream."""

    pts: int
    length: int
    key: bool
    shown: bool


def _scan(container: InputContainer, stream: VideoStream, failures: tuple[type[Exception], ...]) -> tuple[list[_Packet], float]:
    """All packets up to where the file cannot be read, and the seconds that it claims to have beyond the end of all its streams."""
    packets: list[_Packet] = []
    ends: dict[int, float] = {}
    try:
        for packet in container.demux():
            pts = packet.dts if packet.pts is None else packet.pts
            if not packet.size or pts is None:
                continue
            length = packet.duration or 0
            ends[packet.stream_index] = max(ends.get(packet.stream_index, 0.0), float((pts + length) * (packet.time_base or 0)))
            if packet.stream_index == stream.index:
                packets.append(_Packet(pts, length, packet.is_keyframe, not packet.is_discard))
    except failures:
        pass  # the good part is used
    claimed = (container.duration or 0) / 1e6  # some formats count it from the first frame, others from 0
    # AVI files tell how many frames there should be, but their duration is made up from the size of what is there.
    unseen = (stream.frames - len(packets)) / float(stream.average_rate) if stream.average_rate else 0.0
    return packets, max(claimed - max(ends.values(), default=0.0), unseen, 0.0)


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """The one to read; the cover of a record is none.

    Raises:
        ProcessingError: there is none.
    """
    from av.stream import Disposition

    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        covers = ["a cover"] * bool(container.streams.video)
        others = " and ".join([*sorted({stream.type for stream in container.streams} - {"video"}), *covers]) or "nothing"
        raise ProcessingError(f"expected a video stream in {name}, got none, only {others}; pass a video file")
    best = container.streams.best("video")
    return next((stream for stream in moving if best is not None and stream.index == best.index), moving[0])


def _first_look(av: ModuleType, path: str, failures: tuple[type[Exception], ...]) -> tuple[tuple[int, int], int]:
    """(width, height) as stored, and the quarter turns to the left that make the video upright; only frames tell them."""
    with av.open(path) as container:
        stream = _video_stream(container, repr(path))
        size = (stream.codec_context.width, stream.codec_context.height)
        try:
            frame = next(container.decode(stream))
        except (*failures, StopIteration):
            return size, 0
        return (frame.width, frame.height), round(frame.rotation / 90) % 4


def _decoded(av: ModuleType, path: str, pts: int | None) -> Iterator[VideoFrame]:
    """Frames from a key frame on, or from the start."""
    with av.open(path) as container:
        stream = _video_stream(container, repr(path))
        stream.thread_type = "AUTO"
        if pts is not None:
            container.seek(pts, stream=stream, backward=True)
        yield from container.decode(stream)
