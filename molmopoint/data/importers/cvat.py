"""CVAT: the XML of "CVAT for images 1.1", and tracks of "CVAT for video 1.1", of tasks, jobs and projects.

A file numbers the frames of tracks as the clip does, whatever part of the clip and whichever frames of it a
task shows.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.placement import Placement, Size
from molmopoint.data.importers.point_lists import (
    BROKEN,
    HIDDEN,
    KEYPOINTS,
    OUTSIDE,
    WITHOUT_PLACE,
    PointLists,
    keypoint_label,
)
from molmopoint.data.importers.reading import PathLike, picture_path, read_xml
from molmopoint.data.importers.shapes import decoded_runs
from molmopoint.data.importers.values import (
    corners,
    label_text,
    number,
    numbers,
    one_of,
    recorded_size,
    short,
)
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
    """Rows of a CVAT file; tracks become one row per label, with a point per frame in which an object is
    seen.

    Shapes with the same label and group are one object, with one point in the largest of them.

    Args:
        source: annotations.xml, or the folder with it.
        journal: hears what is left out.
        images: folder of the pictures; by default `images` beside the file, where CVAT puts them. Of tracks
            the folder of the clip, by default that of the file.
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
        raise ProcessingError(
            f"expected <annotations> in {path.name}, got <{root.tag[:80]}>; export as 'CVAT for images 1.1'"
        )
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
        for position, shape in enumerate(image, start=1):
            _add(lists, shape, f"{where}, shape {position}", keypoints)
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
        name, parent, kind = ((entry.findtext(tag) or "").strip() for tag in ("name", "parent", "type"))
        if name and kind not in _NO_OBJECTS:
            classes.append(keypoint_label(name, parent) if parent else name)
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
            self._stems[folder] = {
                file.stem: file for file in files if file.suffix.lower() in PICTURE_SUFFIXES
            }
        return self._stems[folder].get(place.name)


_CUBOID = (
    "xtl1", "ytl1", "xbl1", "ybl1", "xtr1", "ytr1", "xbr1", "ybr1",
    "xtl2", "ytl2", "xbl2", "ybl2", "xtr2", "ytr2", "xbr2", "ybr2",
)  # fmt: skip
"""Attributes of the eight corners, x before y."""


def add_shape(lists: PointLists, shape: Element, label: str, where: str, group: Any = None) -> None:
    """Puts the place of a shape into the lists of its picture; of points, each is an object.

    Raises:
        ProcessingError: its attributes are not those of its kind.
    """
    where = f"{where}, <{shape.tag}>"
    if shape.tag == "box":
        _add_box(lists, shape, label, where, group)
    elif shape.tag == "ellipse":
        x, y, across, down = _attributes(shape, where, "cx", "cy", "rx", "ry").tolist()
        lists.add_ellipse(label, (x, y), (across, down), _angle(shape, where), group=group)
    elif shape.tag == "polygon":
        lists.add_polygon(label, [_places(shape, where)], group=group)
    elif shape.tag == "points":
        for x, y in _places(shape, where):
            lists.add(label, x, y, group=group)
    elif shape.tag == "cuboid":
        places = _attributes(shape, where, *_CUBOID).reshape(-1, 2)
        lists.add_polygon(label, [_silhouette(places, where)], group=group)
    elif shape.tag == "mask":
        left, top, width, height = _attributes(shape, where, "left", "top", "width", "height").tolist()
        written = (shape.get("rle") or "").split(",")
        runs = numbers([run for run in written if run.strip()], f"{where}, rle")
        lists.add_mask(label, decoded_runs(runs, width, height), left, top, group=group)
    else:
        reason = f"{where} has no inside; use points, boxes, ellipses, polygons, cuboids, masks or skeletons"
        lists.spoil(label, reason, WITHOUT_PLACE)


