"""Reading with PyAV, which brings FFmpeg with it.

The time of every frame is found first, without decoding; then decoding goes on from where it stands, or from
the key frame before the first frame needed, whichever is nearer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.video.containers import import_av, open_media
from molmopoint.video.display import Display
from molmopoint.video.reader import (
    TIME_TOLERANCE,
    DamagedVideoError,
    average_rate,
    check_frame_size,
    cut_off_note,
    damage_note,
    unreadable,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

USUAL_RATE = Fraction(25)
"""Frames a second of a stream that does not say when its frames are shown; what FFmpeg's own tools take."""

_MADE_UP_TIMES = frozenset({"mjpeg", "h261", "h263"})
"""Formats without any times, for which FFmpeg counts at the usual rate."""


class AvReader:
    """A `VideoReader` by PyAV.

    Args:
        path: of the file.
        frame_rate: frames a second of a file that has no times of its own, such as raw H.264; None for what
            its stream says, or 25.

    Raises:
        ProcessingError: PyAV is not installed, the file is no video or has no decoder, or a rate is given and
            the file has times.
    """

    def __init__(self, path: str | Path, frame_rate: float | None = None) -> None:
        av = import_av()
        if av is None:
            raise ProcessingError(
                'expected torchcodec or PyAV to read a video, got neither; install the extra with pip install "molmopoint[video]", '
                "or pass frames and timestamps"
            )
        self._path = str(path)
        self._name = repr(self._path)
        self._failures = (av.error.FFmpegError, OSError)
        try:
            with open_media(self._path) as container:
                stream = _video_stream(container, self._name)
                time_base = Fraction(stream.time_base or 1)
                packets, missing = _scan(container, stream, self._failures)
                stated_rate = stream.codec_context.framerate
                has_made_up_times = container.format.name in _MADE_UP_TIMES
            self._display = first_look(self._path)
        except self._failures as error:
            raise ProcessingError(unreadable(self._name, error)) from error

        has_times = not has_made_up_times and any(packet.pts is not None for packet in packets)
        self._untimed = bool(packets) and not has_times
        if frame_rate is not None and not self._untimed:
            raise ProcessingError(
                f"expected no frame_rate with {self._name}, got {frame_rate:g}; the file says when its "
                "frames are shown"
            )
        self._rate_note = None
        if self._untimed:
            known_rate = frame_rate or stated_rate
            rate = Fraction(known_rate or USUAL_RATE).limit_denominator(1001)
            if not known_rate:
                self._rate_note = (
                    f"{self._name} does not say when its frames are shown: {float(rate):g} frames a second "
                    "are taken; "
                    "pass frame_rate= if you know better"
                )
            # Frames without times are counted from the first one on, in units of one frame.
            packets = [_Packet(i, 1, packet.key, True) for i, packet in enumerate(packets)]
            time_base = 1 / rate
            missing = 0.0

        shown = _shown(packets)
        if not shown:
            raise ProcessingError(
                f"expected frames in the video {self._name}, got none; record or export it again"
            )
        keys = (
            [0]
            if self._untimed
            else sorted(packet.pts for packet in packets if packet.key and packet.pts is not None)
        )
        self._keys = np.array(keys, dtype=np.int64)
        self._pts = np.array([pts for pts, _ in shown], dtype=np.int64)  # (frames of the video,)
        self._seconds = (self._pts - self._pts[0]) * time_base.numerator / time_base.denominator
        first, _ = shown[0]
        end = max(pts + length for pts, length in shown)
        self.size = self._display.size
        self.duration = float((end - first) * time_base)
        self.frame_rate = average_rate(len(shown), self.duration)
        self._total = self.duration + missing
        self._damage = cut_off_note(self._name, self.duration, self._total)
        check_frame_size(self.size, self._name)

        self._decoding: Iterator[tuple[int, VideoFrame]] | None = None
        self._last = 0  # of the frames that were decoded
        self._changed_size = False

    @property
    def notes(self) -> tuple[str, ...]:
        """As `VideoReader` says."""
        notes = []
        if self._damage is not None:
            notes.append(self._damage)
        if self._rate_note is not None:
            notes.append(self._rate_note)
        if self._display.note is not None:
            notes.append(f"{self._name}: {self._display.note}")
        if self._changed_size:
            width, height = self.size
            notes.append(
                f"{self._name} has frames of several sizes: they are scaled to that of the first, {width} x "
                f"{height}"
            )
        return tuple(notes)

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """As `VideoReader` says."""
        seconds = np.asarray(times, dtype=np.float64) + TIME_TOLERANCE
        on_screen = np.searchsorted(self._seconds, seconds, side="right") - 1
        pts = self._pts[np.clip(on_screen, 0, len(self._pts) - 1)].tolist()  # (T,)
        wanted = set(pts)
        found = self._decode(wanted, from_start=False)
        if not wanted <= found.keys():  # some formats cannot seek to where they are told
            found = self._decode(wanted, from_start=True)
        missing = wanted - found.keys()
        if missing:
            self._shorten(min(missing))
        return np.stack([found[one] for one in pts])

    def _decode(self, wanted: set[int], *, from_start: bool) -> dict[int, np.ndarray]:
        """Those of the wanted frames that can be decoded, by their pts."""
        found: dict[int, np.ndarray] = {}
        try:
            for pts, frame in self._frames_from(min(wanted), from_start=from_start):
                self._last = pts
                if pts in wanted:
                    found[pts] = self._display.show(self._pixels(frame))
                if pts >= max(wanted):
                    return found
        except self._failures:
            pass  # what is missing then is told by the caller
        self._decoding = None
        return found

    def _pixels(self, frame: VideoFrame) -> np.ndarray:
        """(height, width, 3) uint8 as stored; a frame of another size than the first is scaled."""
        width, height = self._display.stored
        if (frame.width, frame.height) == (width, height):
            return frame.to_ndarray(format="rgb24")
        self._changed_size = True
        return frame.reformat(width=width, height=height, format="rgb24").to_ndarray()

    def _frames_from(self, pts: int, *, from_start: bool) -> Iterator[tuple[int, VideoFrame]]:
        """Goes on decoding if the frame still lies ahead and no key frame is nearer to it."""
        key = self._key_before(pts)
        is_passed = self._last >= pts
        is_key_nearer = key is not None and key > self._last
        if not from_start and self._decoding is not None and not is_passed and not is_key_nearer:
            return self._decoding
        if self._untimed:
            self._decoding = enumerate(_decoded(self._path, None))
        elif from_start:
            self._decoding = _by_pts(_decoded(self._path, None))
        else:
            self._decoding = _by_pts(_decoded(self._path, pts if key is None else key))
        return self._decoding

    def _key_before(self, pts: int) -> int | None:
        """The pts of the last key frame up to a frame; None without any."""
        following = int(np.searchsorted(self._keys, pts, side="right"))
        return int(self._keys[following - 1]) if following else None

    def _shorten(self, first_bad: int) -> NoReturn:
        good = self._good_frames(first_bad)
        if not good:
            raise ProcessingError(unreadable(self._name, "not one frame that can be decoded"))
        self.duration = float(self._seconds[good])
        self._pts = self._pts[:good]
        self._seconds = self._seconds[:good]
        self._damage = damage_note(self._name, self.duration, self._total)
        raise DamagedVideoError(f"expected a video that can be read to its end, but {self._damage}")

    def _good_frames(self, first_bad: int) -> int:
        """How many frames before a bad one can be decoded, as far as its key frame tells."""
        key = self._key_before(first_bad)
        first = 0 if key is None else int(np.searchsorted(self._pts, key))
        near = self._pts[first : np.searchsorted(self._pts, first_bad)].tolist()
        if not near:
            return first
        self._decoding = None
        found = self._decode(set(near), from_start=False)
        for i, pts in enumerate(near):
            if pts not in found:
                return first + i
        return first + len(near)


