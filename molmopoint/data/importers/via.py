"""VGG Image Annotator (VIA) 2: a saved project, or its annotations exported as JSON."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import WITHOUT_PLACE, PointLists
from molmopoint.data.importers.reading import PathLike, picture_path, read_json
from molmopoint.data.importers.values import label_text, number, numbers, required, short, whole_text
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import is_file

_CHOSEN = ("dropdown", "radio", "checkbox")
"""Types of attributes that list what may be chosen."""


def read_via(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    attribute: str | None = None,
    negatives: float = NEGATIVES,
) -> Iterator[dict[str, Any]]:
    """Rows of VIA regions: middles of boxes, circles and ellipses, points, and a point inside polygons.

    Where the choices of an attribute are numbers with a description, the description is the class.

    Args:
        source: the JSON file. Projects of VIA 3 and CSV files are not read.
        journal: hears what is left out.
        images: folder of the pictures; by default that of the file, or the default path of its settings below
            it.
        attribute: name of the region attribute that holds the class; by default the only one there is.
        negatives: share of rows about absent classes, see `Collector`; the classes are the choices of the
            attribute, or those seen.

    Raises:
        ProcessingError: no such file, or several attributes and none chosen.
    """
    path = Path(source)
    document = read_json(path)
    entries = _entries(document, path.name)
    chosen = _attribute(document, entries, attribute, path.name)
    described = _choices(document, chosen)
    collector = Collector(journal, classes=described.values() if described else None, negatives=negatives)
    folders = [Path(images)] if images is not None else _folders(document, path.parent)
    collector.will_come(_files(entries, folders))
    for position, entry in enumerate(entries, start=1):
        where = f"{path.name}, picture {position}"
        try:
            lists = collector.picture(_picture(entry, folders, where))
            regions = _regions(entry, where)
        except MolmoPointError as error:
            journal.skip("pictures whose entry cannot be read", f"left out: {error}")
            continue
        if lists is None:
            continue
        for index, region in enumerate(regions, start=1):
            _add(lists, region, chosen, described, f"{where}, region {index}")
        yield from collector.rows(lists)
    yield from collector.last_rows()


def _entries(document: Any, where: str) -> list[Any]:
    """One entry per picture.

    Raises:
        ProcessingError: no such file, or one of VIA 3.
    """
    if isinstance(document, Mapping) and "project" in document and "view" in document:
        raise ProcessingError(f"expected a file of VIA 2 in {where}, got one of VIA 3; export it as COCO")
    pictures = document.get("_via_img_metadata", document) if isinstance(document, Mapping) else None
    if not isinstance(pictures, Mapping) or not any(
        isinstance(entry, Mapping) and "filename" in entry for entry in pictures.values()
    ):
        raise ProcessingError(
            f"expected pictures with a filename in {where}, got {short(document)}; check that the format is "
            "the right one"
        )
    return list(pictures.values())


def _attribute(document: Mapping[str, Any], entries: list[Any], wanted: str | None, where: str) -> str:
    """The attribute that holds the class."""
    known = dict.fromkeys(_settings(document, "_via_attributes", "region"))
    for entry in entries:
        for region in _regions_or_none(entry):
            attributes = region.get("region_attributes") if isinstance(region, Mapping) else None
            known |= dict.fromkeys(attributes if isinstance(attributes, Mapping) else {})
    if wanted in known:
        return str(wanted)
    listed = ", ".join(str(name)[:40] for name in list(known)[:20]) or "none"
    if wanted is not None or len(known) != 1:
        expected = "one region attribute" if wanted is None else f"the region attribute {short(wanted)}"
        raise ProcessingError(
            f"expected {expected} in {where}, got {listed}; choose the one of the class with the option "
            "attribute"
        )
    return next(iter(known))


def _choices(document: Mapping[str, Any], attribute: str) -> dict[str, str]:
    """Class by choice, where the attribute lists its choices."""
    settings = _settings(document, "_via_attributes", "region").get(attribute)
    if (
        not isinstance(settings, Mapping)
        or settings.get("type") not in _CHOSEN
        or not isinstance(settings.get("options"), Mapping)
    ):
        return {}
    choices = {}
    for choice, description in settings["options"].items():
        described = isinstance(description, str) and description.strip() and choice.strip().isdecimal()
        text = str(description) if described else choice
        if text.strip():
            choices[choice] = text.strip()
    return choices


def _settings(document: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """An inner object, empty if it is not there."""
    value: Any = document
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _folders(document: Mapping[str, Any], beside: Path) -> list[Path]:
    """Where pictures may lie."""
    default = _settings(document, "_via_settings", "core").get("default_filepath")
    if not isinstance(default, str) or not default.strip():
        return [beside]
    try:
        return [picture_path(beside, default.strip(), "default_filepath", beside=True), beside]
    except ProcessingError:
        return [beside]


def _files(entries: list[Any], folders: list[Path]) -> Iterator[Path]:
    """Files of all pictures that have a usable name; VIA keeps a picture for each size of a file."""
    for entry in entries:
        with contextlib.suppress(MolmoPointError):
            yield _picture(entry, folders, "")


def _picture(entry: Any, folders: list[Path], where: str) -> Path:
    name = whole_text(required(entry, "filename", where), f"{where}, filename")
    if "://" in name:
        try:
            name = unquote(urlsplit(name).path).rpartition("/")[2]
        except ValueError as error:  # such as a bracket that is not closed
            raise ProcessingError(
                f"{where}: expected the address of a picture, got {short(name)} ({error}); correct it"
            ) from error
    paths = [picture_path(folder, name, f"{where}, filename") for folder in folders]
    return next((path for path in paths if is_file(path)), paths[0])


def _regions(entry: Mapping[str, Any], where: str) -> list[Any]:
    """Regions as a list, or by number as VIA 1 writes them."""
    regions = entry.get("regions")
    if regions is None:
        return []
    if isinstance(regions, Mapping):
        return list(regions.values())
    if not isinstance(regions, list):
        raise ProcessingError(f"{where}: expected a list of regions, got {short(regions)}; export it again")
    return regions


def _regions_or_none(entry: Any) -> list[Any]:
    try:
        return _regions(entry, "") if isinstance(entry, Mapping) else []
    except ProcessingError:
        return []


def _add(lists: PointLists, region: Any, attribute: str, described: Mapping[str, str], where: str) -> None:
    labels: list[str] = []
    with lists.object(None, where):
        labels = _labels(required(region, "region_attributes", where), attribute, described, where)
    for label in labels:
        with lists.object(label, where):
            _add_shape(lists, required(region, "shape_attributes", where), label, where)


def _labels(attributes: Any, attribute: str, described: Mapping[str, str], where: str) -> list[str]:
    """Classes of a region; several where boxes were ticked."""
    value = required(attributes, attribute, where)
    if isinstance(value, Mapping):
        chosen = [choice for choice, ticked in value.items() if ticked in (True, "true", 1)]
        if not chosen:
            raise ProcessingError(f"{where}: expected a class in {attribute!r}, got none ticked; annotate it")
    else:
        chosen = [label_text(value, f"{where}, {attribute}")]
    return [label_text(described.get(choice, choice), f"{where}, {attribute}") for choice in chosen]


def _add_shape(lists: PointLists, shape: Any, label: str, where: str) -> None:
    kind = required(shape, "name", where)
    if kind == "rect":
        left, top, width, height = _values(shape, where, "x", "y", "width", "height")
        if width < 0 or height < 0:
            raise ProcessingError(
                f"{where}: expected a box x, y, width, height, got {width:g} x {height:g}; annotate it again"
            )
        lists.add_box(label, left, top, left + width, top + height)
    elif kind == "point":
        x, y = _values(shape, where, "cx", "cy")
        lists.add(label, x, y)
    elif kind == "circle":
        x, y, radius = _values(shape, where, "cx", "cy", "r")
        lists.add_ellipse(label, (x, y), (radius, radius))
    elif kind == "ellipse":
        x, y, across, down = _values(shape, where, "cx", "cy", "rx", "ry")
        angle = number(shape.get("theta") or 0, f"{where}, theta")
        lists.add_ellipse(label, (x, y), (across, down), math.degrees(math.fmod(angle, math.tau)))
    elif kind == "polygon":
        across, down = (
            numbers(required(shape, f"all_points_{axis}", where), f"{where}, {axis}") for axis in ("x", "y")
        )
        if len(across) != len(down):
            raise ProcessingError(
                f"{where}: expected as many x as y, got {len(across)} and {len(down)}; export it again"
            )
        lists.add_polygon(label, [np.stack([across, down], axis=1)])
    else:
        reason = (
            f"{where}: shapes {short(kind)} have no inside; use points, boxes, circles, ellipses or polygons"
        )
        lists.spoil(label, reason, WITHOUT_PLACE)


def _values(shape: Mapping[str, Any], where: str, *names: str) -> list[float]:
    return numbers([shape.get(name) for name in names], where, len(names)).tolist()
