"""Small videos made for tests: frame i is grey, `GREY_STEP` * i, with a white quarter at the top left."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GREY_STEP = 7
FPS, COUNT, SIZE = 10, 35, (64, 48)
_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def picture_of(i: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    frame = np.full((size[1], size[0], 3), GREY_STEP * i, dtype=np.uint8)
    frame[: size[1] // 2, : size[0] // 2] = 255
    return frame


def write_film(
    path: Path,
    codec: str = "libx264",
    count: int = COUNT,
    *,
    size: tuple[int, int] = SIZE,
    milliseconds: Sequence[int] | None = None,
    noisy: bool = False,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video with a frame at each of some times, or `FPS` a second; the last one is shown for 100 ms. Noise
    takes more bytes.
    """
    av = pytest.importorskip("av")
    times = list(milliseconds) if milliseconds is not None else [1000 * i // FPS for i in range(count)]
    lengths = dict(zip(times, np.diff([*times, times[-1] + 100]).tolist(), strict=True))
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=1000 if milliseconds is not None else FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 20_000_000

        def mux(packets) -> None:
            for packet in packets:
                if milliseconds is not None:
                    packet.duration = round(
                        lengths[round(packet.pts * packet.time_base * 1000)] / 1000 / packet.time_base
                    )
                container.mux(packet)

        for i, time in enumerate(times):
            picture = picture_of(i, size)
            if noisy:
                picture[: size[1] // 2] = np.random.default_rng(i).integers(
                    0, 256, (size[1] // 2, size[0], 3)
                )
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = time, Fraction(1, 1000)
            mux(stream.encode(frame))
        mux(stream.encode())
    return path


def turned(film: Path, degrees: int) -> Path:
    """A copy of an MP4 that says to show it turned, clockwise, as telephones do."""
    data = bytearray(film.read_bytes())
    start = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in _TURNS[degrees])
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    copy = film.with_name(f"turned{degrees}.mp4")
    copy.write_bytes(data)
    return copy


def cut(film: Path, share: float = 0.6, *, zeros: bool = False) -> Path:
    """A copy of which only a share is left; or whose rest is zeros, as in downloads that were broken off."""
    data = film.read_bytes()
    kept = data[: int(len(data) * share)]
    copy = film.with_name(f"cut_{film.name}")
    copy.write_bytes(kept + bytes(len(data) - len(kept)) * zeros)
    return copy


def write_sound(path: Path) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def write_animation(path: Path, milliseconds: Sequence[int]) -> Path:
    pictures = [Image.fromarray(picture_of(i)) for i in range(len(milliseconds))]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=list(milliseconds), lossless=True
    )
    return path


def greys(frames: np.ndarray) -> list[int]:
    """Which frame each of these is."""
    return np.rint(frames[:, -8, -8].mean(axis=1) / GREY_STEP).astype(int).tolist()


MATRICES = {
    "upright": (1, 0, 0, 1), "left to right": (-1, 0, 0, 1), "top to bottom": (1, 0, 0, -1), "turned 180": (-1, 0, 0, -1),
    "transposed": (0, 1, 1, 0), "turned 90": (0, 1, -1, 0), "turned 270": (0, -1, 1, 0), "transposed the other way": (0, -1, -1, 0),
}  # fmt: skip
"""The eight ways to lay a frame: (a, b, c, d), a stored place (p, q) being shown at (a p + c q, b p + d q)
and moved into sight.
"""


def laid(film: Path, way: str) -> Path:
    """A copy of an MP4 that says to show it in one of the eight ways."""
    data = bytearray(film.read_bytes())
    start = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in MATRICES[way])
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    copy = film.with_name(f"{way.replace(' ', '_')}.mp4")
    copy.write_bytes(data)
    return copy


def write_stream(path: Path, codec: str, form: str, count: int = COUNT) -> Path:
    """A bare stream without a container, so without times."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_of(i), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_changing(path: Path, sizes: Sequence[tuple[int, int]], each: int = 10) -> Path:
    """A transport stream whose frames change their size."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuv420p"
        for part, size in enumerate(sizes):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, FPS), FPS
            packets = []
            for i in range(part * each, (part + 1) * each):
                frame = av.VideoFrame.from_ndarray(picture_of(i, size), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                packets += encoder.encode(frame)
            for packet in (*packets, *encoder.encode(None)):
                packet.stream = stream
                container.mux(packet)
    return path
