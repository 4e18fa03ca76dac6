"""Datumaro JSON: a file per subset in `annotations`, as Datumaro, CVAT and Geti export it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN, KEYPOINTS, PointLists, keypoint_label
from molmopoint.data.importers.reading import PathLike, picture_called, picture_path, read_json
from molmopoint.data.importers.shapes import decode_counts
from molmopoint.data.importers.values import (
    corners,
    label_text,
    listed,
    number,
    numbers,
    objects,
    one_of,
    recorded_size,
    required,
    short,
)
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import is_file

CROWDS = ("skip", "object")

_TAGS = ("label", "caption", "hash_key", "feature_vector", "tabular")
"""Annotations of a whole picture."""

_OUTLINES = ("polygon", "mask")


@dataclass(frozen=True)
class _Choices:
    """Options of the import.

    Attributes:
        least: visibility from which on a keypoint counts, 2 seen or 1 labelled.
        crowd: one of `CROWDS`.
    """

    least: int
    crowd: str


@dataclass(frozen=True)
class _Names:
    """What numbers in the file mean.

    Attributes:
        labels: by their place in the list.
        parents: by their place in the list; nothing for labels without one.
        keypoints: names of the keypoints of a label, by its number.
    """

    labels: list[str]
    parents: list[str]
    keypoints: Mapping[int, list[str]]

    @property
    def classes(self) -> list[str]:
        """What may be said to be absent: where a cup is, the tableware is not, and the elements of skeletons
        are keypoints.
        """
        above = set(self.parents)
        skeletons = {self.labels[number] for number in self.keypoints if number < len(self.labels)}
        classes = [
            label
            for label, parent in zip(self.labels, self.parents, strict=True)
            if label not in above and parent not in skeletons
        ]
        for label_id in self.keypoints:
            classes += self.keypoint_labels(label_id)
        return classes

    def keypoint_labels(self, number: int) -> list[str]:
        """What the keypoints of a label are called."""
        return [
            keypoint_label(name, self.labels[number])
            for name in self.keypoints.get(number, [])
            if number < len(self.labels)
        ]

    def label(self, number: Any, where: str) -> str:
        """The label of a number.

        Raises:
            ProcessingError: there is none of this number.
        """
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self.labels):
            raise ProcessingError(
                f"{where}: expected a label_id among 0..{len(self.labels) - 1}, got {short(number)}; export "
                "it again"
            )
        return self.labels[number]


def read_datumaro(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    crowd: str = "skip",
    keypoints: str = "visible",
    negatives: float = NEGATIVES,
    ungroup: bool = False,
) -> Iterator[dict[str, Any]]:
    """Rows of Datumaro files: a point inside polygons and masks, middles of boxes and ellipses, points and
    keypoints.

    Where a group has the outline of an object and its box, the box is passed over.

    Args:
        source: a JSON file, or the folder with `annotations`.
        journal: hears what is left out.
        images: folder of the pictures; by default `images` beside `annotations`. They are looked for in the
            folder of the subset first, which has the name of the JSON file.
        crowd: what the attribute `is_crowd` means: "skip" for many members under one mask, "object" for
            single objects.
        keypoints: "visible" takes those of visibility 2; "labelled" also those of visibility 1, which are
            hidden.
        negatives: share of rows about absent classes, see `Collector`.
        ungroup: take the shapes of a group for one object each.

    Raises:
        ProcessingError: no such file, or an option that is none.
    """
    path = Path(source)
    least = 1 if one_of(keypoints, KEYPOINTS, "keypoints") == "labelled" else 2
    choices = _Choices(least, one_of(crowd, CROWDS, "crowd"))
    folder = path / "annotations" if (path / "annotations").is_dir() else path
    files = sorted(folder.glob("*.json")) if folder.is_dir() else [path]
    if not files:
        raise ProcessingError(
            f"expected Datumaro files (.json) in {folder}, got none; pass the folder with annotations"
        )
    documents = [(file, _document(file)) for file in files]
    names = [_names(document, file.name) for file, document in documents]
    classes = dict.fromkeys(label for each in names for label in each.classes)
    collector = Collector(journal, classes=classes, negatives=negatives, ungroup=ungroup)
    tops = [_top(file) if images is None else Path(images) for file in files]
    pictures: list[Path] = []
    for (file, document), top in zip(documents, tops, strict=True):
        pictures += _files(document, top, file.stem)
    collector.will_come(pictures)
    for (file, document), of_file, top in zip(documents, names, tops, strict=True):
        for position, item in enumerate(objects(document["items"], f"{file.name}, items"), start=1):
            where = f"{file.name}, item {position}"
            annotations: list[Any] = []
            lists = None
            try:
                annotations = listed(item.get("annotations"), f"{where}, annotations")
                lists = _lists(collector, item, top, file.stem, where)
            except MolmoPointError as error:
                journal.skip("items that cannot be read", f"left out: {error}")
            if lists is None:
                collector.leave_out(_shown(annotations, of_file))
                continue
            _add_all(lists, annotations, of_file, choices, where, journal)
            yield from collector.rows(lists)
    yield from collector.last_rows()


def _document(file: Path) -> Mapping[str, Any]:
    document = read_json(file)
    for name in ("categories", "items"):
        required(document, name, file.name)
    return document


def _names(document: Mapping[str, Any], where: str) -> _Names:
    """Labels and keypoints of a file.

    Raises:
        ProcessingError: its categories cannot be read, without which no number means anything.
    """
    categories = document["categories"]
    entries = objects(required(required(categories, "label", where), "labels", where), f"{where}, labels")
    labels = [label_text(required(entry, "name", where), f"{where}, labels") for entry in entries]
    parents = [str(entry.get("parent") or "")[:200] for entry in entries]
    keypoints = {}
    points = categories.get("points")
    items = points.get("items", []) if isinstance(points, Mapping) else []
    for entry in objects(items, f"{where}, points"):
        number = entry.get("label_id")
        if isinstance(number, int) and number >= 0:
            names = listed(entry.get("labels"), f"{where}, points")
            keypoints[number] = [label_text(name, f"{where}, points") for name in names]
    return _Names(labels, parents, keypoints)


def _lists(
    collector: Collector, item: Mapping[str, Any], top: Path, subset: str, where: str
) -> PointLists | None:
    """The lists of a picture; None if it is left out."""
    size = (_media(item, where) or {}).get("size")
    height, width = (None, None) if size is None else numbers(size, f"{where}, size", 2).tolist()
    return collector.picture(_file(item, top, subset, where), recorded_size(width, height, where))


def _top(file: Path) -> Path:
    """The folder of the pictures, as Datumaro lays it."""
    return (file.parent.parent if file.parent.name == "annotations" else file.parent) / "images"


def _media(item: Mapping[str, Any], where: str) -> Mapping[str, Any] | None:
    media = item.get("image", item.get("media"))
    if media is not None and not isinstance(media, Mapping):
        raise ProcessingError(
            f"{where}: expected a picture, got {short(media)}; check that the format is the right one"
        )
    return media


def _files(document: Mapping[str, Any], top: Path, subset: str) -> Iterator[Path]:
    """Files of all items whose picture can be read."""
    for item in document["items"] if isinstance(document["items"], list) else []:
        with contextlib.suppress(ProcessingError):
            if isinstance(item, Mapping):
                yield _file(item, top, subset, "")


def _file(item: Mapping[str, Any], top: Path, subset: str, where: str) -> Path:
    """The picture of an item; in the folder of its subset, or without one."""
    media = _media(item, where)
    name = (media or {}).get("path")
    if not name:  # exported without pictures: the id is the name without its ending
        name = f"{label_text(required(item, 'id', where), f'{where}, id')}.jpg"
        for folder in (top / subset, top):
            path = picture_path(folder, name, where)
            if (found := picture_called(path.parent, path.stem)) is not None:
                return found
    below, beside = picture_path(top / subset, name, where), picture_path(top, name, where)
    for path in (below, beside):
        if is_file(path):
            return path
    return below if (top / subset).is_dir() else beside


def _shown(annotations: list[Any], names: _Names) -> list[str]:
    """Labels of the annotations of a picture that is left out."""
    shown = []
    for entry in annotations:
        with contextlib.suppress(ProcessingError):
            shown.append(names.label(required(entry, "label_id", ""), ""))
    return shown


def _add_all(
    lists: PointLists, annotations: list[Any], names: _Names, choices: _Choices, item: str, journal: Journal
) -> None:
    outlined = {
        _group(entry)
        for entry in annotations
        if isinstance(entry, Mapping) and entry.get("type") in _OUTLINES
    }
    outlined.discard(None)
    for position, entry in enumerate(annotations, start=1):
        where = f"{item}, annotation {position}"
        label = None
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if kind in _TAGS:
            journal.note("annotations of whole pictures left out")
            with contextlib.suppress(ProcessingError):
                lists.mentioned.add(names.label(entry.get("label_id"), where))
            continue
        if kind == "bbox" and _group(entry) in outlined:
            continue
        with lists.object(None, where):
            label = names.label(required(entry, "label_id", where), where)
        if label is None:
            continue
        lists.unsure.update(names.keypoint_labels(entry["label_id"]))  # marked or not, it has them
        attributes = entry.get("attributes")
        if (
            isinstance(attributes, Mapping)
            and attributes.get("is_crowd") in (True, 1)
            and choices.crowd == "skip"
        ):
            lists.spoil(
                label,
                f"{where}: its attribute is_crowd means many under one mask; --crowd object takes it as one",
                "crowds",
            )
            continue
        with lists.object(label, where):
            _add(lists, entry, label, names, choices, where)


def _group(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Label and number of the group; 0 is none."""
    group = entry.get("group")
    return (short(entry.get("label_id")), short(group)) if group not in (None, 0) else None