def add_skeleton(lists: PointLists, shape: Element, label: str, where: str, keypoints: str) -> None:
    """Puts the elements of a skeleton into the lists, each under a label such as "left eye of the person".

    An element that is outside is not there. One that is occluded cannot be seen; it counts only as
    `labelled`.
    """
    lists.unsure.add(label)
    for element in shape:
        if element.tag == "attribute":
            continue
        name = None
        with lists.object(None, where):
            name = keypoint_label(
                label_text(element.get("label"), f"{where}, an element of the skeleton"), label
            )
        if name is None:
            continue
        hidden = element.get("occluded") == "1" and keypoints == "visible"
        if element.get("outside") == "1" or hidden:
            lists.hidden(name, 1 if hidden else 0)
            continue
        with lists.object(name, where):
            add_shape(lists, element, name, where)


def _add_box(lists: PointLists, shape: Element, label: str, where: str, group: Any) -> None:
    left, top, right, bottom = _attributes(shape, where, "xtl", "ytl", "xbr", "ybr").tolist()
    angle = _angle(shape, where)
    if not angle or left == right or top == bottom:
        lists.add_box(label, left, top, right, bottom, group=group)
        return
    # Turned boxes are written as they were before, and turn about their middle.
    middle = ((left + right) / 2, (top + bottom) / 2)
    lists.add_turned_box(label, middle, (abs(right - left), abs(bottom - top)), angle, group=group)


def _angle(shape: Element, where: str) -> float:
    """Degrees, clockwise."""
    return number(shape.get("rotation") or 0, f"{where}, rotation")


def _attributes(shape: Element, where: str, *names: str) -> np.ndarray:
    return numbers([shape.get(name) for name in names], where, len(names))


def _places(shape: Element, where: str) -> np.ndarray:
    """(n, 2) from "x,y;x,y"."""
    values: list[str] = []
    for pair in (shape.get("points") or "").split(";"):
        values += pair.split(",")
    return corners(values, where)


def _silhouette(places: np.ndarray, where: str) -> np.ndarray:
    """(n, 2) outline of the corners (8, 2) of a cuboid."""
    try:
        return places[ConvexHull(places).vertices]
    except QhullError as error:
        raise ProcessingError(
            f"{where}: expected a cuboid with an area, got corners on one line; correct or drop it"
        ) from error


@dataclass
class _Clip:
    """A clip and what is tracked in it.

    Attributes:
        file: of the clip.
        size: width and height of its frames; None if the file does not say.
        objects: their tracks, by label and group, or by the number of the track.
        unsure: a track without a label was left out.
        begins: the first frame that a task shows.
    """

    file: Path
    size: Size | None
    objects: dict[tuple[str, str], list[Element]] = field(default_factory=dict)
    unsure: bool = False
    begins: float = math.inf


@dataclass(frozen=True)
class TrackOptions:
    """How tracks are read.

    Attributes:
        fps: frames per second of the clips.
        keypoints: of skeletons, "visible" or also those that are "labelled" and occluded.
        ungroup: take the tracks of a group for one object each.
    """

    fps: float | None
    keypoints: str
    ungroup: bool


def track_rows(
    root: Element, folder: Path, name: str, options: TrackOptions, collector: Collector
) -> Iterator[dict[str, Any]]:
    """One row per clip and label.

    Args:
        root: <annotations>.
        folder: of the clips.
        name: of the file, for messages.
        options: how tracks are read.
        collector: of the import.

    Raises:
        ProcessingError: no rate, or no clip.
    """
    fps, journal = options.fps, collector.journal
    clips = _clips(root, folder, name, journal)
    if fps is None or not (math.isfinite(fps) and fps > 0):
        raise ProcessingError(
            f"expected the option fps, frames per second of the clip of {name}, got {fps}; CVAT does not "
            "write it"
        )
    for count, track in enumerate(root.findall("track")):
        where = f"{name}, track {track.get('id') or count}"
        clip = _clip_of(track, clips)
        if clip is None:
            journal.skip("tracks without a clip", f"{where}: left out, its task has no <source>")
            collector.leave_out([track.get("label") or ""])
            continue
        try:
            label = label_text(track.get("label"), f"{where}, label")
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            clip.unsure = True
            continue
        group = track.get("group_id") or "0"
        key = f"group {group} of task {track.get('task_id')}"
        if group == "0" or options.ungroup:
            key = f"track {count}"
        clip.objects.setdefault((label, key), []).append(track)
    names = Counter(str(clip.file) for clip in clips.values())
    if len(names) > 1:
        journal.note(f"clips, all of them read at {fps:g} frames per second", count=len(names))
    for file, count in names.items():
        if count > 1:
            journal.note(
                "tasks whose clips have the same name, and are taken for one clip", file, count=count
            )
    for clip in {id(clip): clip for clip in clips.values()}.values():
        yield from _clip_rows(clip, name, fps, options.keypoints, collector)


