"""Opening media files with FFmpeg so that it reads the file that was named, and nothing beside it.

FFmpeg finds the format of a file from its bytes and its name, and some formats are lists of other files or
addresses (`ffconcat`, HLS, DASH), patterns of names (`clip%d.png`), or programs. Here only formats that hold
their own content are let in, a name is always that of a file, however much it looks like an address, and a
format that is known by its first bytes is not guessed from the name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from molmopoint.errors import ProcessingError

if TYPE_CHECKING:
    from av.container import InputContainer

VIDEO_FORMATS = frozenset(
    {
        "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "live_flv", "kux", "asf", "asf_o", "ogg", "nut", "ivf", "mxf", "gxf",
        "rm",
        "wtv", "dv", "dhav", "ivr", "nsv", "pva", "smjpeg", "yuv4mpegpipe", "h261", "h263", "h264", "hevc", "vvc", "evc", "m4v", "mjpeg",
        "mpegvideo", "av1", "obu", "vc1", "vc1test", "dirac", "cavsvideo", "avs2", "avs3", "swf", "lvf", "moflex", "nuv", "rl2", "bink",
        "smk", "roq", "flic", "filmstrip", "mtv", "mv", "r3d", "xmv", "vividas", "viv", "vivo", "4xm", "ea",
    }
)  # fmt: skip
"""FFmpeg's names of the formats that may hold a video. Not among them: lists and patterns of files, devices,
filters, still pictures.
"""

SUBTITLE_FORMATS = frozenset(
    {
        "srt", "webvtt", "ass", "microdvd", "mpl2", "mpsub", "jacosub", "pjs", "realtext", "sami", "stl", "subviewer", "subviewer1",
        "vplayer", "aqtitle", "lrc", "tedcaptions", "scc", "mcc", "mov", "matroska", "webm", "avi", "mpegts", "ogg", "asf", "nut",
    }
)  # fmt: skip
"""The same for subtitles; VobSub is not among them, because it opens the file beside it."""

_HEAD = 4096
"""Bytes from which a format is recognised."""

_BY_FIRST_BYTES = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"DKIF", "ivf"),
)

_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot"})
"""How files of the MP4 and QuickTime family may begin, behind the length of the first box."""

_LISTS = (b"ffconcat", b"#EXTM3U", b"<MPD", b"<SmoothStreaming", b"[playlist]", b"[Reference]")
"""Words by which a list of other files is known."""

_PACKET = 188
"""Bytes of a packet of a transport stream; with a time stamp before each there are four more."""


def import_av() -> ModuleType | None:
    """PyAV, or None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


def recognised(path: str | Path) -> str | None:
    """FFmpeg's name of the format of a file, where its first bytes leave no doubt; else None.

    Raises:
        OSError: the file cannot be read.
    """
    head = _head_of(path)
    if is_list(head):
        return None
    for first, name in _BY_FIRST_BYTES:
        if head.startswith(first):
            return name
    if head[4:8] in _BOXES and head[:1] == b"\0":
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    for stamp in (0, 4):
        starts = range(stamp, len(head) - _PACKET, _PACKET + stamp)
        if len(starts) > 1 and all(head[start : start + 1] == b"\x47" for start in starts):
            return "mpegts"
    return None


def is_list(head: bytes) -> bool:
    """Whether the beginning of a file is that of a list of other files."""
    return any(word in head for word in _LISTS)


@contextlib.contextmanager
def open_media(path: str | Path, formats: frozenset[str] = VIDEO_FORMATS) -> Iterator[InputContainer]:
    """A media file, open for reading by PyAV.

    Args:
        path: of the file.
        formats: FFmpeg's names of those that are let in.

    Raises:
        ProcessingError: the file is of none of these formats.
        FFmpegError: it is damaged.
        OSError: it cannot be read.
    """
    av = import_av()
    assert av is not None, "callers ask first"
    name = recognised(path)
    name = name if name in formats else None
    limits = {"format_whitelist": ",".join(sorted(formats)), "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", format=name, container_options=limits, metadata_errors="replace")
    except (av.error.ArgumentError, av.error.InvalidDataError) as error:
        if name is None:
            raise ProcessingError(not_media(path)) from error
        raise
    with container:
        yield container


@contextlib.contextmanager
def new_media(path: str | Path, form: str) -> Iterator[Any]:
    """A media file, open for writing by PyAV: an `OutputContainer`, whose streams are of many types.

    Args:
        path: of the file, whatever it looks like.
        form: FFmpeg's name of the format ("mp4", "matroska", "avi", "mov").
    """
    av = import_av()
    assert av is not None, "callers ask first"
    with av.open(f"file:{path}", "w", format=form) as container:
        yield container


def not_media(path: str | Path) -> str:
    """The message for a file that is of no format that is let in."""
    name = repr(str(path))
    if is_list(_head_of(path)):
        return f"expected a video in {name}, got a list of other files or addresses, which are not opened; pass one of the files itself"
    return f"expected a video in {name}, got a file of no video format that is known; check which file it is, or export it as MP4"


def _head_of(path: str | Path) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_HEAD)