def first_look(path: str | Path) -> Display:
    """How the frames of a file are shown; only a decoded frame tells it.

    Raises:
        ProcessingError: it has no video stream that can be decoded.
        FFmpegError, OSError: it cannot be read.
    """
    av = import_av()
    assert av is not None, "callers ask first"
    with open_media(path) as container:
        stream = _video_stream(container, repr(str(path)))
        aspect = stream.sample_aspect_ratio
        try:
            frame = next(container.decode(stream))
        except (av.error.FFmpegError, OSError, StopIteration):
            return Display.of((stream.codec_context.width, stream.codec_context.height), pixel_aspect=aspect)
        return Display.of((frame.width, frame.height), _display_matrix(frame), aspect)


def _display_matrix(frame: VideoFrame) -> list[int] | None:
    """The nine numbers that say how to lay a frame; None if there are none."""
    parts: Any = frame.side_data  # stubs and versions differ in what it is; going through it gives the parts
    for part in parts:
        if part.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(part), dtype=np.int32).tolist()
    return None


class _Packet(NamedTuple):
    """What is known of a frame before it is decoded, in units of the stream."""

    pts: int | None
    length: int
    key: bool
    shown: bool


def _shown(packets: list[_Packet]) -> list[tuple[int, int]]:
    """(pts, length) of the frames that can be seen, in their order."""
    timed = [(packet.pts, packet) for packet in packets if packet.pts is not None]
    keys = [pts for pts, packet in timed if packet.key]
    start = min(keys, default=-math.inf)  # what comes before cannot be decoded
    return sorted((pts, packet.length) for pts, packet in timed if packet.shown and pts >= start)