def _clip_of(track: Element, clips: dict[str, _Clip]) -> _Clip | None:
    """The clip of the task of a track, or the only one there is."""
    clip = clips.get(track.get("task_id") or "")
    if clip is None and len(clips) == 1:
        [clip] = clips.values()
    return clip


def _clips(root: Element, folder: Path, name: str, journal: Journal) -> dict[str, _Clip]:
    """Clips by the number of their task; that of a file with one task is nothing. Tasks may share a clip.

    Raises:
        ProcessingError: no task has a clip.
    """
    tasks = (
        root.findall("meta/project/tasks/task")
        or root.findall("meta/task")
        or root.findall("meta/job")
        or root.findall("meta")
    )
    clips: dict[str, _Clip] = {}
    known: dict[tuple[Path, Size | None], _Clip] = {}
    for task in tasks:
        source = (task.findtext("source") or "").strip()
        if not source:
            continue
        try:
            file = picture_path(folder, source, f"{name}, <source>")
            if (subset := (task.findtext("subset") or "").strip()) and not is_file(file):
                inner = picture_path(folder, f"{subset}/{source}", f"{name}, <source>")
                file = inner if is_file(inner) else file
            size = recorded_size(
                task.findtext("original_size/width"),
                task.findtext("original_size/height"),
                f"{name}, <original_size>",
            )
        except ProcessingError as error:
            journal.skip("clips", f"left out: {error}")
            continue
        task_id = (task.findtext("id") or "").strip() if len(tasks) > 1 else ""
        clip = known.setdefault((file, size), _Clip(file, size))
        clip.begins = min(clip.begins, _whole_number((task.findtext("start_frame") or "").strip()) or 0)
        clips[task_id] = clip
    if not clips:
        raise ProcessingError(
            f"expected the name of a clip as <source> in {name}, got none; export a task with a video, or "
            "as 'CVAT for images 1.1'"
        )
    return clips


def _clip_rows(
    clip: _Clip, name: str, fps: float, keypoints: str, collector: Collector
) -> Iterator[dict[str, Any]]:
    """One row per label of a clip that is complete."""
    journal = collector.journal
    points: dict[str, list[dict[str, Any]]] = {}
    spoilt: dict[str, str] = {}
    unsure: set[str] = set()
    nameless = 0
    numbers = _Numbers()
    for (label, _), tracks in clip.objects.items():
        object_id = numbers.take(tracks[0])
        if len(tracks) > 1:
            journal.note(
                "tracks that belong to one object with others of their group (--ungroup keeps them apart)",
                count=len(tracks),
            )
        reader = _ObjectReader(clip, f"{name}, track {object_id}", keypoints)
        for frame, shapes in _by_frame(tracks, reader.where, label, spoilt):
            for found, place in reader.places(label, frame, shapes):
                points.setdefault(found, []).append({**place, "t": frame / fps, "object_id": object_id})
        for found, reason in reader.spoilt.items():
            spoilt.setdefault(found, reason)
        unsure |= reader.unsure
        nameless += reader.nameless
        reader.tell(journal)
    for label, reason in spoilt.items():
        journal.skip(WITHOUT_PLACE, f"{clip.file}, label {short(label)}: left out: {reason}")
    complete = [label for label in points if label not in spoilt]
    if clip.begins > 0:
        journal.note(
            "clips whose task shows a later part only: cut them, or what is seen before counts as overlooked",
            str(clip.file),
        )
    collector.clip(
        clip.file, complete, {*spoilt, *unsure}, unsure=clip.unsure or nameless > 0 or clip.begins > 0
    )
    for label, found in points.items():
        if label not in spoilt:
            coords = "pixel" if clip.size is None else "percent"
            yield {
                "video": str(clip.file),
                "label": label,
                "style": "track",
                "points": found,
                "coords": coords,
            }


