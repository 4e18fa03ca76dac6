"""Pictures to a video file, with PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

from PIL import Image, ImageOps

from molmopoint.errors import ProcessingError
from molmopoint.files import written_whole
from molmopoint.video.containers import import_av, new_media

_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
"""FFmpeg's names of the formats, by the endings of files."""

_ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""In the order of preference. Hardware encoders are left out: they exist where they cannot run."""

_CONSTANT_QUALITY = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"q:v": "3"}}


def check_video_path(path: str | os.PathLike[str]) -> Path:
    """The path of a video that can be written.

    Raises:
        ProcessingError: another ending, or PyAV is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise ProcessingError(
            f"expected a video file that ends in {', '.join(_FORMATS)}, got {target.name!r}"
        )
    _av()
    return target


def write_video(frames: Iterable[Image.Image], fps: float, path: Path) -> None:
    """Writes frames at a constant rate, beside the target first, so that `path` is either the old file or the
    whole new one.

    Args:
        frames: RGB pictures of one size; an odd side gets one more row or column, which the format needs.
        fps: frames per second.
        path: of the video.

    Raises:
        ProcessingError: there are no frames, or PyAV is not installed.
        OSError: the folder cannot be written to.
    """
    with written_whole(path) as beside:
        _encode(frames, fps, beside)


def _encode(frames: Iterable[Image.Image], fps: float, path: Path) -> None:
    av = _av()
    rate = Fraction(fps).limit_denominator(1001)
    with new_media(path, _FORMATS[path.suffix.lower()]) as container:
        stream = None
        for picture in frames:
            picture = ImageOps.expand(picture, (0, 0, picture.width % 2, picture.height % 2))
            if stream is None:
                encoder = _encoder(av)
                stream = container.add_stream(encoder, rate=rate, options=_CONSTANT_QUALITY.get(encoder, {}))
                stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        if stream is None:
            raise ProcessingError("expected at least one frame to write, got none")
        container.mux(stream.encode())


def _encoder(av: ModuleType) -> str:
    """The first encoder that this PyAV has."""
    for name in _ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except (ValueError, av.error.FFmpegError):
            continue
        return name
    raise ProcessingError(
        f"expected an encoder out of {', '.join(_ENCODERS)} in PyAV, found none; install the wheel of the "
        "package index"
    )


def _av() -> ModuleType:
    if (av := import_av()) is None:
        raise ProcessingError(
            'expected PyAV to write a video, found none; install it with pip install "molmopoint[video]"'
        )
    return av