def _scan(
    container: InputContainer, stream: VideoStream, failures: tuple[type[Exception], ...]
) -> tuple[list[_Packet], float]:
    """All packets up to where the file cannot be read, and the seconds that it claims to have beyond the end
    of all its streams.
    """
    packets: list[_Packet] = []
    ends: dict[int, float] = {}
    try:
        for packet in container.demux():
            pts = packet.dts if packet.pts is None else packet.pts
            if not packet.size:
                continue
            length = packet.duration or 0
            if pts is not None:
                end = float((pts + length) * (packet.time_base or 0))
                ends[packet.stream_index] = max(ends.get(packet.stream_index, 0.0), end)
            if packet.stream_index == stream.index:
                packets.append(_Packet(pts, length, packet.is_keyframe, not packet.is_discard))
    except failures:
        pass  # the good part is used
    claimed = (container.duration or 0) / 1e6  # some formats count it from the first frame, others from 0
    beyond_end = claimed - max(ends.values(), default=0.0)
    # AVI files tell how many frames there should be, but their duration is made up from the size of what is
    # there.
    unseen = 0.0
    if stream.average_rate:
        unseen = (stream.frames - len(packets)) / float(stream.average_rate)
    return packets, max(beyond_end, unseen, 0.0)


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """The one to read; the cover of a record is none.

    Raises:
        ProcessingError: there is none, or no decoder for it.
    """
    from av.stream import Disposition

    moving = [
        stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
    ]
    if not moving:
        others = sorted({stream.type for stream in container.streams} - {"video"})
        if container.streams.video:
            others.append("a cover")
        found = " and ".join(others) or "nothing"
        raise ProcessingError(f"expected a video stream in {name}, got none, only {found}; pass a video file")
    decodable = [stream for stream in moving if stream.codec_context is not None]
    if not decodable:
        raise ProcessingError(
            f"expected a video in {name} that can be decoded, got an unknown codec; export it as MP4"
        )
    best = container.streams.best("video")
    for stream in decodable:
        if best is not None and stream.index == best.index:
            return stream
    return decodable[0]


def _decoded(path: str, pts: int | None) -> Iterator[VideoFrame]:
    """Frames from a key frame on, or from the start."""
    with open_media(path) as container:
        stream = _video_stream(container, repr(path))
        stream.thread_type = "AUTO"
        if pts is not None:
            container.seek(pts, stream=stream, backward=True)
        yield from container.decode(stream)


def _by_pts(frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
    return ((frame.pts, frame) for frame in frames if frame.pts is not None)
