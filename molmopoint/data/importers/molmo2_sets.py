"""Data sets of the Molmo2 report, as they are on the hub: points in several pictures, points and tracks in clips.

Molmo2-MultiImagePoint, Molmo2-VideoPoint and Molmo2-VideoTrack of allenai. Videos are fetched from where they
were found, and lie in a folder under the names that rows tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.hub_rows import (
    NOT_THERE,
    NamedFiles,
    NoFile,
    answer_of,
    check_count,
    entries_of,
    pairs,
    points_of,
)
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN
from molmopoint.data.importers.reading import PathLike, read_rows
from molmopoint.data.importers.values import (
    identity,
    label_text,
    listed,
    number,
    numbers,
    required,
    short,
    whole_text,
)
from molmopoint.errors import ProcessingError
from molmopoint.files import VIDEO_SUFFIXES

Source = PathLike | Iterable[Mapping[str, Any]]
"""A JSONL or JSON file, or the loaded data set."""

_LEAST_RATE = 1e-6
"""Points per second; a thousand hours have one."""

_MOST_FRAMES = 1_000_000
"""Of a clip; what claims more is no clip."""


def read_multi_image_point(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """Rows of Molmo2-MultiImagePoint: one thing to point at in all pictures of a group; points are in percent.

    Args:
        source: rows with `image_sha256s`, `labels`, `points` and `counts`, an entry per picture each.
        journal: hears which rows are left out.
        images: folder of the downloaded pictures, named by their hashes, with any ending or none. A row of which
            one picture is missing is left out.

    Raises:
        ProcessingError: a file of another kind, or no folder.
    """
    files = NamedFiles(Path(images), "image_sha256s")
    for position, row in read_rows(source, "image_sha256s, labels and points", journal):
        where = f"row {position} of the source"
        try:
            names = listed(required(row, "image_sha256s", where), f"{where}, image_sha256s")
            pictures = [str(files.called(whole_text(name, where), where)) for name in names]
            label = _common_label(row, where)
            points = _points_of_group(row, len(pictures), where)
        except NoFile as error:
            journal.skip(NOT_THERE, str(error))
            continue
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        yield {"images": pictures, "label": label, **answer_of(points, "percent")}


def _common_label(row: Mapping[str, Any], where: str) -> str:
    """What is asked for in all pictures: the normalised labels where the row has them.

    Raises:
        ProcessingError: the pictures were labelled with different things.
    """
    given = row.get("normalized_labels") or required(row, "labels", where)
    labels = given if isinstance(given, list) else [given]
    names = {label_text(label, f"{where}, labels").lower() for label in labels}
    if len(names) != 1:
        raise ProcessingError(
            f"{where}, labels: expected one label for all pictures, got {short(sorted(names))}; they cannot be "
            "asked for at once"
        )
    return names.pop()


def _points_of_group(row: Mapping[str, Any], pictures: int, where: str) -> list[dict[str, Any]]:
    """Points of all pictures, each with the number of its picture."""
    lists = listed(required(row, "points", where), f"{where}, points")
    counts = row.get("counts") or [None] * len(lists)
    if len(lists) != pictures:
        raise ProcessingError(
            f"{where}, points: expected a list for each of {pictures} pictures, got {len(lists)}; export it again"
        )
    points: list[dict[str, Any]] = []
    for index, found, count in pairs(
        lists, listed(counts, f"{where}, counts"), f"{where}, points and counts"
    ):
        place = f"{where}, picture {index}"
        placed = points_of(found, place)
        check_count(count, len(placed), place)
        points += [{**point, "image": index} for point in placed]
    return points


def read_video_point(
    source: Source, journal: Journal, images: PathLike, unsure: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows of Molmo2-VideoPoint: a point per object at the moment at which it was marked; points are in percent.

    Args:
        source: rows with `video_id`, `label` or `question`, `points` and `two_fps_timestamps`.
        journal: hears which rows are left out. Those about a part of a video are, for a row of ours is about a
            whole file.
        images: folder of the videos, `<video_id>` with any ending of a video.
        unsure: also rows of which the annotator was not sure.

    Raises:
        ProcessingError: a file of another kind, or no folder.
    """
    files = NamedFiles(Path(images), "video_id", VIDEO_SUFFIXES)
    for position, row in read_rows(source, "video_id, label, points and two_fps_timestamps", journal):
        where = f"row {position} of the source"
        if row.get("annotator_unsure") and not unsure:
            journal.skip(
                "rows of which the annotator was not sure", f"{where}: left out, the annotator was not sure"
            )
            continue
        try:
            file = files.called(label_text(required(row, "video_id", where), f"{where}, video_id"), where)
            _check_whole(row, where)
            request = _request(row, where)
            points = _timed_points(row, where)
            check_count(row.get("count"), len(points), where)
        except NoFile as error:
            journal.skip("rows whose video is not there", str(error))
            continue
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        yield {"video": str(file), **request, "style": "pointing", **answer_of(points, "percent")}


