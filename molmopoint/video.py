"""Which frames of a video the model sees, and reading exactly those.

Two ways to say when: by time, when a file is read (the frame on screen at that moment), and by index, when frames are
already in memory. Two modes: `uniform_last_frame`, at most `max_fps` frames a second and always the last moment, and `fps`,
a rate that divides that of the video, as tracking data was prepared.

Letters: T frames that are read. Frames are uint8 (T, height, width, 3) as displayed, times are seconds from the start of the
video (or of the clip cut from it).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from molmopoint.errors import ProcessingError

if TYPE_CHECKING:
    from torchcodec.decoders._video_decoder import VideoDecoder

SampleMode = Literal["uniform_last_frame", "fps"]

MAX_RATE_OF_FPS_MODE = 8
"""Frames a second beyond which the `fps` mode does not go, as released."""

_TIME_TOLERANCE = 1e-6
"""Seconds by which a frame may start late; sums of times in binary floating point are off by less."""


class Clip:
    """Decoded frames and their times; unpacks into the two. No tuple or dataclass: transformers takes those in messages apart.

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


class VideoReader(Protocol):
    """An open video file."""

    duration: float
    """Seconds from the first frame to the end of the last one."""
    frame_rate: float
    """Average frames a second."""
    size: tuple[int, int]
    """Width and height in pixels."""

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """(T, height, width, 3) uint8, the frame on screen at each of (T,) ascending times; the last one from the end on."""
        ...


def sample_times(
    duration: float,
    max_frames: int,
    max_fps: float | None = 2.0,
    mode: SampleMode = "uniform_last_frame",
    *,
    frame_rate: float | None = None,
    sampling_fps: int = 2,
) -> np.ndarray:
    """Times at which to look at a video of the given length.

    Args:
        duration: seconds.
        max_frames: largest number of times.
        max_fps: largest number of times a second, None for no limit; not used in mode `fps`.
        mode: `uniform_last_frame` or `fps`.
        frame_rate: frames a second of the video, needed in mode `fps`.
        sampling_fps: base rate of mode `fps`.

    Returns:
        (T,) float64 seconds, ascending, the first one 0.

    Raises:
        ProcessingError: a number is out of range, or the base rate does not divide the frame rate.

    Source: Molmo2 paper, section on video; the times, not those of the frames found there, are what the prompt states.
    """
    _check_sampling(max_frames, max_fps, mode)
    if not (math.isfinite(duration) and duration >= 0):
        raise ProcessingError(f"expected a duration of zero or more seconds, got {duration}; check the video file")
    if mode == "fps":
        rate = _common_rate(duration, max_frames, frame_rate, sampling_fps)
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
) -> np.ndarray:
    """Which of the frames in memory to keep.

    Args:
        num_frames: how many there are.
        fps: frames a second they were taken with.
        max_frames: largest number of frames to keep.
        max_fps: as in `sample_times`.
        mode: as in `sample_times`.
        sampling_fps: as in `sample_times`.

    Returns:
        (T,) int64 ascending indices, the first one 0; the time of a frame is its index divided by `fps`.

    Raises:
        ProcessingError: there are no frames, or a number is out of range.

    Source: as released, except that frames slower than `max_fps` are kept once each; the released rule repeats them.
    """
    _check_sampling(max_frames, max_fps, mode)
    if num_frames < 1:
        raise ProcessingError("expected at least one frame, got none; check the video or the list of frames")
    if not (math.isfinite(fps) and fps > 0):
        raise ProcessingError(f"expected a positive number of frames a second, got {fps}; pass the rate the frames were taken with")
    if mode == "fps":
        rate = _common_rate(num_frames / fps, max_frames, fps, sampling_fps)
        indices = np.rint(np.arange(max_frames) * (fps / rate))
        return indices[indices < num_frames].astype(np.int64)
    if num_frames <= 2:
        return np.arange(min(num_frames, max_frames))
    if max_fps is None or num_frames / fps > (max_frames - 1) / max_fps:
        return np.linspace(0, num_frames - 1, min(max_frames, num_frames)).astype(np.int64)
    step = max(fps / max_fps, 1.0)
    exact = np.arange(math.ceil((num_frames - 1) / step) + 1) * step
    indices = np.rint(exact[exact < num_frames - 1]).astype(np.int64)
    return indices if indices[-1] == num_frames - 1 else np.append(indices, num_frames - 1)


