"""Label Studio: exports of pictures, and of boxes in clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.data.importers.collecting import NEGATIVES, Collector
from molmopoint.data.importers.common import PathLike, short
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.label_studio_clips import clip_rows
from molmopoint.data.importers.label_studio_files import ExportedFiles
from molmopoint.data.importers.label_studio_regions import SHAPES, Region, add_region
from molmopoint.data.importers.label_studio_tasks import Task, is_clip, read_tasks
from molmopoint.data.importers.point_lists import BROKEN, WITHOUT_PLACE, PointLists
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
    folder = (path if path.is_dir() else path.parent) if images is None else Path(images)
    tasks = []
    for task in read_tasks(path, journal):
        try:
            tasks.append((task, *task.addresses(field)))
        except ProcessingError as error:
            journal.skip("tasks without a picture", f"{task.where}: left out: {error}")
    files = ExportedFiles(folder, (address for _, _, addresses in tasks for address in addresses))
    collector.will_come(files.known(address for _, _, addresses in tasks for address in addresses))
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


def _pictures(task: Task, used: str, addresses: list[str], files: ExportedFiles, collector: Collector) -> Iterator[dict[str, Any]]:
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
        # Percent are the same in a picture of any size. Pixels are needed where a picture may have to be turned.
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


def _regions_of(task: Task, used: str, num_pictures: int, journal: Journal) -> tuple[list[Region], list[Region]]:
    """The regions on the pictures that are read, and those that may or may not be on one of them."""
    others = [name for name in task.media if name != used]
    targets = {region.target for region in task.regions if region.shape is not None}
    is_one_field = not others or (len(targets) < 2 and not targets & set(others))
    kept, lost = [], []
    for region in task.regions:
        if not is_one_field and region.shape is not None and region.target != used:
            journal.skip(
                "regions on other pictures of their task",
                f"{region.where}: left out, it is on {short(region.target)} and not on {used!r}; name the elements "
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
            journal.skip(BROKEN, f"{region.where}: left out: there is no picture {region.picture} in its task")
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
            lists.spoil(label, f"{region.where}: results of type {kinds} mark no place in a picture", WITHOUT_PLACE)
        else:
            with lists.object(label, region.where):
                add_region(lists, region, label, unit)
