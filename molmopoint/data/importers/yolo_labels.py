"""Label files of YOLO and Darknet: a line per object, a class number and places from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import corners, decoded_text, numbers, read_bytes
from molmopoint.data.importers.point_lists import BROKEN, PointLists, keypoint_label
from molmopoint.errors import ProcessingError

_FURTHEST = 2.0
"""A place beyond this was not divided by the size of its picture."""


@dataclass(frozen=True)
class Kinds:
    """What a number in a label file means.

    Attributes:
        classes: names by index.
        shape: keypoints of an object and numbers of each, 2 or 3; None without keypoints.
        keypoint_names: for all classes or by class, as data.yaml has them; None without.
        target: "object" or "keypoints".
        least: visibility from which on a keypoint counts, 2 seen or 1 labelled.
    """

    classes: Mapping[int, str]
    shape: tuple[int, int] | None = None
    keypoint_names: Any = None
    target: str = "object"
    least: int = 2

    @property
    def labels(self) -> list[str]:
        """Everything that may be pointed at."""
        if self.target == "object":
            return list(self.classes.values())
        return [label for index in self.classes for label in self.keypoints(index)]

    def keypoints(self, index: int) -> list[str]:
        """What the keypoints of a class are called."""
        names = self.keypoint_names
        if isinstance(names, Mapping):
            names = names.get(str(index))
        count = 0 if self.shape is None else self.shape[0]
        given = names if isinstance(names, list) else []
        named = [name if isinstance(name, str) else "" for name in given[:count]]
        named += [""] * (count - len(named))
        return [keypoint_label(name or f"keypoint {number}", self.classes[index]) for number, name in enumerate(named, start=1)]


def add_labels(lists: PointLists, file: Path, kinds: Kinds) -> None:
    """Adds the objects of a label file; broken lines spoil their label only.

    Raises:
        ProcessingError: the file is not text.
    """
    # Numbers look the same in every encoding that has the letters of ASCII in their places.
    text = decoded_text(read_bytes(file), str(file), otherwise="latin-1")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words:
            _add_line(lists, words, kinds, f"{file}, line {number}")


def _add_line(lists: PointLists, words: list[str], kinds: Kinds, where: str) -> None:
    index = None
    with lists.object(None, where):
        index = _class_index(words[0], kinds.classes, where)
    if index is None:
        return
    if kinds.target == "keypoints":
        _add_keypoints(lists, words[1:], index, kinds, where)
        return
    label = kinds.classes[index]
    with lists.object(label, where):
        places = numbers(words[1:], where)
        if len(places) and max(abs(places[:4])) > _FURTHEST:
            raise ProcessingError(f"{where}: expected places from 0 to 1, got {max(places[:4]):g}; divide them by the picture's size")
        if len(places) == 4 or (kinds.shape is not None and len(places) > 4):
            x, y, width, height = places[:4].tolist()
            lists.add_box(label, x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(places) >= 6:
            lists.add_polygon(label, [corners(places, where)])
        else:
            raise ProcessingError(f"{where}: expected 4 numbers of a box or 6 and more of a polygon, got {len(places)}; export it again")


def _class_index(word: str, classes: Mapping[int, str], where: str) -> int:
    index = float(numbers([word], where, 1)[0])
    if index not in classes:
        known = f"{min(classes)}..{max(classes)}" if classes else "none"
        raise ProcessingError(f"{where}: expected a class among {known}, got {index:g}; add its name to the list of names")
    return int(index)


def _add_keypoints(lists: PointLists, words: list[str], index: int, kinds: Kinds, where: str) -> None:
    """Keypoints that can be seen; where the set has no visibility, those that are not in the corner."""
    count, size = kinds.shape or (0, 0)
    labels = kinds.keypoints(index)
    try:
        values = numbers(words[4:], where)
        if len(values) != count * size:
            raise ProcessingError(f"{where}: expected {count} keypoints of {size} numbers behind the box, got {len(values)}; see kpt_shape")
    except ProcessingError as error:
        for label in labels:
            lists.spoil(label, str(error), BROKEN)
        return
    for label, (x, y, *more) in zip(labels, values.reshape(count, size).tolist(), strict=True):
        unmarked = 0 if (x, y) == (0, 0) else 2
        visibility = more[0] if more else unmarked
        if visibility >= kinds.least:
            lists.add(label, x, y)
        else:
            lists.hidden(label, visibility)
