"""Opening videos, and reading the frames of one that a model is to see.

Letters: T frames that are read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.files import is_file, is_folder
from molmopoint.files.addresses import is_address
from molmopoint.video.av_reader import AvReader
from molmopoint.video.containers import import_av
from molmopoint.video.pillow_reader import open_animation
from molmopoint.video.reader import Clip, DamagedVideoError, RatedFile, VideoReader
from molmopoint.video.sampling import MAX_RATE_OF_FPS_MODE, SampleMode, sample_times
from molmopoint.video.torchcodec_reader import TorchcodecReader, torchcodec_decoder

MAX_CLIP_PIXELS = 2**32
"""Most pixels that `read_video` holds at once, over all frames: 12 GiB, or 2,000 frames of 1920 x 1080."""

_T = TypeVar("_T")


def open_video(path: str | Path, frame_rate: float | None = None) -> VideoReader:
    """Opens a video file with torchcodec, or with PyAV where torchcodec cannot be loaded or cannot read it;
    animated pictures with Pillow.

    Args:
        path: of the file; a `RatedFile` for one with a frame rate.
        frame_rate: frames a second of a file that has no times of its own, such as raw H.264; None for what
            its stream says, or 25.

    Raises:
        ProcessingError: the file is missing, no video, or empty; its frames are too large; a rate is given
            and the file has times; or no decoder is installed.
    """
    name = str(path)
    if frame_rate is None and isinstance(path, RatedFile):
        frame_rate = path.frame_rate
    _check_is_file(name)
    animation = open_animation(Path(path))
    if animation is not None:
        if frame_rate is not None:
            raise ProcessingError(
                f"expected no frame_rate with {name!r}, got {frame_rate:g}; the file says when its frames "
                "are shown"
            )
        return animation
    if frame_rate is not None:  # torchcodec has no use for it
        return AvReader(path, frame_rate)

    def open_with_av() -> VideoReader | None:
        return None if import_av() is None else AvReader(path)

    try:
        decoder = torchcodec_decoder(path)
        if decoder is None:
            return AvReader(path)
        return TorchcodecReader(path, decoder, open_with_av)
    except ProcessingError:
        reader = open_with_av()
        if reader is None:
            raise
        return reader


def _check_is_file(name: str) -> None:
    if is_address(name):
        raise ProcessingError(
            f"expected a video file, got the address {name[:80]!r}; nothing is downloaded here, so fetch it "
            "first"
        )
    if not is_file(Path(name)):
        kind = "a folder" if is_folder(Path(name)) else "nothing"
        raise ProcessingError(f"expected a video file at {name!r}, found {kind} there; check the path")


def read_video(
    path: str | Path,
    max_frames: int = 384,
    max_fps: float | None = 2.0,
    mode: SampleMode = "uniform_last_frame",
    *,
    sampling_fps: int = 2,
    max_rate: int = MAX_RATE_OF_FPS_MODE,
    start: float = 0.0,
    end: float | None = None,
    frame_rate: float | None = None,
) -> Clip:
    """Reads the frames of a video that the model is to see.

    Only the frames asked for are kept: T times width times height times 3 bytes. Of a damaged file the part
    before the damage is read, with an `InputWarning`.

    Args:
        path: of the video file, or of an animated picture.
        max_frames: as in `sample_times`.
        max_fps: as in `sample_times`.
        mode: as in `sample_times`.
        sampling_fps: as in `sample_times`.
        max_rate: as in `sample_times`.
        start: second at which the part to read begins; times count from here.
        end: second at which it ends; None for the end of the video.
        frame_rate: as in `open_video`.

    Returns:
        `frames`, (T, height, width, 3) uint8, and `timestamps`, (T,) seconds.

    Raises:
        ProcessingError: the file cannot be read, the part lies outside of it, or the frames are more than
            `MAX_CLIP_PIXELS`.
    """
    reader = open_video(path, frame_rate)

    def read() -> Clip:
        duration = end_of_part(reader, str(path), start, end) - start
        times = sample_times(
            duration,
            max_frames,
            max_fps,
            mode,
            frame_rate=reader.frame_rate,
            sampling_fps=sampling_fps,
            max_rate=max_rate,
        )
        _check_clip_size(len(times), reader.size)
        return Clip(reader.frames_at(times + start), times)

    clip = until_undamaged(reader, read)
    for note in reader.notes:
        warnings.warn(note, InputWarning, stacklevel=2)
    return clip


def _check_clip_size(num_frames: int, size: tuple[int, int]) -> None:
    width, height = size
    pixels = num_frames * width * height
    if pixels > MAX_CLIP_PIXELS:
        raise ProcessingError(
            f"expected a clip of at most {MAX_CLIP_PIXELS:,} pixels over all frames, got {pixels:,} in "
            f"{num_frames} frames of "
            f"{width} x {height}; read fewer frames or a part, or let the processor read the file, piece by "
            "piece"
        )


def read_frames(path: str | Path, times: np.ndarray) -> np.ndarray:
    """(T, height, width, 3) uint8, the frames of a file on screen at (T,) ascending seconds, of whatever can
    be read.
    """
    reader = open_video(path)
    return until_undamaged(reader, lambda: reader.frames_at(times))


def check_part(start: float, end: float | None) -> None:
    """Refuses what cannot be a part of any video.

    Raises:
        ProcessingError: the start is no moment from 0 on, or the end does not lie after it.
    """
    starts_well = is_number(start) and start >= 0
    ends_well = end is None or (is_number(end, endless=True) and starts_well and end > start)
    if not (starts_well and ends_well):
        raise ProcessingError(
            "expected a part of a video, start 0 or later and end after it, in seconds, got "
            f"{start!r:.40}..{end!r:.40}"
        )


def is_number(value: object, *, endless: bool = False) -> bool:
    """Whether it is a number that can be one of seconds; what is no number, or too large for one, is not."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(value) or (endless and not math.isnan(value))
    except OverflowError:
        return False


def end_of_part(reader: VideoReader, name: str, start: float, end: float | None) -> float:
    """Second at which a part of a video ends that begins at `start`.

    Raises:
        ProcessingError: it does not begin in the video.
    """
    check_part(start, end)
    if start and not start < reader.duration:  # a video of one frame may have no duration at all
        asked_end = "its end" if end is None else f"{end:g}"
        raise ProcessingError(
            f"expected a part of {name!r} within 0..{reader.duration:g} seconds, got {start:g}..{asked_end}"
        )
    if end is None:
        return reader.duration
    return min(end, reader.duration)


def until_undamaged(reader: VideoReader, read: Callable[[], _T]) -> _T:
    """What reading gives, once a damaged reader has shortened itself to what can be read.

    Raises:
        ProcessingError: nothing can be read.
    """
    while True:
        before = reader.duration
        try:
            return read()
        except DamagedVideoError:
            if not reader.duration < before:
                raise
