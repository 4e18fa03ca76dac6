"""CVAT: the XML of "CVAT for images 1.1", and tracks of "CVAT for video 1.1", of tasks, jobs and projects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from molmopoint.data.importers.collecting import NEGATIVES, Collector
from molmopoint.data.importers.common import (
    PathLike,
    label_text,
    one_of,
    picture_path,
    read_xml,
    recorded_size,
)
from molmopoint.data.importers.cvat_shapes import add_shape, add_skeleton
from molmopoint.data.importers.cvat_tracks import TrackOptions, track_rows
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN, KEYPOINTS, PointLists, keypoint_label
from molmopoint.errors import ProcessingError
from molmopoint.files import PICTURE_SUFFIXES, is_file

_NO_OBJECTS = ("polyline", "skeleton", "tag")
"""Types of labels that no row points at; of skeletons the elements are."""


def read_cvat(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    fps: float | None = None,
    keypoints: str = "visible",
    negatives: float = NEGATIVES,
    ungroup: bool = False,
) -> Iterator[dict[str, Any]]:
    """Rows of a CVAT file; tracks become one row per label, with a point per frame in which an object is seen.

    Shapes with the same label and group are one object, with one point in the largest of them.

    Args:
        source: annotations.xml, or the folder with it.
        journal: hears what is left out.
        images: folder of the pictures; by default `images` beside the file, where CVAT puts them. Of tracks the
            folder of the clip, by default that of the file.
        fps: frames per second of the clip, required for tracks: CVAT counts frames and writes no times.
        keypoints: of skeletons, "visible" or also those that are "labelled" and occluded.
        negatives: share of rows without points.
        ungroup: take the shapes of a group for one object each.

    Raises:
        ProcessingError: no such file, or tracks without `fps`.
    """
    one_of(keypoints, KEYPOINTS, "keypoints")
    path = Path(source)
    path = path / "annotations.xml" if path.is_dir() else path
    root = read_xml(path)
    if root.tag != "annotations":
        raise ProcessingError(f"expected <annotations> in {path.name}, got <{root.tag[:80]}>; export as 'CVAT for images 1.1'")
    collector = Collector(journal, classes=_classes(root), negatives=negatives, ungroup=ungroup)
    if root.find("track") is not None:
        clips = path.parent if images is None else Path(images)
        yield from track_rows(root, clips, path.name, TrackOptions(fps, keypoints, ungroup), collector)
    pictures = _Pictures(path.parent / "images" if images is None else Path(images))
    collector.will_come(pictures.files(root))
    for count, image in enumerate(root.iter("image"), start=1):
        where = f"{path.name}, image {image.get('name') or count!r}"
        try:
            file = pictures.file(image, where)
            lists = collector.picture(file, recorded_size(image.get("width"), image.get("height"), where))
        except ProcessingError as error:
            journal.skip("pictures", f"left out: {error}")
            lists = None
        if lists is None:
            collector.leave_out(_shown(image))
            continue
        for number, shape in enumerate(image, start=1):
            _add(lists, shape, f"{where}, shape {number}", keypoints)
        yield from collector.rows(lists)
    yield from collector.last_rows()


def _add(lists: PointLists, shape: Element, where: str, keypoints: str) -> None:
    """Adds a shape; a broken one spoils its label on this picture."""
    if shape.tag == "tag":  # of the whole picture
        lists.mentioned.add((shape.get("label") or "").strip())
        return
    try:
        label = label_text(shape.get("label"), f"{where}, label")
    except ProcessingError as error:
        lists.spoil(None, str(error), BROKEN)
        return
    with lists.object(label, where):
        if shape.tag == "skeleton":
            add_skeleton(lists, shape, label, where, keypoints)
        else:
            add_shape(lists, shape, label, where, shape.get("group_id"))


def _shown(image: Element) -> Iterator[str]:
    """Labels of the shapes of a picture."""
    for shape in image:
        label = shape.get("label") or ""
        yield label
        if shape.tag == "skeleton":
            yield from (keypoint_label(element.get("label") or "", label) for element in shape)


def _classes(root: Element) -> list[str] | None:
    """Classes that may be said to be absent; None if the file lists none."""
    listed = root.findall("meta//labels/label")
    classes = []
    for entry in listed:
        name, parent = (entry.findtext(tag) or "" for tag in ("name", "parent"))
        if name.strip() and (entry.findtext("type") or "").strip() not in _NO_OBJECTS:
            classes.append(keypoint_label(name.strip(), parent.strip()) if parent.strip() else name.strip())
    return classes if listed else None


class _Pictures:
    """Finds the files of pictures.

    Args:
        folder: of the pictures; those of a project lie in folders of their subsets below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stems: dict[Path, dict[str, Path]] = {}

    def files(self, root: Element) -> Iterator[Path]:
        """The files of all pictures that have a usable name."""
        for image in root.iter("image"):
            with contextlib.suppress(ProcessingError):
                yield self.file(image, "")

    def file(self, image: Element, where: str) -> Path:
        """The file of a picture; where there is none, the one that its name means.

        Raises:
            ProcessingError: the picture has no name, or one that leads out of the folder.
        """
        named = picture_path(self._folder, image.get("name"), where)
        places = [named]
        if (subset := (image.get("subset") or "").strip()) and subset != named.parent.name:
            places.insert(0, picture_path(self._folder, f"{subset}/{image.get('name')}", where))
        for place in places:
            if is_file(place):
                return place
        # Frames of a video have names without an ending, their files have one.
        if named.suffix.lower() not in PICTURE_SUFFIXES:
            for place in places:
                if (found := self._of_stem(place)) is not None:
                    return found
        return named

    def _of_stem(self, place: Path) -> Path | None:
        """A picture beside `place` whose name is that of `place` and an ending."""
        folder = place.parent
        if folder not in self._stems:
            try:
                files = sorted(folder.iterdir(), reverse=True)
            except OSError:  # no such folder, or none that may be looked into
                files = []
            self._stems[folder] = {file.stem: file for file in files if file.suffix.lower() in PICTURE_SUFFIXES}
        return self._stems[folder].get(place.name)