def _add(
    lists: PointLists, entry: Mapping[str, Any], label: str, names: _Names, choices: _Choices, where: str
) -> None:
    kind = entry.get("type")
    _, group = _group(entry) or (None, None)
    if kind == "bbox":
        left, top, width, height = numbers(required(entry, "bbox", where), f"{where}, bbox", 4).tolist()
        _add_box(lists, label, (left, top, left + width, top + height), _rotation(entry, where), group, where)
    elif kind == "ellipse":
        left, top, right, bottom = numbers(required(entry, "points", where), f"{where}, points", 4).tolist()
        middle = ((left + right) / 2, (top + bottom) / 2)
        lists.add_ellipse(
            label,
            middle,
            (abs(right - left) / 2, abs(bottom - top) / 2),
            _rotation(entry, where),
            group=group,
        )
    elif kind == "polygon":
        lists.add_polygon(label, [corners(required(entry, "points", where), where)], group=group)
    elif kind == "mask":
        rle = required(entry, "rle", where)
        height, width = numbers(required(rle, "size", where), f"{where}, size", 2).tolist()
        lists.add_mask(
            label, decode_counts(required(rle, "counts", where), height, width), whole=True, group=group
        )
    elif kind == "points":
        _add_points(lists, entry, label, names, choices, where)
    elif kind == "skeleton":
        lists.unsure.add(label)
        for part in objects(required(entry, "elements", where), f"{where}, elements"):
            element = names.label(required(part, "label_id", where), where)
            lists.unsure.add(element)  # as a class of its own
            _add_visible(lists, part, [keypoint_label(element, label)], choices, where)
    else:
        lists.spoil(
            label,
            f"{where}: annotations of type {short(kind)} have no inside; use points, boxes, ellipses, "
            "polygons or masks",
        )


