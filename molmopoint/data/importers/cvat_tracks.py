"""Tracks of CVAT: objects that are followed through clips.

A file numbers frames as the clip does, whatever part of the clip and whichever frames of it a task shows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from molmopoint.data.importers.collecting import Collector
from molmopoint.data.importers.common import label_text, number, picture_path, recorded_size, short
from molmopoint.data.importers.cvat_shapes import add_shape, add_skeleton
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.placement import Placement, Size
from molmopoint.data.importers.point_lists import BROKEN, HIDDEN, OUTSIDE, WITHOUT_PLACE, PointLists
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file


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


def track_rows(root: Element, folder: Path, name: str, options: TrackOptions, collector: Collector) -> Iterator[dict[str, Any]]:
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
        raise ProcessingError(f"expected the option fps, frames per second of the clip of {name}, got {fps}; CVAT does not write it")
    for count, track in enumerate(root.findall("track")):
        where = f"{name}, track {track.get('id') or count}"
        clip = clips.get(track.get("task_id") or "") or (next(iter(clips.values())) if len(clips) == 1 else None)
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
        own = f"track {count}" if group == "0" or options.ungroup else f"group {group} of task {track.get('task_id')}"
        clip.objects.setdefault((label, own), []).append(track)
    names = Counter(str(clip.file) for clip in clips.values())
    if len(names) > 1:
        journal.note(f"clips, all of them read at {fps:g} frames per second", count=len(names))
    for file, count in names.items():
        if count > 1:
            journal.note("tasks whose clips have the same name, and are taken for one clip", file, count=count)
    for clip in {id(clip): clip for clip in clips.values()}.values():
        yield from _clip_rows(clip, name, fps, options.keypoints, collector)


def _clips(root: Element, folder: Path, name: str, journal: Journal) -> dict[str, _Clip]:
    """Clips by the number of their task; that of a file with one task is nothing. Tasks may share a clip.

    Raises:
        ProcessingError: no task has a clip.
    """
    tasks = root.findall("meta/project/tasks/task") or root.findall("meta/task") or root.findall("meta/job") or root.findall("meta")
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
        number = (task.findtext("id") or "").strip() if len(tasks) > 1 else ""
        clips[number] = clip = known.setdefault((file, size), _Clip(file, size))
        first = (task.findtext("start_frame") or "").strip()
        clip.begins = min(clip.begins, int(first) if first.isdecimal() and first.isascii() and len(first) < 10 else 0)
    if not clips:
        raise ProcessingError(
            f"expected the name of a clip as <source> in {name}, got none; export a task with a video, or as 'CVAT for images 1.1'"
        )
    return clips


def _clip_rows(clip: _Clip, name: str, fps: float, keypoints: str, collector: Collector) -> Iterator[dict[str, Any]]:
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
        journal.note("clips whose task shows a later part only: cut them, or what is seen before counts as overlooked", str(clip.file))
    collector.clip(clip.file, complete, {*spoilt, *unsure}, unsure=clip.unsure or nameless > 0 or clip.begins > 0)
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
            journal.skip(BROKEN, f"{self.where}: elements of a skeleton without a label left out", count=self.nameless)


def _by_frame(tracks: list[Element], where: str, label: str, spoilt: dict[str, str]) -> Iterator[tuple[int, list[Element]]]:
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
                    raise ProcessingError(f"{where}: expected the number of a frame, got {frame:g}; export it again")
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
        text = track.get("id") or ""
        number = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else None
        if number is None or number in self._used:
            while self._free in self._used:
                self._free += 1
            number = self._free
        self._used.add(number)
        return number
