"""Files of YOLO and Darknet data sets: which paths in their lists may be followed, and what a label file
says.

Such lists are passed on, and a path in them may lead anywhere: nothing outside of the data set is walked or
opened for it. A label file has a line per object, a class number and places from 0 to 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.importers.collector import Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN, PointLists, keypoint_label
from molmopoint.data.importers.reading import (
    PathLike,
    decoded_text,
    lies_in,
    on_disk,
    read_bytes,
    read_text,
    settled,
)
from molmopoint.data.importers.values import corners, numbers, short
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import is_file

_FURTHEST = 2.0
"""A place beyond this was not divided by the size of its picture."""


@dataclass(frozen=True)
class PathRules:
    """Where the paths of a list of pictures may begin, and which they may not leave.

    Attributes:
        beginnings: folders in which a relative path is looked for, one after the other.
        own: the folder to stay in.
        beside: whether paths may also lead to what lies beside that folder.
        without: what may be dropped from the beginning of a path that leads nowhere.
    """

    beginnings: tuple[Path, ...]
    own: Path
    beside: bool
    without: str

    @classmethod
    def of(cls, file: Path, path: Any, images: PathLike | None, without: str) -> PathRules:
        """Those of a file with its entry `path`, or of a folder that the user names."""
        if images is not None:
            return cls((Path(images),), Path(images), beside=False, without=without)
        folder = file.parent
        # The files of Ultralytics count from a folder of all data sets, so that path leads nowhere from the
        # file itself.
        named = folder / path.replace("\\", "/") if isinstance(path, str) and path.strip() else folder
        return cls((named, folder), folder, beside=True, without=without)

    def resolve(self, name: str, there: Callable[[Path], bool]) -> Path:
        """Where a path leads: to the first thing that is there, of what it may mean.

        Args:
            name: the path as it is written.
            there: whether something is at a place.

        Returns:
            What is there, or else the first place.

        Raises:
            ProcessingError: nothing is there, and the path may also mean a place elsewhere.
        """
        spelt = name.replace("\\", "/")
        found = [on_disk(beginning, spelt) for beginning in self.beginnings]
        found.append(on_disk(self.beginnings[-1], spelt.removeprefix(self.without)))
        allowed = [path for path in found if self._allows(path)]
        existing = next((path for path in allowed if there(path)), None)
        if existing is not None:
            return existing
        if len(allowed) < len(found):
            elsewhere = next(path for path in found if path not in allowed)
            raise ProcessingError(
                f"expected a path in {self.own} or beside it, got {short(name)}, which leads to {elsewhere}; "
                "if you trust it, name the folder of the data set with --images"
            )
        return found[0]

    def walkable(self, folder: Path) -> Path:
        """The folder itself, if what lies below it may be listed: a link may lead to the root of the disk, or
        above the data set.

        Raises:
            ProcessingError: it may not.
        """
        target, own = folder.resolve(), self.own.resolve()
        if target == Path(target.anchor) or (own != target and own.is_relative_to(target)):
            raise ProcessingError(
                f"expected a folder of pictures in {self.own}, got {folder}, a link to {target}; remove the "
                "link"
            )
        return folder

    def _allows(self, path: Path) -> bool:
        own = settled(self.own)
        if lies_in(own, path):
            return own != Path(own.anchor)
        # The root of the disk lies beside nothing, and what is above the folder is not walked either.
        outer = own.parent
        return (
            self.beside and outer != Path(outer.anchor) and lies_in(outer, path) and not lies_in(path, outer)
        )


def label_file(image: Path) -> Path:
    """The last folder named `images` becomes `labels`; without one, or where nothing is there, the file lies
    beside the picture.
    """
    parts = list(image.parts)
    at = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    name = f"{image.stem}.txt"
    beside = on_disk(image.parent, name)
    if not at:
        return beside
    parts[at[-1]] = "labels"
    swapped = on_disk(Path(*parts[:-1]), name)
    return beside if is_file(beside) and not is_file(swapped) else swapped


def listed_pictures(file: Path, rules: PathRules, journal: Journal) -> Iterator[Path]:
    """Pictures of a text file with one path per line; those that lead elsewhere are left out."""
    around = dataclasses.replace(rules, beginnings=(file.parent, *rules.beginnings))
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        try:
            image = around.resolve(name, _is_known)
        except MolmoPointError as error:
            journal.skip("pictures that lie elsewhere", f"{file.name}, line {number}: left out: {error}")
            continue
        yield image


def exists(path: Path) -> bool:
    """Whether anything is there; names that the system cannot even look up are not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_known(image: Path) -> bool:
    """Whether there is the picture or its label file; exports often leave the pictures out."""
    return is_file(image) or is_file(label_file(image))


