"""COCO: objects with boxes, masks (polygons or run lengths) and keypoints, in one JSON file."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN, KEYPOINTS, PointLists, keypoint_label
from molmopoint.data.importers.reading import PathLike, picture_path, read_json
from molmopoint.data.importers.shapes import decode_counts
from molmopoint.data.importers.values import (
    corners,
    identity,
    label_text,
    listed,
    numbers,
    objects,
    one_of,
    recorded_size,
    required,
    short,
)
from molmopoint.errors import MolmoPointError, ProcessingError

TARGETS = ("object", "box", "keypoints")
CROWDS = ("skip", "object")


@dataclass(frozen=True)
class _Category:
    """A class of the file.

    Attributes:
        name: what it is called.
        keypoints: names of its keypoints, in their order.
    """

    name: str
    keypoints: tuple[str, ...]


@dataclass(frozen=True)
class _Choices:
    """Options of the import."""

    target: str
    crowd: str
    keypoints: str


def read_coco(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    target: str = "object",
    crowd: str = "skip",
    keypoints: str = "visible",
    negatives: float = NEGATIVES,
) -> Iterator[dict[str, Any]]:
    """Rows of a COCO file.

    Of LVIS, whose pictures list the classes that were looked for in vain, only those count as absent, and
    classes that were not marked exhaustively on a picture are left out there.

    Args:
        source: the JSON file.
        journal: hears what is left out.
        images: folder of the pictures; by default that of the file.
        target: "object" points inside the mask, or at the middle of the box where there is no mask; "box"
            always at the middle of the box; "keypoints" at every keypoint, "left eye of the person".
        crowd: what `iscrowd` = 1 means: "skip" for many members under one mask, which makes the list of the
            class incomplete; "object" for the files of brush tools, which write it with every run-length
            mask.
        keypoints: "visible" takes those of visibility 2; "labelled" also those of visibility 1, which are
            hidden.
        negatives: share of rows about absent classes, see `Collector`.

    Raises:
        ProcessingError: no COCO file, or an option that is none.
    """
    path = Path(source)
    choices = _Choices(
        target=one_of(target, TARGETS, "target"),
        crowd=one_of(crowd, CROWDS, "crowd"),
        keypoints=one_of(keypoints, KEYPOINTS, "keypoints"),
    )
    data = read_json(path)
    by_image = _annotations_by_image(required(data, "annotations", path.name), journal, path.name)
    pictures = objects(required(data, "images", path.name), f"{path.name}, images")
    categories, classes = _categories(required(data, "categories", path.name), choices, journal, path.name)
    collector = Collector(journal, classes=classes, negatives=negatives)
    folder = path.parent if images is None else Path(images)
    collector.will_come(_files(pictures, folder))
    known: set[str | int] = set()
    for position, entry in enumerate(pictures, start=1):
        where = f"{path.name}, picture {position}"
        annotations: list[Mapping[str, Any]] = []
        try:
            image_id = identity(required(entry, "id", where), where)
            if image_id in known:
                raise ProcessingError(
                    f"{where}: expected an id of its own, got {image_id!r} a second time; number the "
                    "pictures anew"
                )
            known.add(image_id)
            annotations = by_image.pop(image_id, [])
            lists = _lists(collector, entry, folder, categories, where)
        except MolmoPointError as error:
            journal.skip("pictures whose entry cannot be read", f"left out: {error}")
            lists = None
        if lists is None:
            collector.leave_out(_shown(annotations, categories, choices))
            continue
        for annotation in annotations:
            _add(lists, annotation, categories, choices)
        for label in _named(entry.get("not_exhaustive_category_ids"), categories):
            lists.spoil(
                label,
                "the file says that not all of them are marked",
                "classes not marked exhaustively on a picture",
            )
        yield from collector.rows(lists)
    for image_id, lost in by_image.items():
        journal.skip(
            "annotations",
            f"{path.name}: {len(lost)} annotations left out, there is no picture {image_id!r}",
            len(lost),
        )
    yield from collector.last_rows()


def _files(pictures: list[Mapping[str, Any]], folder: Path) -> Iterator[Path]:
    """Files of the pictures, as far as they have a name; those without are told of one by one."""
    for entry in pictures:
        with contextlib.suppress(ProcessingError):
            yield picture_path(folder, entry.get("file_name"), "")


def _annotations_by_image(
    value: Any, journal: Journal, name: str
) -> dict[str | int, list[Mapping[str, Any]]]:
    """Annotations of each picture id."""
    by_image: dict[str | int, list[Mapping[str, Any]]] = defaultdict(list)
    for position, annotation in enumerate(listed(value, f"{name}, annotations"), start=1):
        where = f"{name}, annotation {position}"
        try:
            by_image[identity(required(annotation, "image_id", where), where)].append(annotation)
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
    return by_image


def _categories(
    value: Any, choices: _Choices, journal: Journal, name: str
) -> tuple[dict[str | int, _Category], list[str]]:
    """Categories by id, and what may be said to be absent.

    Names that other categories have as their supercategory are no such class: where a cup is, the tableware
    is not absent.
    """
    categories: dict[str | int, _Category] = {}
    parents = set()
    for position, entry in enumerate(objects(value, f"{name}, categories"), start=1):
        where = f"{name}, category {position}"
        try:
            label = label_text(required(entry, "name", where), where)
            points = tuple(label_text(point, where) for point in listed(entry.get("keypoints"), where))
            categories[identity(required(entry, "id", where), where)] = _Category(label, points)
        except ProcessingError as error:
            journal.skip("categories", f"left out: {error}")
            continue
        if entry.get("supercategory") != label:
            parents.add(str(entry.get("supercategory"))[:200])
    classes = [category for category in categories.values() if category.name not in parents]
    return categories, [label for category in classes for label in _labels(category, choices)]


def _lists(
    collector: Collector,
    entry: Mapping[str, Any],
    folder: Path,
    categories: Mapping[str | int, _Category],
    where: str,
) -> PointLists | None:
    """The lists of a picture; None if it is left out."""
    image = picture_path(folder, required(entry, "file_name", where), where)
    size = recorded_size(entry.get("width"), entry.get("height"), where)
    only = _named(entry["neg_category_ids"], categories) if "neg_category_ids" in entry else None
    return collector.picture(image, size, only_absent=only)


def _named(ids: Any, categories: Mapping[str | int, _Category]) -> list[str]:
    """Names of the categories of a list of ids, as far as there are any."""
    found = (
        [categories.get(entry) for entry in ids if isinstance(entry, str | int)]
        if isinstance(ids, list)
        else []
    )
    return [category.name for category in found if category is not None]


def _shown(
    annotations: list[Mapping[str, Any]], categories: Mapping[str | int, _Category], choices: _Choices
) -> list[str]:
    """Labels of the annotations of a picture that is left out."""
    labels: list[str] = []
    for category_id in (entry.get("category_id") for entry in annotations):
        if isinstance(category_id, int | str) and category_id in categories:
            labels += _labels(categories[category_id], choices)
    return labels


def _add(
    lists: PointLists,
    annotation: Mapping[str, Any],
    categories: Mapping[str | int, _Category],
    choices: _Choices,
) -> None:
    """Adds an annotation; a broken one spoils its label on this picture."""
    where = f"annotation {short(annotation.get('id'))}"
    category = None
    with lists.object(None, where):
        category_id = identity(required(annotation, "category_id", where), where)
        category = categories.get(category_id)
        if category is None:
            raise ProcessingError(
                f"{where}: expected a listed category, got id {category_id!r}; add it to 'categories'"
            )
    if category is None:
        return
    labels = _labels(category, choices)
    if annotation.get("iscrowd") not in (None, 0, False) and choices.crowd == "skip":
        reason = "iscrowd is 1, which means many under one mask; if a brush tool wrote it for single objects, use --crowd object"
        for label in labels:
            lists.spoil(label, f"{where}: {reason}", "crowds")
    elif choices.target == "keypoints":
        _add_keypoints(lists, annotation, category, choices, where)
    else:
        with lists.object(category.name, where):
            _add_object(lists, annotation, category.name, choices.target, where)


def _add_object(
    lists: PointLists, annotation: Mapping[str, Any], label: str, target: str, where: str
) -> None:
    """The place of an object in its mask, else in its box."""
    segmentation = annotation.get("segmentation")
    if segmentation and target == "object":
        if isinstance(segmentation, Mapping):
            height, width = numbers(required(segmentation, "size", where), f"{where}, size", 2).tolist()
            lists.add_mask(
                label, decode_counts(required(segmentation, "counts", where), height, width), whole=True
            )
            return
        parts = listed(segmentation, f"{where}, segmentation")
        if not isinstance(parts[0], list):  # one part without the list around it, as some tools write
            parts = [parts]
        lists.add_polygon(label, [corners(part, where) for part in parts])
        return
    left, top, width, height = numbers(required(annotation, "bbox", where), f"{where}, bbox", 4).tolist()
    if width < 0 or height < 0:
        raise ProcessingError(
            f"{where}: expected a box x, y, width, height, got {annotation['bbox']}; export it again"
        )
    lists.add_box(label, left, top, left + width, top + height)


def _labels(category: _Category, choices: _Choices) -> list[str]:
    """What may be pointed at of an object."""
    return _keypoint_labels(category) if choices.target == "keypoints" else [category.name]


def _keypoint_labels(category: _Category) -> list[str]:
    return [keypoint_label(point, category.name) for point in category.keypoints]


def _add_keypoints(
    lists: PointLists, annotation: Mapping[str, Any], category: _Category, choices: _Choices, where: str
) -> None:
    """Keypoints of an object; visibility 0 is not labelled, 1 is labelled but hidden, 2 can be seen."""
    labels = _keypoint_labels(category)
    try:
        values = numbers(annotation.get("keypoints") or [], f"{where}, keypoints")
        if len(values) not in (0, 3 * len(labels)):
            raise ProcessingError(
                f"{where}: expected {len(labels)} keypoints of 3 numbers, got {len(values)} numbers; export "
                "it again"
            )
    except ProcessingError as error:
        for label in labels:
            lists.spoil(label, str(error), BROKEN)
        return
    if not len(values):  # a person of whom nobody marked the eyes has eyes
        lists.unsure.update(labels)
    least = 1 if choices.keypoints == "labelled" else 2
    for label, (x, y, visibility) in zip(labels, values.reshape(-1, 3).tolist(), strict=False):
        if visibility >= least:
            lists.add(label, x, y)
        else:
            lists.hidden(label, visibility)
