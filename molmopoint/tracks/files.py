"""Tracks in files: JSON, tables of comma-separated values, MOTChallenge and COCO.

Every format is a pair of functions between the text of a file and the plain form of `document`, and an entry
of `FORMATS`. A new format is such a pair and such an entry; a long one has a module of its own, as COCO does.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from molmopoint.errors import GroundingError
from molmopoint.files import write_text_whole
from molmopoint.safe_text import from_table_cell, table_cell
from molmopoint.tracks.coco import is_coco, read_coco, write_coco
from molmopoint.tracks.columns import checked_rate
from molmopoint.tracks.document import frame_on_screen, make_document, parse_box, parse_number


def write_document(
    document: Mapping[str, Any], path: str | os.PathLike[str], name: str | None, **options: Any
) -> None:
    """Writes tracks in a format; see `Tracks.save`.

    Raises:
        GroundingError: see there.
    """
    name, track_format = _format_of(Path(path), name)
    _check_options(name, options, track_format.write_options, "writing")
    text = track_format.write(document, **options)
    write_text_whole(path, text)


def read_document(path: str | os.PathLike[str], name: str | None, **options: Any) -> dict[str, Any]:
    """Reads tracks in a format; see `Tracks.load`.

    Raises:
        GroundingError: see there.
    """
    name, track_format = _format_of(Path(path), name)
    _check_options(name, options, track_format.read_options, "reading")
    try:
        with Path(path).open(
            encoding="utf-8-sig", newline=""
        ) as file:  # line ends inside quotes are the table's own
            text = file.read()
    except (OSError, ValueError) as error:  # no file, a name that cannot be one, other encodings
        raise GroundingError(
            f"expected a text file of tracks at {os.fspath(path)!r}, got: {error}"
        ) from error
    return track_format.read(text, **options)


def _format_of(path: Path, name: str | None) -> tuple[str, TrackFormat]:
    chosen = _ENDINGS.get(path.suffix.lower()) if name is None else name
    if chosen not in FORMATS:
        asked = f"the ending {path.suffix!r}" if name is None else repr(name)
        raise GroundingError(f"expected a format out of {', '.join(FORMATS)}, got {asked}; pass format=")
    return chosen, FORMATS[chosen]


def _check_options(name: str, options: Mapping[str, Any], known: frozenset[str], doing: str) -> None:
    unknown = sorted(options.keys() - known)
    if unknown:
        allowed = f"options out of {', '.join(sorted(known))}" if known else "no options"
        raise GroundingError(f"expected {allowed} for {doing} {name!r}, got {unknown[0]}")


# ---- JSON: the plain form itself, and COCO
def _write_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False)


def _read_json(text: str) -> dict[str, Any]:
    """What `_write_json` wrote, or COCO, which is recognised."""
    document = _parse_json(text)
    return read_coco(document) if is_coco(document) else document


def _write_coco(document: Mapping[str, Any], **options: Any) -> str:
    return json.dumps(write_coco(document, **options), indent=1, allow_nan=False)


def _read_coco(text: str) -> dict[str, Any]:
    return read_coco(_parse_json(text))


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GroundingError(f"expected a JSON file of tracks, got: {error}") from error


# ---- Comma-separated values: one line per object and moment, with a header
#
# Moments without any object, the size and the rate of the video have no place in a table. Columns beyond ours
# are left alone by reading.
_CSV_COLUMNS = ("object_id", "frame", "time", "x", "y", "visible", "score", "label")
_CSV_NEEDED = ("object_id", "time", "x", "y")
_CSV_DECIMALS = 2
"""Of places in pixels: finer than any model points."""
_TRUTH = {"1": True, "0": False, "true": True, "false": False, "": True}


def write_csv(document: Mapping[str, Any]) -> str:
    """The rows of tracks in their plain form, places with two decimals; what is unknown is left empty."""
    labels = {entry["object_id"]: entry["label"] for entry in document["objects"]}
    paper = io.StringIO()
    table = csv.writer(paper)
    table.writerow(_CSV_COLUMNS)
    for row in document["points"]:
        known = dict(row)
        known["x"] = round(row["x"], _CSV_DECIMALS)
        known["y"] = round(row["y"], _CSV_DECIMALS)
        known["visible"] = int(row["visible"])
        known["label"] = labels.get(row["object_id"])
        table.writerow([_cell(known.get(name)) for name in _CSV_COLUMNS])
    return paper.getvalue()


def read_csv(
    text: str, fps: float | None = None, size: Any = None, label: str | None = None
) -> dict[str, Any]:
    """The plain form of what `write_csv` or another tool wrote.

    Args:
        text: with a header that has object_id, time, x and y at least.
        fps: frames per second of the video.
        size: (width, height) of the video.
        label: of objects that have none in the table.

    Raises:
        GroundingError: columns are missing, or a line has something that is no number; the line is named.
    """
    table = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval="")
    try:
        header = table.fieldnames = [name.strip() for name in table.fieldnames or ()]
        lines = [(table.line_num, cells) for cells in table]
    except csv.Error as error:
        raise GroundingError(
            f"expected a table of comma-separated values, got in line {table.line_num}: {error}"
        ) from error
    missing = [name for name in _CSV_NEEDED if name not in header]
    if missing:
        got = ", ".join(header) or "nothing"
        raise GroundingError(
            f"expected a CSV header with {', '.join(_CSV_NEEDED)}, got {got}; add {missing[0]}"
        )

    rows: list[dict[str, Any]] = []
    labels: dict[int, str | None] = {}
    for line, cells in lines:
        row = _row_of_cells(cells, line)
        written = from_table_cell(cells.get("label") or "")
        labels.setdefault(row["object_id"], written or label)
        rows.append(row)
    with_frame = sum("frame" in row for row in rows)
    if 0 < with_frame < len(rows):
        raise GroundingError(
            "expected the frame of every row or of none, got it of some; fill or empty the column"
        )
    return make_document(rows, labels, fps=fps, size=size)


def _row_of_cells(cells: Mapping[str, Any], line: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in _CSV_NEEDED:
        row[name] = parse_number(cells[name], f"line {line}, {name}", whole=name == "object_id")
    visible = (cells.get("visible") or "").strip().lower()
    if visible not in _TRUTH:
        raise GroundingError(f"expected 1 or 0 in line {line}, visible, got {visible!r}")
    row["visible"] = _TRUTH[visible]
    score = (cells.get("score") or "").strip()
    row["score"] = parse_number(score, f"line {line}, score") if score else None
    frame = (cells.get("frame") or "").strip()
    if frame:
        row["frame"] = parse_number(frame, f"line {line}, frame", whole=True)
    return row


def _cell(value: Any) -> str:
    """Numbers with all their digits, texts so that no spreadsheet computes them, nothing for what is unknown."""
    if isinstance(value, str):
        return table_cell(value)
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else str(value)


# ---- MOTChallenge: `frame,id,left,top,width,height,conf,class,visibility`, one line per object and frame
#
# Points become boxes of size zero around the same place, or of a size that is asked for; reading takes the
# middle of every box. Frames and, as usual, nothing else count from 1: boxes are in pixels from the upper
# left corner. The class is always 1. `conf` is the score, -1 where it is unknown. Times, labels, size and
# moments without objects have no place in it.
_UNKNOWN_SCORE = "-1"


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
    width, height = parse_box(box)
    lines: dict[tuple[int, int], str] = {}
    for row in document["points"]:
        frame = _number_of_frame(row, document["fps"], fps) + 1
        object_id = row["object_id"]
        left = row["x"] - width / 2
        top = row["y"] - height / 2
        score = _UNKNOWN_SCORE if row["score"] is None else repr(row["score"])
        visible = int(row["visible"])
        line = f"{frame},{object_id},{left!r},{top!r},{width!r},{height!r},{score},1,{visible}\n"
        lines.setdefault((frame, object_id), line)
    return "".join(lines[key] for key in sorted(lines))


def read_mot(
    text: str, fps: float | None = None, size: Any = None, label: str | None = None
) -> dict[str, Any]:
    """The plain form of what `write_mot` or another tool wrote.

    Args:
        text: lines of six or more numbers. A `conf` outside 0..1 means unknown. Of a line with nine or more
            numbers the ninth is the visibility: 0 means out of sight; -1, which the files of trackers have
            there, says nothing.
        fps: frames per second of the video; needed, since times are counted from it.
        size: (width, height) of the video.
        label: of all objects.

    Raises:
        GroundingError: no rate, or a line of another form; it is named.
    """
    frames_per_second = checked_rate(fps, "to read MOTChallenge, whose lines have no times")
    rows = []
    labels: dict[int, str | None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = _row_of_line(line, number, frames_per_second)
        rows.append(row)
        labels[row["object_id"]] = label
    return make_document(rows, labels, fps=fps, size=size)


def _number_of_frame(row: Mapping[str, Any], known_fps: float | None, asked_fps: float | None) -> int:
    """Number from 0 of the frame on screen; one that the row knows counts unless a rate is asked for."""
    if asked_fps is None and "frame" in row:
        return row["frame"]
    fps = known_fps if asked_fps is None else asked_fps
    return frame_on_screen(row["time"], checked_rate(fps, "to number the frames"))


def _row_of_line(line: str, number_of_line: int, fps: float) -> dict[str, Any]:
    where = f"line {number_of_line}"
    cells = line.replace(",", " ").split()
    if len(cells) < 6:
        raise GroundingError(
            f"expected frame,id,left,top,width,height,... in {where}, got {line.strip()!r:.80}"
        )
    frame, object_id = (parse_number(cell, where, whole=True) for cell in cells[:2])
    left, top, width, height = (parse_number(cell, where) for cell in cells[2:6])
    if frame < 1:
        raise GroundingError(f"expected frames that count from 1, got {frame} in {where}; add 1 to all")
    score = parse_number(cells[6], where) if len(cells) > 6 else -1.0
    visibility = parse_number(cells[8], where) if len(cells) > 8 else 1.0
    return {
        "object_id": object_id,
        "time": (frame - 1) / fps,
        "x": left + width / 2,
        "y": top + height / 2,
        "visible": visibility != 0,
        "score": score if 0 <= score <= 1 else None,
        "frame": frame - 1,
    }


# ---- All formats
class TrackFormat(NamedTuple):
    """How tracks are written as text and read from it, and the options that each takes."""

    write: Callable[..., str]
    read: Callable[..., dict[str, Any]]
    write_options: frozenset[str] = frozenset()
    read_options: frozenset[str] = frozenset()


_NOT_IN_FILE = frozenset({"fps", "size", "label"})
"""Options with what a format has no place for."""

FORMATS = {
    "json": TrackFormat(_write_json, _read_json),
    "csv": TrackFormat(write_csv, read_csv, read_options=_NOT_IN_FILE),
    "mot": TrackFormat(write_mot, read_mot, frozenset({"fps", "box"}), _NOT_IN_FILE),
    "coco": TrackFormat(_write_coco, _read_coco, frozenset({"box"})),
}
"""By name."""

_ENDINGS = {".json": "json", ".csv": "csv", ".txt": "mot"}
"""The format that an ending means."""
