"""The points that steerable questions of Point-Bench refer to, and the two ways of telling a model about them."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item
from molmopoint.eval.layouts.outlines import CACHE_FOLDER, UNREADABLE
from molmopoint.eval.layouts.parquet_rows import displayed_size
from molmopoint.files import one_spelling, open_picture, written_whole

FILE = "pixmo_metadata.csv"
_BLUE = (0, 0, 255)
_RADIUS = 0.01
"""Of the dot, as a part of the shorter side."""
_SMALLEST = 3
"""Pixels of the radius at least."""

Percent = tuple[float, float]


def existing_points(folder: Path) -> dict[str, tuple[Percent, ...]]:
    """Points in percent by the name of their picture; none without the file.

    Raises:
        EvaluationError: the file is something else.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    found: dict[str, tuple[Percent, ...]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"image_filename", "points"} <= set(reader.fieldnames or ()):
                raise ValueError(f"columns {reader.fieldnames}")
            for row in reader:
                found[one_spelling(row["image_filename"] or "")] = _points_of(row["points"])
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise EvaluationError(f"expected a table with image_filename and points in {path}, got {error}; download it again") from error
    return found


def with_text(item: Item, folder: Path) -> Item:
    """The question with two sentences of the authors' scripts behind it; as it is where the picture's size cannot be read."""
    size = displayed_size(item.images[0])
    if size is None:
        return item
    places = ", ".join(f"[{x * size[0] / 100:.1f}, {y * size[1] / 100:.1f}]" for x, y in item.truth.refers_to)
    told = f"\nThe image contains an existing original point at pixel coordinates: {places}.\nThe query refers to this existing point."
    return replace(item, prompt=item.prompt + told)


def with_dot(item: Item, folder: Path) -> Item:
    """The question about a copy of its picture with a blue dot, kept beside the data; as it is where the picture cannot be read.

    Raises:
        EvaluationError: the copy cannot be written.
    """
    from PIL import ImageDraw, ImageOps

    source = item.images[0]
    try:
        identity = f"{item.cluster}\0{source.stat().st_size}\0{item.truth.refers_to}"
        target = folder / CACHE_FOLDER / "steerable" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.png"
        if target.is_file():
            return replace(item, images=(target,))
        with open_picture(source) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except UNREADABLE:
        return item
    draw = ImageDraw.Draw(picture)
    radius = max(_SMALLEST, round(_RADIUS * min(picture.size)))
    for x, y in item.truth.refers_to:
        draw.circle((x * picture.width / 100, y * picture.height / 100), radius, fill=_BLUE)
    try:
        with written_whole(target) as beside:
            picture.save(beside, "PNG")
    except OSError as error:
        raise EvaluationError(f"expected to write {target}, got {error}; copy the data to a folder that can be written") from error
    return replace(item, images=(target,))


def _points_of(cell: str | None) -> tuple[Percent, ...]:
    """Points of a cell, [{"x": ..., "y": ...}, ...]; none where it says none.

    Raises:
        ValueError: no such list.
    """
    if not (cell or "").strip():
        return ()
    points: Any = json.loads(cell or "")
    try:
        pairs = tuple((float(point["x"]), float(point["y"])) for point in points)
    except (TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"points {str(cell)[:80]!r}") from error
    if not all(math.isfinite(number) for pair in pairs for number in pair):
        raise ValueError(f"points {str(cell)[:80]!r}")
    return pairs
