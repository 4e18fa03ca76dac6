"""One picture with a sample of rows and their points drawn in: a look at it finds what no check can.

Every cell shows the pictures of a row (up to four), a marker per point, and below what is asked. A point
outside is drawn as a cross at the edge nearest to it. PIL only, so that the sheet looks the same everywhere.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from molmopoint.data.records import FULL_SCALE, EmbeddedPicture, Record, picture_sources
from molmopoint.errors import ProcessingError
from molmopoint.files import open_picture
from molmopoint.sheets import ALARM, GREY, PAPER, Caption, draw_sheet, fitted, font_of

_CELL = (360, 300)
"""Width and height of the picture part of a cell."""

_SHOWN = 4
"""Pictures of a row that are shown."""

_GAP = 4
"""Pixels between the pictures of a cell."""

_FRAME = (226, 227, 232)
_COLOURS = ((230, 40, 100), (0, 122, 255), (18, 150, 84), (255, 128, 0), (142, 68, 222), (0, 150, 170))
_SCALE = 4
"""Markers are drawn this much larger and shrunk, because PIL draws without antialiasing."""


def contact_sheet(
    records: Sequence[Record],
    root: str | os.PathLike[str],
    *,
    cells: int = 24,
    columns: int = 4,
    seed: int = 0,
    suspects: Collection[int] = (),
) -> Image.Image:
    """Overlays of a sample of rows.

    Args:
        records: rows to draw from; those with pictures are shown, in their order.
        root: folder in which relative paths begin.
        cells: most rows shown.
        columns: cells side by side.
        seed: of the sample.
        suspects: numbers of rows, such as those with faults, that fill up to half of the cells where rows
            must be chosen.

    Returns:
        An RGB picture.

    Raises:
        ProcessingError: no row has a picture.
    """
    shown = [record for record in records if record.images]
    if not shown:
        raise ProcessingError(f"expected rows with pictures, got none in {len(records)}; clips are not drawn")
    total = len(shown)
    if total > cells:
        shown = _sample(shown, cells, suspects, random.Random(seed))
    cells_drawn = [_cell(record, Path(root)) for record in shown]
    pictures = [picture for picture, _ in cells_drawn]
    captions = [lines for _, lines in cells_drawn]
    title = f"{total} row{'s' * (total != 1)} with pictures"
    if total > len(shown):
        title = f"{len(shown)} of {total} rows with pictures"
    return draw_sheet(pictures, captions, title, columns=columns)


def _sample(
    records: Sequence[Record], cells: int, suspects: Collection[int], rng: random.Random
) -> list[Record]:
    """A part of the rows in their order, at most half of them suspects unless there are too few others."""
    suspicious = [i for i, record in enumerate(records) if record.row in suspects]
    num_suspicious = min(len(suspicious), max(1, cells // 2))
    chosen = set(rng.sample(suspicious, num_suspicious))
    others = [i for i in range(len(records)) if i not in chosen]
    chosen |= set(rng.sample(others, cells - len(chosen)))
    return [records[i] for i in sorted(chosen)]


def _cell(record: Record, root: Path) -> tuple[Image.Image, tuple[Caption, Caption]]:
    """Pictures of a row with their points, and the lines below."""
    cell = Image.new("RGB", _CELL, PAPER)
    paths = picture_sources(record, root)
    shown = min(len(paths), _SHOWN)
    across = 1 if shown == 1 else 2
    down = math.ceil(shown / across)
    width = (_CELL[0] - _GAP * (across - 1)) // across
    height = (_CELL[1] - _GAP * (down - 1)) // down
    num_outside = 0
    for i, path in enumerate(paths[:shown]):
        tile, lost = _tile(record, i, path, (width, height))
        column, row = i % across, i // across
        cell.paste(tile, (column * (width + _GAP), row * (height + _GAP)))
        num_outside += lost
    asked = " | ".join(map(_request, record.requests))
    details = f"row {record.row} · {_answer(record)}"
    if len(paths) > 1:
        details += f" · {len(paths)} pictures"
    note = f"{num_outside} outside" if num_outside else ""
    return cell, (Caption(asked, size=16), Caption(details, colour=GREY, note=note))


def _request(record: Record) -> str:
    """What the row asks, or what its points show."""
    asked = record.prompt or record.label or " / ".join(record.prompts)
    if asked:
        return asked
    labels = dict.fromkeys(point.label for point in record.points or () if point.label)
    return ", ".join(labels) or "caption"


def _answer(record: Record) -> str:
    """What the row answers, in a few words."""
    if record.turns:
        return " | ".join(map(_answer, record.turns))
    if record.no_points:
        return "nothing to point at"
    if record.points is None:
        return record.answer or record.caption or ""
    count = len(record.points)
    return f"{count} point{'s' * (count != 1)} ({record.coords})"


def _tile(
    record: Record, index: int, path: Path | EmbeddedPicture, space: tuple[int, int]
) -> tuple[Image.Image, int]:
    """One picture with its points on a frame of (width, height), and how many points lie outside."""
    frame = Image.new("RGB", space, _FRAME)
    try:
        with open_picture(path) if isinstance(path, Path) else path.open() as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # decoders raise nearly anything on broken files
        _write_reason(frame, path, error)
        return frame, 0
    factor = min(space[0] / picture.width, space[1] / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    corner = ((space[0] - size[0]) // 2, (space[1] - size[1]) // 2)
    frame.paste(picture.resize(size, Image.Resampling.LANCZOS), corner)
    return frame, _mark_points(frame, record, index, picture.size, size, corner)


def _write_reason(frame: Image.Image, path: Path | EmbeddedPicture, error: Exception) -> None:
    """Says on the frame why there is no picture."""
    reason = f"unreadable: {type(error).__name__}"
    if isinstance(path, Path) and not path.is_file():
        reason = "no such file"
    font = font_of(14)
    text = fitted(f"{path.name}: {reason}", font, frame.width - 16)
    middle = (frame.width / 2, frame.height / 2)
    ImageDraw.Draw(frame).text(middle, text, font=font, fill=ALARM, anchor="mm")


def _mark_points(
    frame: Image.Image,
    record: Record,
    index: int,
    picture_size: tuple[int, int],
    size: tuple[int, int],
    corner: tuple[int, int],
) -> int:
    """Marks the points of one picture of a row.

    Args:
        frame: drawn into.
        record: the row.
        index: of the picture in the row.
        picture_size: width and height of the picture as displayed.
        size: the same as it is drawn.
        corner: of the drawn picture in the frame.

    Returns:
        How many points lie outside of the picture.
    """
    points = []
    for request in record.requests:
        points += [(request, point) for point in request.points or () if point.image == index]
    labels = list(dict.fromkeys((request.label, point.label) for request, point in points))
    radius = _radius(frame.size, len(points))
    num_outside = 0
    for request, point in points:
        full = FULL_SCALE.get(str(request.coords), np.array(picture_size, dtype=np.float64))
        share = np.array([point.x, point.y]) / full  # of width and height
        place = np.clip(share, 0, 1) * size + corner
        if ((share < 0) | (share > 1)).any():
            num_outside += 1
            stamp = _cross(radius)
            # Wholly visible, at the edge nearest to it.
            place = np.clip(place, stamp.width / 2, np.array(frame.size) - stamp.width / 2)
        else:
            number = (
                labels.index((request.label, point.label)) if point.object_id is None else point.object_id
            )
            stamp = _marker(radius, _COLOURS[number % len(_COLOURS)])
        left, top = place - stamp.width / 2
        frame.paste(stamp, (round(left), round(top)), stamp)
    return num_outside


def _radius(space: tuple[int, int], count: int) -> float:
    """Radius of a marker in pixels: smaller in small tiles and in crowds."""
    return max(2.5, 0.019 * min(space) * min(1.0, (40 / max(count, 1)) ** 0.5))


@lru_cache(maxsize=64)
def _marker(radius: float, colour: tuple[int, int, int]) -> Image.Image:
    """A disc in a white and a dark ring: it stays visible on any ground, and its middle is the point."""
    side = round(2 * (radius + 3))
    stamp = Image.new("RGBA", (side * _SCALE, side * _SCALE), (20, 20, 24, 0))
    pen = ImageDraw.Draw(stamp)
    middle = side * _SCALE / 2
    for reach, fill in (
        (radius + 2.6, (20, 20, 24, 190)),
        (radius + 1.6, (255, 255, 255, 255)),
        (radius, (*colour, 255)),
    ):
        low, high = middle - reach * _SCALE, middle + reach * _SCALE
        pen.ellipse((low, low, high, high), fill=fill)
    return stamp.resize((side, side), Image.Resampling.LANCZOS)


@lru_cache(maxsize=8)
def _cross(radius: float) -> Image.Image:
    """A red cross in white, for a point that lies outside."""
    side = round(2 * (radius + 5))
    stamp = Image.new("RGBA", (side * _SCALE, side * _SCALE), (255, 255, 255, 0))
    pen = ImageDraw.Draw(stamp)
    low, high = 2 * _SCALE, (side - 2) * _SCALE
    for width, fill in ((5 * _SCALE, (255, 255, 255, 255)), (int(2.6 * _SCALE), (*ALARM, 255))):
        pen.line((low, low, high, high), fill=fill, width=width)
        pen.line((low, high, high, low), fill=fill, width=width)
    return stamp.resize((side, side), Image.Resampling.LANCZOS)
