"""The display matrix of a file of the MP4 and QuickTime family, read from its boxes.

torchcodec tells how a video is turned, but not that it is mirrored. PyAV knows; where it is not installed, the file itself is asked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MATRIX_AT = {0: 40, 1: 52}
"""Where the matrix stands in the header of a track, by the version of that header."""

_MOST_BOXES = 4096
"""Boxes that are looked at on a level; a file with more is not taken at its word."""


def read_matrix(path: str | Path) -> list[int] | None:
    """The nine numbers of the display matrix of the first video track; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        end = file.seek(0, 2)
        for kind, start, stop in _boxes(file, 0, end):
            if kind == b"moov":
                return _of_movie(file, start, stop)
    return None


def _of_movie(file: BinaryIO, start: int, stop: int) -> list[int] | None:
    for kind, track_start, track_stop in _boxes(file, start, stop):
        if kind != b"trak" or _handler(file, track_start, track_stop) != b"vide":
            continue
        for inner, header_start, header_stop in _boxes(file, track_start, track_stop):
            if inner == b"tkhd":
                return _matrix(_read(file, header_start, min(header_stop, header_start + 96)))
    return None


def _handler(file: BinaryIO, start: int, stop: int) -> bytes:
    """What a track holds: b"vide", b"soun" and others; empty where that is not said."""
    for kind, media_start, media_stop in _boxes(file, start, stop):
        if kind != b"mdia":
            continue
        for inner, body, _ in _boxes(file, media_start, media_stop):
            if inner == b"hdlr":
                return _read(file, body + 8, body + 12)
    return b""


def _matrix(header: bytes) -> list[int] | None:
    """The nine numbers in the body of a track's header."""
    at = _MATRIX_AT.get(header[0]) if header else None
    if at is None or len(header) < at + 36:
        return None
    return list(struct.unpack_from(">9i", header, at))


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and start and end of the body, of the boxes in a stretch of the file."""
    for _ in range(_MOST_BOXES):
        head = _read(file, start, start + 16)
        if start + 8 > stop or len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        body = start + 8
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
            body = start + 16
        end = stop if size == 0 else start + size
        if not body <= end <= stop:
            return
        yield kind, body, end
        start = end


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(max(stop - start, 0))