def open_video(path: str | Path) -> VideoReader:
    """Opens a video file with torchcodec, or with PyAV where torchcodec cannot be loaded.

    Raises:
        ProcessingError: the file is missing, no video, or empty; or neither decoder is installed.
    """
    if not Path(path).is_file():
        raise ProcessingError(f"expected a video file at {str(path)!r}, found none; check the path")
    decoder = _torchcodec_decoder(path)
    return _AvReader(path) if decoder is None else _TorchcodecReader(path, decoder)


def read_video(
    path: str | Path,
    max_frames: int = 384,
    max_fps: float | None = 2.0,
    mode: SampleMode = "uniform_last_frame",
    *,
    sampling_fps: int = 2,
    start: float = 0.0,
    end: float | None = None,
) -> Clip:
    """Reads the frames of a video that the model is to see.

    Only the frames asked for are kept: T times width times height times 3 bytes.

    Args:
        path: of the video file.
        max_frames: as in `sample_times`.
        max_fps: as in `sample_times`.
        mode: as in `sample_times`.
        sampling_fps: as in `sample_times`.
        start: second at which the part to read begins; times count from here.
        end: second at which it ends; None for the end of the video.

    Returns:
        `frames`, (T, height, width, 3) uint8, and `timestamps`, (T,) seconds.

    Raises:
        ProcessingError: the file cannot be read, or the part lies outside of it.
    """
    reader = open_video(path)
    stop = reader.duration if end is None else min(end, reader.duration)
    if not 0 <= start < stop:
        raise ProcessingError(
            f"expected a part of {str(path)!r} within 0..{reader.duration:g} seconds, got {start:g}..{end if end is not None else stop:g}"
        )
    times = sample_times(stop - start, max_frames, max_fps, mode, frame_rate=reader.frame_rate, sampling_fps=sampling_fps)
    return Clip(reader.frames_at(times + start), times)


def _check_sampling(max_frames: int, max_fps: float | None, mode: str) -> None:
    if mode not in get_args(SampleMode):
        raise ProcessingError(f"expected a frame sample mode out of {', '.join(get_args(SampleMode))}, got {mode!r}")
    if max_frames < 1:
        raise ProcessingError(f"expected room for at least one frame, got max_frames {max_frames}")
    if max_fps is not None and not max_fps > 0:
        raise ProcessingError(f"expected max_fps above 0, or None for no limit, got {max_fps}")


def _common_rate(duration: float, max_frames: int, frame_rate: float | None, sampling_fps: int) -> int:
    """Largest multiple of the base rate that divides the frame rate and still reaches the end of the video."""
    whole = int(frame_rate or 0)
    if sampling_fps < 1 or whole < 1 or whole % sampling_fps:
        raise ProcessingError(
            f"expected a frame rate whose whole part is a multiple of sampling_fps {sampling_fps} for mode 'fps', got {frame_rate}; "
            "pass sampling_fps=1, or mode 'uniform_last_frame'"
        )
    chosen = sampling_fps
    for rate in range(2 * sampling_fps, min(whole, MAX_RATE_OF_FPS_MODE) + 1, sampling_fps):
        if whole % rate == 0:
            if max_frames / rate < duration:
                break
            chosen = rate
    return chosen


def _torchcodec_decoder(path: str | Path) -> VideoDecoder | None:
    """None where torchcodec is not installed, or cannot find the FFmpeg libraries, which some versions notice only here."""
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[reportPrivateImportUsage]

        return VideoDecoder(str(path), dimension_order="NHWC", seek_mode="exact")
    except (ImportError, OSError):
        return None
    except (RuntimeError, ValueError) as error:
        if "libtorchcodec" in str(error):
            return None
        raise ProcessingError(_unreadable(path, error)) from error