class _ObjectReader:
    """Reads the shapes of one object, frame by frame.

    Attributes:
        where: file and track, for messages.
        spoilt: labels that are not complete, and why.
        unsure: labels of which something was left out.
        nameless: frames in which elements without a label were left out.
    """

    def __init__(self, clip: _Clip, where: str, keypoints: str) -> None:
        self.where = where
        self.spoilt: dict[str, str] = {}
        self.unsure: set[str] = set()
        self.nameless = 0
        self._clip = clip
        self._keypoints = keypoints
        self._heard = Journal()  # of every frame; it is told once

    def places(self, label: str, frame: int, shapes: list[Element]) -> Iterator[tuple[str, dict[str, float]]]:
        """Label and place of the object, or of each of its keypoints; of several shapes in the largest."""
        lists = PointLists(str(self._clip.file), self._heard, placement=Placement(self._clip.size))
        where = f"{self.where}, frame {frame}"
        for shape in shapes:
            with lists.object(label, where):
                if shape.tag == "skeleton":
                    add_skeleton(lists, shape, label, where, self._keypoints)
                else:
                    add_shape(lists, shape, label, where, "joined" if len(shapes) > 1 else None)
        self.nameless += lists.all_unsure
        self.spoilt = lists.spoilt | self.spoilt
        self.unsure |= lists.unsure
        for row in lists.rows():
            if len(row["points"]) > 1:
                self.spoilt.setdefault(
                    row["label"],
                    f"{where}: points that are not one place; use single points, boxes, polygons or masks",
                )
            for point in row["points"]:
                yield row["label"], _scaled(point, self._clip.size)

    def tell(self, journal: Journal) -> None:
        """Says what happened in all the frames."""
        if hidden := self._heard.notes[HIDDEN]:
            journal.note(HIDDEN, count=hidden)
        if outside := self._heard.left_out[OUTSIDE]:
            journal.note("frames in which an object lies outside of the picture", count=outside)
        if self.nameless:
            journal.skip(
                BROKEN, f"{self.where}: elements of a skeleton without a label left out", count=self.nameless
            )


def _by_frame(
    tracks: list[Element], where: str, label: str, spoilt: dict[str, str]
) -> Iterator[tuple[int, list[Element]]]:
    """The shapes of an object in each frame in which it is seen; a part of it has one shape in a frame."""
    frames: dict[int, list[Element]] = {}
    for track in tracks:
        seen: set[int] = set()
        for shape in track:
            if shape.tag == "attribute" or shape.get("outside") == "1":
                continue
            try:
                frame = number(shape.get("frame"), f"{where}, frame")
                if frame < 0 or frame % 1:
                    raise ProcessingError(
                        f"{where}: expected the number of a frame, got {frame:g}; export it again"
                    )
            except ProcessingError as error:
                spoilt.setdefault(label, str(error))
                continue
            if frame not in seen:
                seen.add(int(frame))
                frames.setdefault(int(frame), []).append(shape)
    yield from sorted(frames.items())


def _scaled(point: dict[str, float], size: Size | None) -> dict[str, float]:
    """In percent of the recorded size where there is one: right for a copy of the clip of any size."""
    return point if size is None else {"x": 100 * point["x"] / size[0], "y": 100 * point["y"] / size[1]}


class _Numbers:
    """Numbers of objects: those of their tracks, as far as no two have the same."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._free = 0

    def take(self, track: Element) -> int:
        """The number of a track if it has one of its own, else the lowest that is free."""
        own = _whole_number(track.get("id") or "")
        if own is None or own in self._used:
            while self._free in self._used:
                self._free += 1
            own = self._free
        self._used.add(own)
        return own


def _whole_number(text: str) -> int | None:
    """The number in a text of up to nine digits; None for all else."""
    is_number = text.isdecimal() and text.isascii() and len(text) < 10
    return int(text) if is_number else None
