"""Subtitles: read from files, and written as the model was trained to see them, after the frames.

FFmpeg, by way of PyAV, reads SubRip (.srt), WebVTT (.vtt), ASS and the subtitles inside of video files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from molmopoint.errors import ProcessingError
from molmopoint.files import is_file
from molmopoint.video.containers import SUBTITLE_FORMATS, import_av, open_media, recognised
from molmopoint.video.reader import LATEST

REACH = 1.0
"""Seconds from a frame that is seen up to which subtitles are kept, as in training."""

_LARGEST_TEXT = 2**26
"""Bytes of a file of subtitles; a larger one is a video."""

_OVERRIDES = re.compile(r"\{\\[^}]*\}")
"""Styles and places of ASS, which SubRip files use too."""


class Cue(NamedTuple):
    """One subtitle.

    Attributes:
        start, end: seconds.
        text: what is said.
    """

    start: float
    end: float
    text: str


def as_cues(subtitles: str | Path | Iterable[tuple[float, float, str]]) -> list[Cue]:
    """The cues of a file, or those given, in order.

    Args:
        subtitles: a file with subtitles, or (start, end, text) in seconds.

    Raises:
        ProcessingError: the file cannot be read, is a list of other files, or has no subtitles; PyAV is not
            installed; or a cue is none.
    """
    if isinstance(subtitles, (str, Path)):
        cues = sorted(_read(Path(subtitles)))
        if not cues:
            raise ProcessingError(
                f"expected subtitles in {str(subtitles)!r}, got none; save them as .srt or .vtt in UTF-8"
            )
        return cues
    if not isinstance(subtitles, Iterable):
        raise ProcessingError(
            f"expected subtitles as a file or a list of (start, end, text), got {type(subtitles).__name__}"
        )
    return sorted(_checked(cue) for cue in subtitles)


def subtitle_text(cues: Sequence[Cue], timestamps: Sequence[float], start: float = 0.0) -> str:
    """What the model reads after the frames of a clip: the cues near a frame, a line each; nothing if there
    are none.

    Args:
        cues: with the times of the video.
        timestamps: (T,) seconds of the frames, counted from the start of the clip.
        start: second of the video at which the clip starts.

    Source: Molmo2; only cues within a second of a frame that is seen were kept in training.
    """
    lines = []
    for cue in cues:
        shifted = Cue(max(cue.start - start, 0.0), cue.end - start, cue.text)
        if shifted.end >= 0 and _is_near(shifted, timestamps):
            lines.append(f"{shifted.start:.1f} - {shifted.end:.1f} {shifted.text}\n")
    if not lines:
        return ""
    return "".join(["subtitle\n", *lines])


def _is_near(cue: Cue, timestamps: Sequence[float]) -> bool:
    """Whether a frame is seen while a cue is shown, or hardly before or after."""
    return any(cue.start - REACH <= second <= cue.end + REACH for second in timestamps)


def _read(path: Path) -> Iterator[Cue]:
    if not is_file(path):
        raise ProcessingError(
            f"expected a file with subtitles at {str(path)!r}, found none; check the path, or pass (start, "
            "end, text)"
        )
    av = import_av()
    if av is None:
        raise ProcessingError(
            'expected PyAV to read subtitles, found none; pip install "molmopoint[video]", or pass (start, end, text)'
        )
    name = repr(str(path))
    _check_encoding(path)
    try:
        with open_media(path, SUBTITLE_FORMATS) as container:
            if not container.streams.subtitles:
                raise ProcessingError(
                    f"expected subtitles in {name}, got none; pass an .srt or .vtt file, or (start, end, "
                    "text)"
                )
            stream = container.streams.subtitles[0]
            if stream.codec_context is None:
                raise ProcessingError(
                    f"expected subtitles in {name} that FFmpeg can read, got some it cannot; save them as "
                    ".srt in UTF-8"
                )
            for packet in container.demux(stream):
                if not packet.size or packet.pts is None:
                    continue
                text = _plain(packet)
                if not text:
                    continue
                start = float(packet.pts * packet.time_base)
                length = float((packet.duration or 0) * packet.time_base)
                yield _checked((start, start + length, text), f" in {name}")
    except (av.error.FFmpegError, OSError, UnicodeDecodeError, OverflowError) as error:
        raise ProcessingError(
            f"expected subtitles in {name}, got: {error}; save them as .srt or .vtt in UTF-8"
        ) from error


def _check_encoding(path: Path) -> None:
    """Refuses a file of text in another encoding than UTF-8.

    Raises:
        ProcessingError: with the line of the first byte that is wrong.
    """
    if recognised(path) is not None or path.stat().st_size > _LARGEST_TEXT:
        return
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProcessingError(
            f"expected subtitles in UTF-8 in {str(path)!r}, got the byte 0x{data[error.start]:02x} in line "
            f"{line}; save them in UTF-8"
        ) from error


def _plain(packet: Any) -> str:
    """Its words on one line; pictures of words, as on DVDs, have none."""
    parts = [part.dialogue.decode("utf-8", "replace") for part in packet.decode() if part.type == b"ass"]
    words = _OVERRIDES.sub("", " ".join(parts))
    return " ".join(words.split())


def _checked(cue: Any, where: str = "") -> Cue:
    try:
        start, end, text = cue
        start, end = _seconds(start), _seconds(end)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProcessingError(
            f"expected a subtitle as (start, end, text) in seconds, got {_shown(cue)}"
        ) from error
    if not isinstance(text, str) or not -LATEST <= start <= end <= LATEST:
        raise ProcessingError(
            f"expected a subtitle as (start, end, text) with start before end, in seconds up to {LATEST:g}, "
            f"got {_shown(cue)}{where}"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProcessingError(
            f"expected the text of a subtitle in whole characters, got {text!r:.80}; decode it again"
        ) from error
    return Cue(start, end, " ".join(text.split()))


def _seconds(value: Any) -> float:
    if isinstance(value, (bool, str, bytes)):
        raise TypeError("no number of seconds")
    return float(value)


def _shown(cue: Any) -> str:
    """What was given, short; numbers of thousands of digits cannot even be written."""
    try:
        return f"{cue!r:.80}"
    except ValueError:
        return f"a {type(cue).__name__} with a number of too many digits"
