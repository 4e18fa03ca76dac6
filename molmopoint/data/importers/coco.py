"""COCO: objects with boxes, masks (polygons or run lengths) and keypoints, in one JSON file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.data.importers.common import OnSkip, PathLike, PointLists, corners, numbers, objects, read_json, required
from molmopoint.errors import ProcessingError

TARGETS = ("object", "box", "keypoints")


def read_coco(source: PathLike, on_skip: OnSkip, images: PathLike | None = None, target: str = "object") -> Iterator[dict[str, Any]]:
    """Rows of a COCO file.

    Args:
        source: the JSON file.
        on_skip: hears what is left out.
        images: folder of the pictures; by default that of the file.
        target: "object" points inside the mask, or at the middle of the box where there is no mask; "box" always at the
            middle of the box; "keypoints" at every visible keypoint, "left eye of the person".

    Raises:
        ProcessingError: no COCO file, or an annotation that does not fit it.
    """
    path = Path(source)
    if target not in TARGETS:
        raise ProcessingError(f"expected the option target among {', '.join(TARGETS)}, got {target!r}; choose one")
    data = read_json(path)
    categories = {required(entry, "id", "a category"): entry for entry in objects(required(data, "categories", path.name), "categories")}
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in objects(required(data, "annotations", path.name), "annotations"):
        by_image[required(annotation, "image_id", f"annotation {annotation.get('id')}")].append(annotation)
    folder = path.parent if images is None else Path(images)
    for entry in objects(required(data, "images", path.name), "images"):
        lists = PointLists(str(folder / required(entry, "file_name", f"picture {entry.get('id')}")), "pixel", on_skip)
        for annotation in by_image.pop(required(entry, "id", "a picture"), []):
            where = f"annotation {annotation.get('id')}"
            category = categories.get(required(annotation, "category_id", where))
            if category is None:
                raise ProcessingError(f"{where}: expected a listed category, got id {annotation['category_id']}; add it to 'categories'")
            _add(lists, annotation, category, target, where)
        yield from lists.rows()
    for image_id, lost in by_image.items():
        on_skip(f"{path.name}: {len(lost)} annotations left out, there is no picture {image_id!r}")


def decode_counts(counts: str | bytes | Sequence[int], height: int, width: int) -> np.ndarray:
    """(height, width) bool mask from COCO run lengths, compressed text or plain numbers.

    Runs go down the columns and begin with the outside.

    Raises:
        ProcessingError: the runs do not fill the mask.
    """
    runs = _compressed_runs(counts) if isinstance(counts, str | bytes) else [int(count) for count in counts]
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ProcessingError(f"expected runs over {height} x {width} pixels, got {sum(runs)} pixels; export the mask again")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _add(lists: PointLists, annotation: Mapping[str, Any], category: Mapping[str, Any], target: str, where: str) -> None:
    name = str(required(category, "name", "a category"))
    if target == "keypoints":
        _add_keypoints(lists, annotation, category, where)
        return
    if annotation.get("iscrowd"):
        lists.spoil(name, "a crowd, whose members are not marked one by one")
        return
    segmentation = annotation.get("segmentation")
    if segmentation and target == "object":
        if isinstance(segmentation, Mapping):
            height, width = (int(side) for side in numbers(required(segmentation, "size", where), where, 2))
            lists.add_mask(name, decode_counts(required(segmentation, "counts", where), height, width))
        else:
            lists.add_polygon(name, [corners(part, where) for part in segmentation])
        return
    x, y, width, height = numbers(required(annotation, "bbox", where), where, 4)
    lists.add(name, x + width / 2, y + height / 2)


def _add_keypoints(lists: PointLists, annotation: Mapping[str, Any], category: Mapping[str, Any], where: str) -> None:
    """Keypoints that can be seen; visibility 0 is not labelled, 1 is labelled but hidden."""
    names = category.get("keypoints") or []
    values = numbers(annotation.get("keypoints") or [], where)
    if len(values) != 3 * len(names) and len(values):
        raise ProcessingError(f"{where}: expected {len(names)} keypoints of 3 numbers, got {len(values)} numbers; export it again")
    for name, (x, y, visibility) in zip(names, values.reshape(-1, 3), strict=False):
        if visibility == 2:
            lists.add(f"{str(name).replace('_', ' ')} of the {category['name']}", x, y)


def _compressed_runs(text: str | bytes) -> list[int]:
    """Run lengths from COCO's text.

    Each is groups of 5 bits, the lowest first, with sign; from the fourth on it is the difference to the run two before.
    """
    characters = text.encode("ascii", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for character in characters:
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
