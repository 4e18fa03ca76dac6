"""Tracks as MOTChallenge writes them: `frame,id,left,top,width,height,conf,class,visibility`, one line per object and frame.

Points become boxes of size zero around the same place, or of a size that is asked for; reading takes the middle of every box.
Frames and, as usual, nothing else count from 1: boxes are in pixels from the upper left corner. The class is always 1. `conf` is
the score, -1 where it is unknown. Times, labels, size and moments without objects have no place in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from molmopoint.errors import GroundingError
from molmopoint.tracks.columns import box_size, document_of, number, rate
from molmopoint.tracks.resampling import SAME_TIME

_UNKNOWN = "-1"


def write_mot(document: Mapping[str, Any], fps: float | None = None, box: Any = (0, 0)) -> str:
    """The rows of tracks in their plain form, in the order of frames and objects.

    Args:
        document: rows that know their frames, or tracks that know their rate, or:
        fps: frames per second that are to be counted; a time belongs to the frame on screen then.
        box: (width, height) in pixels of the box around each point.

    Where two rows of an object fall into one frame the first is kept: the form has no place for both.

    Raises:
        GroundingError: frames can't be numbered, or the box is none.
    """
    width, height = box_size(box)
    lines: dict[tuple[int, int], str] = {}
    for row in document["points"]:
        key = _frame(row, document["fps"], fps) + 1, row["object_id"]
        score = _UNKNOWN if row["score"] is None else repr(row["score"])
        place = f"{row['x'] - width / 2!r},{row['y'] - height / 2!r},{width!r},{height!r}"
        lines.setdefault(key, f"{key[0]},{key[1]},{place},{score},1,{int(row['visible'])}\n")
    return "".join(lines[key] for key in sorted(lines))


def read_mot(text: str, fps: float | None = None, size: Any = None, label: str | None = None) -> dict[str, Any]:
    """The plain form of what `write_mot` or another tool wrote.

    Args:
        text: lines of six or more numbers. A `conf` outside 0..1 means unknown. Of a line with nine or more numbers the ninth is the
            visibility: 0 means out of sight; -1, which the files of trackers have there, says nothing.
        fps: frames per second of the video; needed, since times are counted from it.
        size: (width, height) of the video.
        label: of all objects.

    Raises:
        GroundingError: no rate, or a line of another form; it is named.
    """
    frames_per_second = rate(fps, "to read MOTChallenge, whose lines have no times")
    rows = [_row(line, i, frames_per_second) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    return document_of(rows, {row["object_id"]: label for row in rows}, fps=fps, size=size)


def _frame(row: Mapping[str, Any], known: float | None, asked: float | None) -> int:
    """Number from 0 of the frame on screen."""
    if asked is None and "frame" in row:
        return row["frame"]
    frames_per_second = rate(known if asked is None else asked, "to number the frames")
    return math.floor((row["time"] + SAME_TIME) * frames_per_second)


def _row(line: str, number_of_line: int, fps: float) -> dict[str, Any]:
    cells = line.replace(",", " ").split()
    if len(cells) < 6:
        raise GroundingError(f"expected frame,id,left,top,width,height,... in line {number_of_line}, got {line.strip()!r:.80}")
    where = f"line {number_of_line}"
    frame, object_id = (number(cell, where, whole=True) for cell in cells[:2])
    left, top, width, height = (number(cell, where) for cell in cells[2:6])
    if frame < 1:
        raise GroundingError(f"expected frames that count from 1, got {frame} in {where}; add 1 to all")
    score = number(cells[6], where) if len(cells) > 6 else -1.0
    visible = len(cells) < 9 or number(cells[8], where) != 0
    return {
        "object_id": object_id,
        "time": (frame - 1) / fps,
        "x": left + width / 2,
        "y": top + height / 2,
        "visible": visible,
        "score": score if 0 <= score <= 1 else None,
        "frame": frame - 1,
    }