def _request(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """The label to point at, or else the question."""
    if row.get("label") is not None:
        return {"label": label_text(row["label"], f"{where}, label")}
    return {"prompt": whole_text(required(row, "question", where), f"{where}, question").strip()}


def _check_whole(row: Mapping[str, Any], where: str) -> None:
    """Refuses a row about a part of its video.

    Raises:
        ProcessingError: it is about a part.
    """
    start = number(row.get("clip_start") or 0, f"{where}, clip_start")
    duration, end = row.get("video_duration"), row.get("clip_end")
    is_cut = False
    if duration is not None and end is not None:
        is_cut = number(end, f"{where}, clip_end") < number(duration, f"{where}, video_duration") - 0.5
    if start > 0 or is_cut:
        raise ProcessingError(
            f"{where}: expected a row about a whole video, got the part from {start:g} s to {short(end)}; cut it "
            "into a file of its own, and write the times from its start"
        )


def _timed_points(row: Mapping[str, Any], where: str) -> list[dict[str, float]]:
    """Points of all moments, each with its second."""
    lists = listed(required(row, "points", where), f"{where}, points")
    times = listed(required(row, "two_fps_timestamps", where), f"{where}, two_fps_timestamps")
    points: list[dict[str, float]] = []
    for index, found, time in pairs(lists, times, f"{where}, points and two_fps_timestamps"):
        second = number(time, f"{where}, two_fps_timestamps[{index}]")
        # One point at a moment may stand without a list around it.
        entries = [found] if isinstance(found, Mapping) and not isinstance(found.get("x"), list) else found
        points += [{**point, "t": second} for point in points_of(entries, f"{where}, points[{index}]")]
    return points


def read_video_track(
    source: Source, journal: Journal, images: PathLike, rate: float = 2.0
) -> Iterator[dict[str, Any]]:
    """Rows of Molmo2-VideoTrack: a point per object and moment, in pixels.

    Args:
        source: rows with `clip`, `exp`, `fps` and `points`, which have a place of every frame for each
            `object_id`; `segments` has the frames, first and last, in which an object is in sight. Objects that
            `mask_id` does not list are left out, as in the published training.
        journal: hears which rows are left out.
        images: folder of the videos, the last part of `clip` with any ending of a video.
        rate: points per second that are kept.

    Raises:
        ProcessingError: a file of another kind, no folder, or a rate that is none.
    """
    if not _LEAST_RATE <= number(rate, "the option rate") <= 1000:
        raise ProcessingError(
            f"expected the option rate as points per second in {_LEAST_RATE:g}..1000, got {rate:g}; choose one such "
            "as 2"
        )
    files = NamedFiles(Path(images), "clip", VIDEO_SUFFIXES)
    for position, row in read_rows(source, "clip, exp, fps and points", journal):
        where = f"row {position} of the source"
        try:
            clip = label_text(required(row, "clip", where), f"{where}, clip").replace("\\", "/")
            file = files.called(clip.rpartition("/")[2], where)
            expression = whole_text(required(row, "exp", where), f"{where}, exp").strip()
            points = _tracked_points(row, rate, where)
        except NoFile as error:
            journal.skip("rows whose video is not there", str(error))
            continue
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        yield {"video": str(file), "label": expression, "style": "track", **answer_of(points, "pixel")}


def _tracked_points(row: Mapping[str, Any], rate: float, where: str) -> list[dict[str, Any]]:
    """Points of all objects at the frames next to multiples of 1 / rate seconds, in the order of time."""
    fps = number(required(row, "fps", where), f"{where}, fps")
    if not 0 < fps <= 1000:
        raise ProcessingError(f"{where}, fps: expected frames per second in 0..1000, got {fps:g}; correct it")
    listed_ids = [
        identity(name, f"{where}, mask_id") for name in listed(row.get("mask_id"), f"{where}, mask_id")
    ]
    numbered = {str(name): index for index, name in enumerate(listed_ids)}
    in_sight = _spans(row, where)
    points: list[dict[str, Any]] = []
    for entry in entries_of(required(row, "points", where), f"{where}, points"):
        name = str(identity(required(entry, "object_id", where), f"{where}, object_id"))
        if not listed_ids:
            numbered.setdefault(name, len(numbered))
        if name not in numbered:
            continue
        places = listed(required(entry, "points", where), f"{where}, object {name}")
        for frame in _frames(len(places), fps, rate, where):
            spans = in_sight.get(name)
            is_seen = spans is None or any(first <= frame <= last for first, last in spans)
            if places[frame] is None or not is_seen:
                continue
            x, y = numbers(places[frame], f"{where}, object {name}, frame {frame}", 2).tolist()
            if x <= 0 and y <= 0:  # how the set writes that an object is out of sight
                continue
            points.append({"x": x, "y": y, "t": frame / fps, "object_id": numbered[name]})
    return sorted(points, key=lambda point: (point["t"], point["object_id"]))


def _spans(row: Mapping[str, Any], where: str) -> dict[str, list[tuple[float, float]]]:
    """First and last frames in which objects are in sight; of objects that are not in it nothing is known."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for entry in entries_of(row.get("segments"), f"{where}, segments"):
        name = str(identity(required(entry, "object_id", where), f"{where}, segments, object_id"))
        for span in listed(entry.get("segments"), f"{where}, segments of object {name}"):
            first, last = numbers(span, f"{where}, segments of object {name}", 2).tolist()
            spans.setdefault(name, []).append((first, last))
    return spans


def _frames(length: int, fps: float, rate: float, where: str) -> list[int]:
    """Frames next to multiples of 1 / rate seconds, each once."""
    if length > _MOST_FRAMES:
        raise ProcessingError(
            f"{where}: expected at most {_MOST_FRAMES:,} frames, got {length:,}; split the clip"
        )
    step = max(fps / rate, 1.0)
    moments = int((length - 1) / step) + 1 if length else 0
    frames = [round(index * step) for index in range(moments)]
    return [frame for frame in frames if frame < length]
