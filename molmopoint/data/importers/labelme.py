"""LabelMe, and what AnyLabeling and X-AnyLabeling write in its format: one JSON file beside each picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN, WITHOUT_PLACE, PointLists
from molmopoint.data.importers.reading import PathLike, folder_alike, picture_path, read_json
from molmopoint.data.importers.shapes import embedded_mask
from molmopoint.data.importers.values import (
    corners,
    identity,
    label_text,
    listed,
    recorded_size,
    required,
    short,
    whole_text,
)
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file

_FOUR_CORNERS = ("oriented_rectangle", "quadrilateral", "rotation")
"""Shapes whose corners are listed; the last two are those of X-AnyLabeling."""


def read_labelme(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    negatives: float = NEGATIVES,
    ungroup: bool = False,
) -> Iterator[dict[str, Any]]:
    """Rows of LabelMe files.

    Shapes with the same label and group are one object, with one point in the largest of them.

    Args:
        source: one JSON file, or a folder with many, at any depth.
        journal: hears what is left out.
        images: folder of the pictures, where they are not where the files say.
        negatives: share of rows without points.
        ungroup: take the shapes of a group for one object each.

    Raises:
        ProcessingError: no such files.
    """
    path = Path(source)
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    collector = Collector(journal, negatives=negatives, ungroup=ungroup)
    fault: ProcessingError | None = None
    num_read = 0
    for file in files:
        try:
            image, size, shapes, flags = _document(
                file, None if images is None else folder_alike(Path(images), file, path)
            )
        except ProcessingError as error:
            fault = fault or error
            journal.skip("files", f"left out: {error}")
            continue
        num_read += 1
        lists = collector.picture(image, size)
        if lists is None:
            continue
        lists.mentioned.update(flags)
        for number, shape in enumerate(shapes, start=1):
            _add_shape(lists, shape, f"{file.name}, shape {number}")
        yield from collector.rows(lists)
    if not num_read:
        raise fault or ProcessingError(
            f"expected LabelMe files (.json) in {path}, got none; pass the folder of the annotations"
        )
    yield from collector.last_rows()


def _document(
    file: Path, images: Path | None
) -> tuple[Path, tuple[float, float] | None, list[Any], list[str]]:
    """Picture, its recorded size, the shapes of a file, and the flags that are set for the whole picture.

    Raises:
        ProcessingError: it is no LabelMe file.
    """
    document = read_json(file)
    image = _picture(file, required(document, "imagePath", file.name), images)
    size = recorded_size(document.get("imageWidth"), document.get("imageHeight"), file.name)
    flags = document.get("flags")
    said = (
        [name.strip() for name, is_set in flags.items() if is_set is True]
        if isinstance(flags, Mapping)
        else []
    )
    return image, size, listed(required(document, "shapes", file.name), f"{file.name}, shapes"), said


def _picture(file: Path, name: Any, images: Path | None) -> Path:
    """The picture of a file: where it says, be it in a folder beside its own, else of the same name beside
    it.

    Raises:
        ProcessingError: it lies elsewhere, and there is none beside the file.
    """
    where = f"{file.name}, imagePath"
    folder = file.parent if images is None else images
    bare = PurePosixPath(whole_text(name, where).replace("\\", "/")).name
    beside = picture_path(folder, bare, where)
    try:
        said = picture_path(folder, name, where, beside=images is None)
    except ProcessingError:
        if is_file(beside):
            return beside
        raise
    return beside if not is_file(said) and is_file(beside) else said


def _add_shape(lists: PointLists, shape: Any, where: str) -> None:
    """Adds a shape; a broken one spoils its label on this picture."""
    label = None
    try:
        if not isinstance(shape, Mapping):
            raise ProcessingError(
                f"{where}: expected a shape, got {short(shape)}; save the file again in LabelMe"
            )
        label = label_text(required(shape, "label", where), where)
    except ProcessingError as error:
        lists.spoil(None, str(error), BROKEN)
        return
    with lists.object(label, where):
        _add(lists, shape, label, where)


def _add(lists: PointLists, shape: Mapping[str, Any], label: str, where: str) -> None:
    kind = shape.get("shape_type") or "polygon"
    places = corners(required(shape, "points", where), where)
    group = shape.get("group_id")
    if group is not None:
        group = f"group {identity(group, where)}"  # 0 is a group as well
    if len(places) == 0:
        raise ProcessingError(f"{where}: expected points, got none; save the file again in LabelMe")
    if kind == "polygon":
        lists.add_polygon(label, [places], group=group)
    elif kind in _FOUR_CORNERS:
        _expect(places, where, kind, 4)
        lists.add_polygon(label, [places], group=group)
    elif kind == "rectangle":  # AnyLabeling writes all four corners
        _expect(places, where, kind, 2, 4)
        low, high = places.min(axis=0), places.max(axis=0)
        lists.add_box(label, *low, *high, group=group)
    elif kind == "circle":  # the middle, and a place on the edge
        _expect(places, where, kind, 2)
        radius = float(np.hypot(*(places[1] - places[0])))
        x, y = places[0].tolist()
        lists.add_ellipse(label, (x, y), (radius, radius), group=group)
    elif kind in ("point", "points"):
        for x, y in places:
            lists.add(label, x, y, group=group)
    elif kind == "mask":
        mask = embedded_mask(required(shape, "mask", where), "L", partial(_check_box, places, where))
        left, top = places.min(axis=0)
        lists.add_mask(label, mask, left, top, group=group)
    else:
        remedy = "use points, circles, boxes, polygons or masks"
        lists.spoil(label, f"{where}: shapes of type {short(kind)} have no inside; {remedy}", WITHOUT_PLACE)


def _expect(places: np.ndarray, where: str, kind: str, *counts: int) -> None:
    if len(places) not in counts:
        wanted = " or ".join(map(str, counts))
        raise ProcessingError(
            f"{where}: expected {wanted} points of a {kind}, got {len(places)}; save the file again in "
            "LabelMe"
        )


def _check_box(places: np.ndarray, where: str, width: int, height: int) -> None:
    """The two points of a mask are its first and last pixel; some tools write the one behind the last."""
    across, down = (places.max(axis=0) - places.min(axis=0) + 1).tolist()
    if abs(width - across) > 1 or abs(height - down) > 1:
        got = f"{width} x {height}"
        raise ProcessingError(
            f"{where}: expected a mask of {across:g} x {down:g} pixels, got {got}; save the file again in "
            "LabelMe"
        )
