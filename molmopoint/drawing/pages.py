"""Pictures with markers, numbers and labels drawn in, and titles above them.

Letters: n points.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence, Set
from dataclasses import replace
from numbers import Real

import numpy as np
from PIL import Image, ImageDraw

from molmopoint.drawing.colours import DARK, LIGHT, colour_of
from molmopoint.drawing.labels import MOST_LINES, Label
from molmopoint.drawing.markers import (
    Marker,
    check_style,
    largest_radius,
    marker_radius,
    size_markers,
    smallest_letters,
)
from molmopoint.drawing.placing import Placed, place_labels
from molmopoint.drawing.words import SMALLEST_FONT, check_font, font_for, in_lines, one_line
from molmopoint.errors import ProcessingError
from molmopoint.files import max_picture_pixels
from molmopoint.points import Point

_LETTERS = 0.9
"""Letters of labels, as a part of the radius of markers."""

_WIDEST = 0.45
"""Width of a label at most, as a part of the picture's width."""

_MOST_TITLE_LINES = 2

Labels = bool | Sequence[str | None]
"""Whether points are labelled with their phrases; or what each is labelled with."""


def draw_points(
    picture: Image.Image,
    points: Sequence[Point],
    *,
    numbers: bool = True,
    radius: float | None = None,
    labels: Labels = False,
    scores: bool = False,
    style: str = "marker",
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """A copy of the picture with one marker per point.

    Markers of neighbours are so small that none covers another. Numbers that do not fit into their marker,
    and words, stand beside it where they cover neither a marker nor each other; a line links those that had to
    move. What has no free place at all is left out. Equal points give equal bytes.

    Args:
        picture: the displayed picture, any mode.
        points: points of this picture, `x` and `y` in its pixels.
        numbers: write the object id into the marker, or beside it; equal ids share a colour either way.
        radius: of a marker where there is room, in pixels; by default about one fiftieth of the picture's
            mean side.
        labels: write the phrase of a point beside its marker; or what to write there, one text per point.
        scores: write the score of a point beside its marker.
        style: "marker" (a disc with the number), "dot" (small, the number beside it) or "crosshair" (whose
            middle stays open).
        font: file of a TrueType font for the words. By default Pillow's own, and for letters that it lacks a
            font of this machine.

    Returns:
        An RGB picture of the same size.

    Raises:
        ProcessingError: the radius is not positive, or larger than the picture; there is no such style or
            font; or there are more or fewer labels than points.
    """
    is_number = isinstance(radius, Real) and not isinstance(radius, bool)
    if radius is not None and not (is_number and 0 < radius <= max(picture.size)):
        raise ProcessingError(
            f"expected a radius above 0 and at most the longer side, {max(picture.size)} pixels, got {radius!r}"
        )
    check_style(style)
    check_font(font)
    phrases = phrases_of(points, labels)
    canvas = picture.convert("RGB").copy()
    if not points:
        return canvas
    size = canvas.size
    smallest = smallest_letters(size)
    largest = radius
    if largest is None:
        largest = min(marker_radius(size, len(points)), largest_radius(size))
    ids = [str(point.object_id) if numbers else "" for point in points]
    xy = np.array([point.xy for point in points])  # (n, 2)
    sized = size_markers(size, xy, ids, style, largest, smallest)
    markers, full, short = [], [], []
    for point, phrase, number, (own_radius, inside) in zip(points, phrases, ids, sized, strict=True):
        markers.append(Marker(point.x, point.y, own_radius, colour_of(point.object_id), inside, style))
        beside = "" if inside else number
        short.append(beside)
        full.append(_joined(beside, phrase, _score_of(point) if scores else ""))
    labels_and_boxes = _place(size, markers, full, short, (largest * _LETTERS, smallest), font)
    for label, box, moved in labels_and_boxes:
        if moved:
            label.paint_line(canvas, box)
    for marker in markers:
        marker.paint(canvas)
    # After all markers and lines, so that words are never below one.
    for label, box, _ in labels_and_boxes:
        label.paint(canvas, box)
    return canvas


def phrases_of(points: Sequence[Point], labels: Labels) -> list[str]:
    """What each point is labelled with, in one line; empty for nothing.

    Raises:
        ProcessingError: there are more or fewer labels than points, or they are no texts.
    """
    if isinstance(labels, bool):
        return [one_line(point.label or "") if labels else "" for point in points]
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise ProcessingError(
            f"expected labels=True, or a list with a text per point, got {type(labels).__name__}"
        )
    if len(labels) != len(points):
        raise ProcessingError(
            f"expected a label for each of {len(points)} points, got {len(labels)} labels; None labels nothing"
        )
    for label in labels:
        if label is not None and not isinstance(label, str):
            raise ProcessingError(f"expected labels as text, got {type(label).__name__}; turn it into one")
    return [one_line(label or "") for label in labels]


def enlarged(picture: Image.Image, points: Sequence[Point], scale: int) -> tuple[Image.Image, list[Point]]:
    """A picture that is a whole number of times as large, and where its points (n) are in it.

    Raises:
        ProcessingError: the number is none from 1 on, or the picture would be too large.
    """
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise ProcessingError(f"expected scale to be a whole number of 1 or more, got {scale!r}")
    if scale == 1:
        return picture, list(points)
    width, height = picture.width * scale, picture.height * scale
    if width * height > max_picture_pixels():
        raise ProcessingError(
            f"expected a drawn picture of at most {max_picture_pixels():,} pixels, got {width} x {height}; "
            "choose a smaller scale"
        )
    # Pixels stay pixels: of an icon one wants to see them.
    larger = picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
    return larger, [replace(point, x=point.x * scale, y=point.y * scale) for point in points]


def draw_title(
    picture: Image.Image, title: str, *, font: str | os.PathLike[str] | None = None
) -> Image.Image:
    """The picture below a dark strip with a title, in two lines at most; what does not fit ends in an ellipsis.

    Args:
        picture: any mode.
        title: what stands in the strip.
        font: as in `draw_points`.

    Returns:
        An RGB picture of the same width that is a little higher.

    Raises:
        ProcessingError: the font cannot be read.
    """
    check_font(font)
    text = one_line(title)
    letters = max(marker_radius(picture.size, 0) * 1.2, SMALLEST_FONT)
    written = font_for(text, letters, font)
    margin = letters * 0.5
    lines = in_lines(text, written, max(picture.width - 2 * margin, letters), _MOST_TITLE_LINES)
    _, top, _, bottom = written.getbbox("Ag" + text)
    pitch = (bottom - top) * 1.25
    strip = round(pitch * max(len(lines), 1) + margin)
    page = Image.new("RGB", (picture.width, picture.height + strip), DARK)
    page.paste(picture, (0, strip))
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text((margin, margin / 2 + pitch * number - top), line, font=written, fill=LIGHT)
    return page


def _place(
    size: tuple[int, int],
    markers: Sequence[Marker],
    full: Sequence[str],
    short: Sequence[str],
    letters: tuple[float, float],
    font: str | os.PathLike[str] | None,
) -> list[tuple[Label, np.ndarray, bool]]:
    """Labels with their boxes (4,) and whether they had to move.

    What finds no place is tried with smaller letters, then cut to half the width of the picture, and then as
    the number alone.

    Args:
        size: width and height of the picture.
        markers: of all points.
        full: text of each label; empty for none.
        short: what is left of it if there is no room.
        letters: size of the letters, and the smallest one that is readable, in pixels.
        font: as in `draw_points`.
    """
    usual, smallest = max(letters), letters[1]
    best, placed = _attempt(size, markers, full, usual, font)
    lost = _without_place(best, placed)
    if lost and usual > smallest:
        smaller, placed_smaller = _attempt(size, markers, full, smallest, font)
        if len(_without_place(smaller, placed_smaller)) < len(lost):
            best, placed = smaller, placed_smaller
            lost = _without_place(best, placed)
    if any(full[i] != short[i] for i in lost):
        best, placed = _attempt(size, markers, full, smallest, font, cut=lost)
        lost = _without_place(best, placed)
    if any(full[i] != short[i] for i in lost):
        texts = [short[i] if i in lost else text for i, text in enumerate(full)]
        best, placed = _attempt(size, markers, texts, smallest, font)
    found = np.flatnonzero(~np.isnan(placed.boxes[:, 0])).tolist()
    return [(best[i], placed.boxes[i], bool(placed.moved[i])) for i in found]


def _attempt(
    size: tuple[int, int],
    markers: Sequence[Marker],
    texts: Sequence[str],
    letters: float,
    font: str | os.PathLike[str] | None,
    cut: Set[int] = frozenset(),
) -> tuple[list[Label], Placed]:
    """Labels in letters of a size, those with the numbers `cut` in one short line, and the places that they find."""
    width = min(max(_WIDEST * size[0], 6 * letters), size[0])
    labels = []
    for number, (marker, text) in enumerate(zip(markers, texts, strict=True)):
        room, most_lines = (size[0] / 2, 1) if number in cut else (width, MOST_LINES)
        point = (marker.x, marker.y)
        labels.append(Label.of(point, marker.colour, text, letters, room, font, most_lines=most_lines))
    placed = place_labels(
        size,
        points=np.array([(marker.x, marker.y) for marker in markers]),
        reach=np.array([marker.reach for marker in markers]),
        markers=np.array([marker.box for marker in markers]),
        sizes=np.array([label.size for label in labels], dtype=np.float64),
        line=letters,
    )
    return labels, placed


def _without_place(labels: Sequence[Label], placed: Placed) -> set[int]:
    """Which labels found no place."""
    is_lost = np.isnan(placed.boxes[:, 0])
    return {i for i, label in enumerate(labels) if label.lines and is_lost[i]}


def _score_of(point: Point) -> str:
    """The score in two decimals; empty where it is not known."""
    return "" if math.isnan(point.score) else f"{point.score:.2f}"


def _joined(*parts: str) -> str:
    """The parts of a label that there are, with some space between."""
    return "  ".join(part for part in parts if part)