class _TorchcodecReader:
    def __init__(self, path: str | Path, decoder: VideoDecoder) -> None:
        self._decoder = decoder
        metadata = self._decoder.metadata
        self._path, self._count = path, metadata.num_frames or 0
        if not self._count or metadata.begin_stream_seconds is None or metadata.end_stream_seconds is None:
            raise ProcessingError(f"expected frames in the video {str(path)!r}, got none; record or export it again")
        self._begin, self._end = metadata.begin_stream_seconds, metadata.end_stream_seconds
        self.duration = float(self._end - self._begin)
        self.frame_rate = float(metadata.average_fps or self._count / max(self.duration, _TIME_TOLERANCE))
        self.size = (int(metadata.width or 0), int(metadata.height or 0))

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        seconds = np.asarray(times, dtype=np.float64) + self._begin + _TIME_TOLERANCE
        inside = seconds[seconds < self._end]
        try:
            parts = [self._decoder.get_frames_played_at(inside.tolist()).data.numpy()] if len(inside) else []
            if len(inside) < len(seconds):
                last = self._decoder.get_frame_at(self._count - 1).data.numpy()
                parts.append(np.repeat(last[None], len(seconds) - len(inside), axis=0))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ProcessingError(_unreadable(self._path, error)) from error
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


class _AvReader:
    """Finds the time of every frame first, without decoding, and then decodes from the key frame before the first one needed."""

    def __init__(self, path: str | Path) -> None:
        try:
            import av
        except ImportError as error:
            raise ProcessingError(
                'expected torchcodec or PyAV to read a video, got neither; install the extra with pip install "molmopoint[video]", '
                "or pass frames and timestamps"
            ) from error
        self._av, self._path = av, path
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise ProcessingError(f"expected a video stream in {str(path)!r}, got none; pass a video file")
                stream = container.streams.video[0]
                packets = [(p.pts, p.duration or 0) for p in container.demux(stream) if p.pts is not None]
                base = Fraction(stream.time_base or 1)
                self.size = (stream.codec_context.width, stream.codec_context.height)
                rate = stream.average_rate
        except (av.error.FFmpegError, OSError) as error:
            raise ProcessingError(_unreadable(path, error)) from error
        if not packets:
            raise ProcessingError(f"expected frames in the video {str(path)!r}, got none; record or export it again")
        packets.sort()
        self._pts = np.array([pts for pts, _ in packets], dtype=np.int64)
        self._seconds = (self._pts - self._pts[0]) * base.numerator / base.denominator
        last = packets[-1][1] * base or (1 / rate if rate else Fraction(0))
        self.duration = float((packets[-1][0] - packets[0][0]) * base + last)
        self.frame_rate = float(rate) if rate else len(packets) / max(self.duration, _TIME_TOLERANCE)

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        wanted = np.searchsorted(self._seconds, np.asarray(times, dtype=np.float64) + _TIME_TOLERANCE, side="right") - 1
        wanted = np.clip(wanted, 0, len(self._pts) - 1)
        pts = self._pts[wanted].tolist()
        found = dict(self._decode(set(pts)))
        if missing := set(pts) - set(found):
            raise ProcessingError(_unreadable(self._path, f"{len(missing)} frames cannot be decoded"))
        return np.stack([found[one] for one in pts])

    def _decode(self, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        try:
            with self._av.open(str(self._path)) as container:
                stream = container.streams.video[0]
                container.seek(min(wanted), stream=stream, backward=True)
                for frame in container.decode(stream):
                    if frame.pts in wanted:
                        yield frame.pts, frame.to_ndarray(format="rgb24")
                    if frame.pts is not None and frame.pts >= max(wanted):
                        return
        except (self._av.error.FFmpegError, OSError) as error:
            raise ProcessingError(_unreadable(self._path, error)) from error


def _unreadable(path: str | Path, reason: object) -> str:
    first_line = (str(reason).strip() or repr(reason)).splitlines()[0]
    return f"expected a readable video in {str(path)!r}, got: {first_line}; export it again, as MP4 for example"
