"""Pascal VOC: one XML file per picture, as labelImg, Roboflow and CVAT write it too."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import PointLists
from molmopoint.data.importers.reading import (
    PathLike,
    folder_alike,
    picture_called,
    picture_path,
    read_text,
    read_xml,
)
from molmopoint.data.importers.values import label_text, numbers, recorded_size
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import is_file

_NUMBER = re.compile(r"\s+-?\d+$")

_CORNER = re.compile(r"([xy])(\d{1,6})")


def read_voc(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    split: str | None = None,
    negatives: float = NEGATIVES,
) -> Iterator[dict[str, Any]]:
    """Rows of VOC files: a point inside polygons, the middle of boxes and turned boxes (`robndbox`).

    Parts of objects, such as the head of a person, are left out, and the masks of `SegmentationObject` are
    not looked at.

    Args:
        source: one XML file, or a folder with many: that of a data set, with `Annotations` and `JPEGImages`,
            or any other, at any depth.
        journal: hears what is left out.
        images: folder of the pictures; by default `JPEGImages` beside `Annotations`, else that of each file.
        split: name of a list below `ImageSets`, such as train; by default all files.
        negatives: share of rows about absent classes, see `Collector`; the classes are those seen in any
            file.

    Raises:
        ProcessingError: no such files, or no such list.
    """
    path = Path(source)
    top = _top(path)
    files = _files(path, split)
    collector = Collector(journal, negatives=negatives)
    for file in files:
        try:
            root = read_xml(file)
            if root.tag != "annotation":
                raise ProcessingError(
                    f"expected <annotation> in {file}, got <{root.tag[:80]}>; check that the format is the "
                    "right one"
                )
            folder = _usual_folder(file) if images is None else folder_alike(Path(images), file, top)
            lists = collector.picture(_picture(root, file, folder), _size(root, file.name))
        except MolmoPointError as error:
            if path == file:
                raise
            journal.skip("files that cannot be read", f"{file}: left out: {error}")
            continue
        if lists is None:
            continue
        for position, entry in enumerate(root.findall("object"), start=1):
            _add(lists, entry, f"{file.name}, object {position}", journal)
        yield from collector.rows(lists)
    yield from collector.last_rows()


def _files(path: Path, split: str | None) -> list[Path]:
    """XML files in order; of a split those that its list names."""
    if not path.is_dir():
        return [path]
    top = _top(path)
    files = sorted(top.rglob("*.xml"))
    if not files:
        raise ProcessingError(
            f"expected VOC files (.xml) in {path}, got none; pass the folder of the annotations"
        )
    if split is None:
        return files
    lists = sorted((path / "ImageSets").rglob("*.txt"))
    of_split = [file for file in lists if file.stem == split]
    if not of_split:
        known = ", ".join(sorted({file.stem for file in lists})[:20]) or "none"
        raise ProcessingError(
            f"expected the list {split!r} below {path / 'ImageSets'}, got {known}; choose one with the "
            "option split"
        )
    # The list names pictures without ending, below a folder if the annotations are.
    names = {file: {file.stem, file.relative_to(top).with_suffix("").as_posix()} for file in files}
    known = set().union(*names.values())
    listed = {_listed_name(line.strip(), known) for file in of_split for line in read_text(file).splitlines()}
    return [file for file in files if names[file] & listed]


def _top(path: Path) -> Path:
    """The folder of the annotations."""
    return path / "Annotations" if (path / "Annotations").is_dir() else path


def _listed_name(line: str, known: set[str]) -> str:
    """The name in a line: lists of a class or of parts have numbers behind it, and a name may end in one."""
    while line not in known and _NUMBER.search(line):
        line = _NUMBER.sub("", line)
    return line


def _picture(root: Element, file: Path, folder: Path) -> Path:
    """The file of the picture: as it is named, else one with the name of the XML file, which is what remains
    after renaming.
    """
    name = (root.findtext("filename") or "").strip()
    try:
        named, refusal = picture_path(folder, name, f"{file}, filename"), None
    except ProcessingError as error:
        named, refusal = None, error
    if named is not None and is_file(named):
        return named
    alike = picture_called(folder, file.stem) or named
    if alike is None:
        raise refusal or ProcessingError(f"{file}: expected a filename, got none; export it again")
    return alike


def _usual_folder(file: Path) -> Path:
    """`JPEGImages` beside the folder `Annotations`, with the same folders below; else where the file lies."""
    for above in file.parents:
        if above.name == "Annotations" and (above.parent / "JPEGImages").is_dir():
            below = above.parent / "JPEGImages" / file.parent.relative_to(above)
            return below if below.is_dir() else above.parent / "JPEGImages"
    return file.parent


def _size(root: Element, where: str) -> tuple[float, float] | None:
    return recorded_size(root.findtext("size/width"), root.findtext("size/height"), where)


def _add(lists: PointLists, entry: Element, where: str, journal: Journal) -> None:
    label = None
    with lists.object(None, where):
        label = label_text(entry.findtext("name"), f"{where}, name")
    if label is None:
        return
    if parts := entry.findall("part"):
        lists.mentioned.update((part.findtext("name") or "").strip() for part in parts)
        journal.skip(
            "parts of objects",
            f"{lists.image}, {where}: {len(parts)} parts of the object left out",
            len(parts),
        )
    with lists.object(label, where):
        polygon, turned, box = entry.find("polygon"), entry.find("robndbox"), entry.find("bndbox")
        if polygon is not None:
            lists.add_polygon(label, [_corners(polygon, where)])
        elif turned is not None:
            x, y, width, height, angle = _values(turned, where, "cx", "cy", "w", "h", "angle")
            lists.add_turned_box(label, (x, y), (width, height), math.degrees(math.fmod(angle, math.tau)))
        elif box is not None:
            left, top, right, bottom = _values(box, where, "xmin", "ymin", "xmax", "ymax")
            if right < left or bottom < top:
                raise ProcessingError(
                    f"{where}: expected xmin, ymin, xmax, ymax in order, got {left:g}, {top:g}, {right:g}, "
                    f"{bottom:g}; correct it"
                )
            lists.add_box(label, left, top, right, bottom)
        else:
            raise ProcessingError(
                f"{where}: expected a bndbox, robndbox or polygon, got none of them; annotate it with a box"
            )


def _values(entry: Element, where: str, *names: str) -> list[float]:
    return numbers([entry.findtext(name) for name in names], f"{where}, <{entry.tag}>", len(names)).tolist()


def _corners(polygon: Element, where: str) -> np.ndarray:
    """(num_corners, 2) from elements x1, y1, x2, y2 and so on."""
    found: dict[int, dict[str, str]] = {}
    for child in polygon:
        if match := _CORNER.fullmatch(child.tag):
            found.setdefault(int(match[2]), {})[match[1]] = child.text or ""
    pairs = [[corner.get("x"), corner.get("y")] for _, corner in sorted(found.items())]
    return numbers(pairs, f"{where}, <polygon>", 2 * len(pairs)).reshape(-1, 2)
