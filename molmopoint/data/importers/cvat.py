"""CVAT: the XML of "CVAT for images 1.1", and tracks of "CVAT for video 1.1"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from molmopoint.data.importers.collecting import PointLists
from molmopoint.data.importers.common import PathLike, corners, existing_file, numbers
from molmopoint.data.importers.journal import Journal
from molmopoint.errors import ProcessingError


def read_cvat(source: PathLike, journal: Journal, images: PathLike | None = None, fps: float | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a CVAT file; tracks become one row per label, with a point per frame in which an object is visible.

    Args:
        source: annotations.xml.
        journal: hears what is left out.
        images: folder of the pictures; by default `images` beside the file, where CVAT puts them. Of tracks the folder of the clip, by
            default that of the file.
        fps: frames per second of the clip, required for tracks: CVAT counts frames and does not write their times.

    Raises:
        ProcessingError: no such file, or tracks without `fps`.
    """
    path = existing_file(Path(source))
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ProcessingError(f"expected XML in {path}, got {error}; export it again") from error
    if root.tag != "annotations":
        raise ProcessingError(f"expected <annotations> in {path.name}, got <{root.tag}>; export as 'CVAT for images 1.1'")
    if root.find("track") is not None:
        yield from _tracks(root, path.parent if images is None else Path(images), path.name, fps, journal)
        return
    folder = path.parent / "images" if images is None else Path(images)
    for image in root.iter("image"):
        name = image.get("name")
        if not name:
            raise ProcessingError(f"{path.name}: expected a name on every <image>, got none; export it again")
        lists = PointLists(str(folder / name), journal)
        for shape in image:
            if label := shape.get("label"):
                _add(lists, shape, label, name)
        yield from lists.rows()


def _tracks(root: ElementTree.Element, folder: Path, name: str, fps: float | None, journal: Journal) -> Iterator[dict[str, Any]]:
    """One row per label of a clip."""
    if fps is None or not fps > 0:
        raise ProcessingError(f"expected the option fps, frames per second of the clip of {name}, got {fps}; CVAT does not write it")
    clip = root.findtext("meta/source") or root.findtext("meta/task/source") or root.findtext("meta/job/source")
    if not clip:
        raise ProcessingError(f"expected the name of the clip as <source> in {name}, got none; export a task with one video")
    task = "meta/job" if root.find("meta/job") is not None else "meta/task"
    first = int(root.findtext(f"{task}/start_frame") or 0)
    step = int((root.findtext(f"{task}/frame_filter") or "").rpartition("step=")[2] or 1)
    by_label: dict[str, list[dict[str, Any]]] = {}
    spoilt: dict[str, str] = {}
    for number, track in enumerate(root.findall("track")):
        label, object_id = track.get("label") or "", int(track.get("id") or number)
        for shape in track:
            if shape.get("outside") == "1" or shape.get("occluded") == "1":
                continue
            frame = int(numbers([shape.get("frame")], f"{name}, track {object_id}", 1)[0])
            time = {"t": (first + frame * step) / float(fps), "object_id": object_id}
            lists = PointLists(clip, journal)
            _add(lists, shape, label, f"{name}, track {object_id}")
            places = [point for row in lists.rows() for point in row["points"]]
            if len(places) != 1:
                spoilt[label] = (
                    f"<{shape.tag}> of track {object_id} is not one place; use boxes, ellipses, polygons, masks or single points"
                )
            by_label.setdefault(label, []).extend({**point, **time} for point in places)
    for label, points in by_label.items():
        if label in spoilt:
            journal.skip("objects", f"{clip}, label {label!r}: left out: {spoilt[label]}")
        elif points:
            yield {"video": str(folder / clip), "label": label, "style": "track", "points": points, "coords": "pixel"}


def _add(lists: PointLists, shape: ElementTree.Element, label: str, where: str) -> None:
    if shape.tag == "tag":
        return  # of the whole picture
    if shape.tag == "box":  # turned boxes turn about their middle
        left, top, right, bottom = _attributes(shape, where, "xtl", "ytl", "xbr", "ybr")
        lists.add(label, (left + right) / 2, (top + bottom) / 2)
    elif shape.tag == "ellipse":
        lists.add(label, *_attributes(shape, where, "cx", "cy"))
    elif shape.tag == "polygon":
        lists.add_polygon(label, [_places(shape, where)])
    elif shape.tag == "points":
        for x, y in _places(shape, where):
            lists.add(label, x, y)
    elif shape.tag == "mask":
        left, top, width, height = (int(value) for value in _attributes(shape, where, "left", "top", "width", "height"))
        lists.add_mask(label, _mask(shape.get("rle", ""), width, height, where), left, top)
    else:
        lists.spoil(label, f"shapes <{shape.tag}> have no inside; use points, boxes, ellipses, polygons or masks")


def _attributes(shape: ElementTree.Element, where: str, *names: str) -> np.ndarray:
    return numbers([shape.get(name) for name in names], f"{where}, <{shape.tag}>", len(names))


def _places(shape: ElementTree.Element, where: str) -> np.ndarray:
    """(n, 2) from "x,y;x,y"."""
    return corners([value for pair in shape.get("points", "").split(";") for value in pair.split(",")], f"{where}, <{shape.tag}>")


def _mask(rle: str, width: int, height: int, where: str) -> np.ndarray:
    """(height, width) bool from runs along the rows of the mask's box, the outside first."""
    runs = numbers([run for run in rle.split(",") if run.strip()], f"{where}, <mask>").astype(np.int64)
    if (runs < 0).any() or runs.sum() != width * height:
        raise ProcessingError(f"{where}, <mask>: expected runs over {width} x {height} pixels, got {runs.sum()}; export it again")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