@dataclass(frozen=True)
class LabelFormat:
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
        return [
            keypoint_label(name or f"keypoint {number}", self.classes[index])
            for number, name in enumerate(named, start=1)
        ]


def labelled_picture(
    collector: Collector, image: Path, labels: Path, label_format: LabelFormat
) -> Iterator[dict[str, Any]]:
    """Rows of one picture."""
    journal = collector.journal
    if not is_file(labels):
        journal.skip("pictures without a label file", f"{image}: left out, there is no label file {labels}")
        return
    lists = collector.picture(image, (1.0, 1.0), coords="norm1")
    if lists is None:
        return
    try:
        add_labels(lists, labels, label_format)
    except ProcessingError as error:
        journal.skip("pictures whose labels cannot be read", f"{image}: left out: {error}")
        return
    yield from collector.rows(lists)


def add_labels(lists: PointLists, file: Path, label_format: LabelFormat) -> None:
    """Adds the objects of a label file; broken lines spoil their label only.

    Raises:
        ProcessingError: the file is not text.
    """
    # Numbers look the same in every encoding that has the letters of ASCII in their places.
    text = decoded_text(read_bytes(file), str(file), otherwise="latin-1")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words:
            _add_line(lists, words, label_format, f"{file}, line {number}")


def _add_line(lists: PointLists, words: list[str], label_format: LabelFormat, where: str) -> None:
    index = None
    with lists.object(None, where):
        index = _class_index(words[0], label_format.classes, where)
    if index is None:
        return
    if label_format.target == "keypoints":
        _add_keypoints(lists, words[1:], index, label_format, where)
        return
    label = label_format.classes[index]
    with lists.object(label, where):
        places = numbers(words[1:], where)
        if len(places) and max(abs(places[:4])) > _FURTHEST:
            raise ProcessingError(
                f"{where}: expected places from 0 to 1, got {max(places[:4]):g}; divide them by the "
                "picture's size"
            )
        if len(places) == 4 or (label_format.shape is not None and len(places) > 4):
            x, y, width, height = places[:4].tolist()
            lists.add_box(label, x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(places) >= 6:
            lists.add_polygon(label, [corners(places, where)])
        else:
            raise ProcessingError(
                f"{where}: expected 4 numbers of a box or 6 and more of a polygon, got {len(places)}; "
                "export it again"
            )


def _class_index(word: str, classes: Mapping[int, str], where: str) -> int:
    index = float(numbers([word], where, 1)[0])
    if index not in classes:
        known = f"{min(classes)}..{max(classes)}" if classes else "none"
        raise ProcessingError(
            f"{where}: expected a class among {known}, got {index:g}; add its name to the list of names"
        )
    return int(index)


def _add_keypoints(
    lists: PointLists, words: list[str], index: int, label_format: LabelFormat, where: str
) -> None:
    """Keypoints that can be seen; where the set has no visibility, those that are not in the corner."""
    count, size = label_format.shape or (0, 0)
    labels = label_format.keypoints(index)
    try:
        values = numbers(words[4:], where)
        if len(values) != count * size:
            raise ProcessingError(
                f"{where}: expected {count} keypoints of {size} numbers behind the box, got {len(values)}; "
                "see kpt_shape"
            )
    except ProcessingError as error:
        for label in labels:
            lists.spoil(label, str(error), BROKEN)
        return
    for label, (x, y, *more) in zip(labels, values.reshape(count, size).tolist(), strict=True):
        unmarked = 0 if (x, y) == (0, 0) else 2
        visibility = more[0] if more else unmarked
        if visibility >= label_format.least:
            lists.add(label, x, y)
        else:
            lists.hidden(label, visibility)