def _rotation(entry: Mapping[str, Any], where: str) -> float:
    """Degrees, clockwise, by which a shape is turned about its middle."""
    attributes = entry.get("attributes")
    return (
        number(attributes.get("rotation") or 0, f"{where}, rotation")
        if isinstance(attributes, Mapping)
        else 0.0
    )


def _add_box(
    lists: PointLists,
    label: str,
    box: tuple[float, float, float, float],
    angle: float,
    group: str | None,
    where: str,
) -> None:
    left, top, right, bottom = box
    if right < left or bottom < top:
        raise ProcessingError(
            f"{where}: expected a box with its corners in order, got {short(list(box))}; export it again"
        )
    if angle:
        lists.add_turned_box(
            label, ((left + right) / 2, (top + bottom) / 2), (right - left, bottom - top), angle, group=group
        )
    else:
        lists.add_box(label, left, top, right, bottom, group=group)


def _add_points(
    lists: PointLists, entry: Mapping[str, Any], label: str, names: _Names, choices: _Choices, where: str
) -> None:
    """Keypoints where the file names those of the label, else one object per point."""
    count = len(corners(required(entry, "points", where), where))
    of_label = names.keypoints.get(entry["label_id"], [])
    labels = names.keypoint_labels(entry["label_id"]) if len(of_label) == count else [label] * count
    lists.unsure.add(label)
    _add_visible(lists, entry, labels, choices, where)


def _add_visible(
    lists: PointLists, entry: Mapping[str, Any], labels: list[str], choices: _Choices, where: str
) -> None:
    """Points with their visibility: 0 absent, 1 hidden, 2 seen, which they are without."""
    places = corners(required(entry, "points", where), where)
    seen = numbers(entry.get("visibility") or [2] * len(labels), f"{where}, visibility", len(labels))
    if len(places) != len(labels):
        for label in labels:
            lists.spoil(
                label, f"{where}: expected {len(labels)} points, got {len(places)}; export it again", BROKEN
            )
        return
    for label, (x, y), visibility in zip(labels, places.tolist(), seen.tolist(), strict=True):
        if visibility >= choices.least:
            lists.add(label, x, y)
        else:
            lists.hidden(label, visibility)
