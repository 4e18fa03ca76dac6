"""Label Studio: exports of pictures, and of boxes in clips.

Boxes in clips have key frames, between which they move in a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.label_studio_export import ExportedFiles, Task, is_clip, read_tasks
from molmopoint.data.importers.label_studio_regions import CLIP_SHAPE, SHAPES, Region, add_region, box_middles
from molmopoint.data.importers.point_lists import BROKEN, WITHOUT_PLACE, PointLists
from molmopoint.data.importers.reading import PathLike
from molmopoint.data.importers.values import listed, number, numbers, required, short
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file

_PERCENT = (100.0, 100.0)


def read_label_studio(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    field: str | None = None,
    fps: float | None = None,
    negatives: float = NEGATIVES,
) -> Iterator[dict[str, Any]]:
    """Rows of a Label Studio export.

    Of several annotations of a task the one marked as ground truth counts, else the first; those that were
    cancelled never do, and predictions neither.

    Args:
        source: the JSON file, or a folder of such files, as storages are filled.
        journal: hears what is left out.
        images: folder of the pictures or clips; by default that of the file.
        field: key of the picture or clip in `data`, as in the labelling configuration; by default `image` or
            `video`, or the only one with the address of a file.
        fps: frames per second in which boxes of clips are counted, where the export does not say it.
        negatives: share of rows without points.

    Raises:
        ProcessingError: no such export.
    """
    path = Path(source)
    collector = Collector(journal, negatives=negatives)
    folder = path if path.is_dir() else path.parent
    if images is not None:
        folder = Path(images)
    tasks = []
    for task in read_tasks(path, journal):
        try:
            tasks.append((task, *task.addresses(field)))
        except ProcessingError as error:
            journal.skip("tasks without a picture", f"{task.where}: left out: {error}")
    all_addresses: list[str] = []
    for _, _, addresses in tasks:
        all_addresses += addresses
    files = ExportedFiles(folder, all_addresses)
    collector.will_come(files.known(all_addresses))
    clips: dict[Path, list[Region]] = {}  # several tasks may be about one
    for task, used, addresses in tasks:
        if not task.has_boxes_in_clips and not all(map(is_clip, addresses)):
            yield from _pictures(task, used, addresses, files, collector)
        elif (clip := _clip(task, addresses, files, journal)) is not None:
            clips.setdefault(clip, []).extend(task.regions)
    for clip, regions in clips.items():
        yield from clip_rows(clip, regions, fps, collector)
    yield from collector.last_rows()


def _clip(task: Task, addresses: list[str], files: ExportedFiles, journal: Journal) -> Path | None:
    """The clip of a task; None if it is left out."""
    if len(addresses) > 1:
        journal.skip("tasks with several clips", f"{task.where}: left out, it has {len(addresses)} clips")
        return None
    try:
        return files.file(addresses[0])
    except ProcessingError as error:
        journal.skip("clips whose file is unknown", f"{task.where}: left out: {error}")
        return None


def _pictures(
    task: Task, used: str, addresses: list[str], files: ExportedFiles, collector: Collector
) -> Iterator[dict[str, Any]]:
    """Rows of a task, which mostly has one picture."""
    regions, lost = _regions_of(task, used, len(addresses), collector.journal)
    for index, address in enumerate(addresses):
        own = [region for region in regions if (region.picture or 0) == index]
        try:
            file = files.file(address)
        except ProcessingError as error:
            collector.journal.skip("pictures whose file is unknown", f"{task.where}: left out: {error}")
            continue
        is_there = is_file(file)
        if not is_there:
            collector.journal.note("pictures that are not there", str(file))
        # Percent are the same in a picture of any size. Pixels are needed where a picture may have to be
        # turned.
        size = next((region.size for region in own if region.size is not None and is_there), None)
        lists = collector.picture(file, size) if size else collector.picture(file, _PERCENT, coords="percent")
        if lists is None:
            continue
        for region in own:
            _add(lists, region, np.array(size or _PERCENT) / 100)
        for region in lost:
            lists.unsure.update(region.labels)
            lists.all_unsure |= not region.labels
        yield from collector.rows(lists)


def _regions_of(
    task: Task, used: str, num_pictures: int, journal: Journal
) -> tuple[list[Region], list[Region]]:
    """The regions on the pictures that are read, and those that may or may not be on one of them."""
    others = [name for name in task.media if name != used]
    targets = {region.target for region in task.regions if region.shape is not None}
    is_one_field = not others or (len(targets) < 2 and not targets & set(others))
    kept, lost = [], []
    for region in task.regions:
        if not is_one_field and region.shape is not None and region.target != used:
            journal.skip(
                "regions on other pictures of their task",
                f"{region.where}: left out, it is on {short(region.target)} and not on {used!r}; name the "
                "elements "
                "of the configuration like the fields of data, and choose one with the option field",
            )
            lost += [region] if region.target not in others else []
        elif num_pictures > 1 and region.picture is None:
            journal.skip(
                BROKEN,
                f"{region.where}: left out: expected item_index in a task of several pictures, got none",
            )
            lost.append(region)
        elif region.picture is not None and not 0 <= region.picture < num_pictures:
            journal.skip(
                BROKEN, f"{region.where}: left out: there is no picture {region.picture} in its task"
            )
            lost.append(region)
        else:
            kept.append(region)
    return kept, lost


def _add(lists: PointLists, region: Region, unit: np.ndarray) -> None:
    """Puts a region into the lists of all its labels."""
    if region.fault is None and region.shape in SHAPES and not region.labels:
        lists.spoil(None, f"{region.where}: it has no label", "objects without a label")
    if region.fault is not None and not region.labels:
        lists.spoil(None, region.fault, BROKEN)
    lists.mentioned.update(region.choices)
    for label in region.labels:
        if region.fault is not None:
            lists.spoil(label, region.fault, BROKEN)
        elif region.shape not in SHAPES:
            kinds = " and ".join(kind for kind in region.kinds if kind)
            lists.spoil(
                label, f"{region.where}: results of type {kinds} mark no place in a picture", WITHOUT_PLACE
            )
        else:
            with lists.object(label, region.where):
                add_region(lists, region, label, unit)


_MAX_POINTS = 500_000
"""Points of a clip, as of ten boxes in half an hour; two key frames can claim any number of frames."""


def clip_rows(
    clip: Path, regions: Sequence[Region], fps: float | None, collector: Collector
) -> Iterator[dict[str, Any]]:
    """One row per label, with a point for every frame that shows a box.

    Args:
        clip: the file.
        regions: of the task; those that are not boxes of clips have no place.
        fps: frames per second in which the boxes are counted; None takes it from each region.
        collector: of the import.
    """
    journal = collector.journal
    room = _MAX_POINTS
    unsure = False
    points: dict[str, list[dict[str, Any]]] = {}
    spoilt: set[str] = set()
    mentioned: set[str] = set()  # without a place, yet not absent
    for object_id, region in enumerate(regions):
        try:
            found = _track(region, fps, room)
        except ProcessingError as error:
            said = ", ".join(map(repr, region.labels)) or "without a label"
            journal.skip(BROKEN, f"{clip}, label {said}: left out: {region.where}: {error}")
            spoilt.update(region.labels)
            unsure |= not region.labels
            continue
        if found is None:
            if region.labels:
                kinds = " and ".join(kind for kind in region.kinds if kind)
                journal.skip(
                    WITHOUT_PLACE,
                    f"{region.where}: left out, results of type {kinds} mark no place in a clip",
                )
                mentioned.update(region.labels)
            continue
        if not region.labels:
            journal.skip("objects without a label", f"{region.where}: left out, it has no label")
            unsure = True
        times, middles = found
        room -= len(times) * len(region.labels)
        places = zip(middles.tolist(), times.tolist(), strict=True)
        track = [{"x": x, "y": y, "t": time, "object_id": object_id} for (x, y), time in places]
        for label in region.labels:
            points.setdefault(label, []).extend(track)
    complete = [label for label, found in points.items() if found and label not in spoilt]
    collector.clip(clip, complete, {*spoilt, *mentioned, *points} - {*complete}, unsure=unsure)
    for label, found in points.items():
        if label in complete:
            yield {"video": str(clip), "label": label, "style": "track", "points": found, "coords": "percent"}


def _track(region: Region, fps: float | None, room: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(n,) seconds and (n, 2) places of a box in percent, at most `room`; None for a region of another kind.

    Raises:
        ProcessingError: it cannot be read.
    """
    if region.fault is not None:
        raise ProcessingError(region.fault)
    if region.shape != CLIP_SHAPE:
        return None
    keys, enabled = _key_frames(region)
    frames = _shown_frames(keys[:, 0], enabled, region, room // max(1, len(region.labels)))
    # Boxes between key frames lie on straight lines, behind the last one they stay.
    key_frames, *columns = keys.T
    moved = [np.interp(frames, key_frames, column) for column in columns]
    boxes, angles = np.stack(moved[:4], axis=1), moved[4]
    middles = box_middles(boxes, angles, region.size)
    seen = np.isfinite(middles).all(axis=1)
    times = np.maximum(frames - 1, 0) / _rate(region, fps)  # frames are counted from 1
    return times[seen], middles[seen]


def _key_frames(region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Key frames in order.

    Returns:
        (n, 6) frame, left, top, width, height and angle, and (n,) bool whether the box is shown from there
        on.
    """
    where = region.where
    rows: dict[float, tuple[list[float], bool]] = {}
    for key in listed(region.value.get("sequence"), where):
        if not isinstance(key, Mapping):
            raise ProcessingError(f"expected key frames, got {short(key)}; export it again")
        values = numbers(
            [required(key, name, where) for name in ("frame", "x", "y", "width", "height")], where, 5
        ).tolist()
        if values[0] < 0 or values[0] % 1:
            raise ProcessingError(f"expected frames counted from 1, got {values[0]:g}; export it again")
        angle = number(key.get("rotation") or 0, where)
        rows[values[0]] = ([*values, angle], bool(key.get("enabled", True)))
    if not rows:
        raise ProcessingError("expected key frames as sequence, got none; export it again")
    ordered = [rows[frame] for frame in sorted(rows)]
    return np.array([values for values, _ in ordered]), np.array([shown for _, shown in ordered])


def _shown_frames(keys: np.ndarray, enabled: np.ndarray, region: Region, at_most: int) -> np.ndarray:
    """(n,) all frames with the box: from an enabled key frame up to the next one, from the last to the clip's
    end.

    Key frames themselves count: one that is not enabled is the last frame of a stretch.
    """
    last = max(float(keys[-1]), number(region.value.get("framesCount") or 0, region.where))
    ends = np.append(keys[1:], last)
    wanted = len(keys) + float((ends - keys)[enabled].sum())
    if wanted > at_most:
        raise ProcessingError(
            f"expected at most {_MAX_POINTS:,} points in a clip, got {wanted:,.0f} more of this box; cut "
            "the clip"
        )
    stretches = [
        np.arange(start, end + 1) for start, end, shown in zip(keys, ends, enabled, strict=True) if shown
    ]
    return np.unique(np.concatenate([keys, *stretches]))


def _rate(region: Region, fps: float | None) -> float:
    """Frames per second in which the boxes are counted."""
    where, value = region.where, region.value
    rates = [] if fps is None else [fps]
    count = number(value.get("framesCount") or 0, where)
    duration = number(value.get("duration") or 0, where)
    if count > 0 and duration > 0:
        rates.append(count / duration)
    timed = [key for key in listed(value.get("sequence"), where) if key.get("time")]
    if timed:
        frame, time = numbers([timed[-1]["frame"], timed[-1]["time"]], where, 2).tolist()
        if time > 0:
            rates.append(frame / time)
    for rate in rates:
        if np.isfinite(rate) and 0 < rate < 1e4:
            return float(rate)
    raise ProcessingError("expected frames per second, got no duration; give the option fps")
