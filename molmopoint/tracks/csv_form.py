"""Tracks as a table: one line per object and moment, with a header.

Moments without any object, the size and the rate of the video have no place in it. Columns beyond ours are left alone by
reading.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from molmopoint.errors import GroundingError
from molmopoint.safe_text import from_table_cell, table_cell
from molmopoint.tracks.columns import document_of, number

_COLUMNS = ("object_id", "frame", "time", "x", "y", "visible", "score", "label")
_DECIMALS = 2
"""Of places in pixels: finer than any model points."""
_NEEDED = ("object_id", "time", "x", "y")
_TRUTH = {"1": True, "0": False, "true": True, "false": False, "": True}


def write_csv(document: Mapping[str, Any]) -> str:
    """The rows of tracks in their plain form, places with two decimals; what is unknown is left empty."""
    labels = {each["object_id"]: each["label"] for each in document["objects"]}
    paper = io.StringIO()
    table = csv.writer(paper)
    table.writerow(_COLUMNS)
    for row in document["points"]:
        place = {"x": round(row["x"], _DECIMALS), "y": round(row["y"], _DECIMALS)}
        known = row | place | {"visible": int(row["visible"]), "label": labels.get(row["object_id"])}
        table.writerow([_text(known.get(name)) for name in _COLUMNS])
    return paper.getvalue()


def read_csv(text: str, fps: float | None = None, size: Any = None, label: str | None = None) -> dict[str, Any]:
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
        raise GroundingError(f"expected a table of comma-separated values, got in line {table.line_num}: {error}") from error
    if missing := [name for name in _NEEDED if name not in header]:
        raise GroundingError(f"expected a CSV header with {', '.join(_NEEDED)}, got {', '.join(header) or 'nothing'}; add {missing[0]}")
    rows, labels = [], {}
    for line, cells in lines:
        row = _row(cells, line)
        labels.setdefault(row["object_id"], from_table_cell(cells.get("label") or "") or label)
        rows.append(row)
    if any("frame" in row for row in rows) and not all("frame" in row for row in rows):
        raise GroundingError("expected the frame of every row or of none, got it of some; fill or empty the column")
    return document_of(rows, labels, fps=fps, size=size)


def _row(cells: Mapping[str, Any], line: int) -> dict[str, Any]:
    row: dict[str, Any] = {name: number(cells[name], f"line {line}, {name}", whole=name == "object_id") for name in _NEEDED}
    visible = (cells.get("visible") or "").strip().lower()
    if visible not in _TRUTH:
        raise GroundingError(f"expected 1 or 0 in line {line}, visible, got {visible!r}")
    score = (cells.get("score") or "").strip()
    frame = (cells.get("frame") or "").strip()
    row |= {"visible": _TRUTH[visible], "score": number(score, f"line {line}, score") if score else None}
    return row | ({"frame": number(frame, f"line {line}, frame", whole=True)} if frame else {})


def _text(value: Any) -> str:
    """Numbers with all their digits, texts so that no spreadsheet computes them, nothing for what is unknown."""
    if isinstance(value, str):
        return table_cell(value)
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else str(value)
