"""Label Studio: the exports "JSON" and "JSON-MIN", and folders of one file per task, of pictures and of boxes in clips."""

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

    Of several annotations of a task the one marked as ground truth counts, else the first; those that were cancelled never do,
    and predictions neither.

    Args:
        source: the JSON file, or a folder of such files, as storages are filled.
        journal: hears what is left out.
        images: folder of the pictures or clips; by default that of the file.
        field: key of the picture or clip in `data`, as in the labelling configuration; by default `image` or `video`, or the only
            one with the address of a file.
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
    for task, used, addresses in tasks:
        if task.has_boxes_in_clips or all(map(is_clip, addresses)):
            yield from _clip(task, addresses, files, fps, collector)
        else:
            yield from _pictures(task, used, addresses, files, collector)
    yield from collector.absent_rows()


def _clip(task: Task, addresses: list[str], files: ExportedFiles, fps: float | None, collector: Collector) -> Iterator[dict[str, Any]]:
    """Rows of the boxes in a clip."""
    journal = collector.journal
    if len(addresses) > 1:
        journal.skip("tasks with several clips", f"{task.where}: left out, it has {len(addresses)} clips")
        return
    try:
        file = files.file(addresses[0])
    except ProcessingError as error:
        journal.skip("clips whose file is unknown", f"{task.where}: left out: {error}")
        return
    yield from clip_rows(file, task.regions, fps, collector)


def _pictures(task: Task, used: str, addresses: list[str], files: ExportedFiles, collector: Collector) -> Iterator[dict[str, Any]]:
    """Rows of a task, which mostly has one picture."""
    regions = _regions_of(task, used, collector.journal)
    for index, address in enumerate(addresses):
        own = [region for region in regions if _is_on(region, index, len(addresses))]
        try:
            file = files.file(address)
        except ProcessingError as error:
            collector.journal.skip("pictures whose file is unknown", f"{task.where}: left out: {error}")
            continue
        if not is_file(file):
            collector.journal.note("pictures that are not there", str(file))
        # Percent are the same in a picture of any size. Pixels are needed only where the picture may have to be turned.
        size = next((region.size for region in own if region.size is not None), None) if is_file(file) else None
        lists = collector.picture(file, size) if size else collector.picture(file, _PERCENT, coords="percent")
        if lists is None:
            continue
        for region in own:
            _add(lists, region, np.array(size or _PERCENT) / 100)
        yield from collector.rows(lists)
    for region in regions:
        if region.picture is None and len(addresses) > 1:
            collector.journal.skip(BROKEN, f"{region.where}: left out: expected item_index in a task of several pictures, got none")
        elif region.picture is not None and not 0 <= region.picture < len(addresses):
            collector.journal.skip(BROKEN, f"{region.where}: left out: there is no picture {region.picture} in its task")


def _is_on(region: Region, index: int, count: int) -> bool:
    """Whether a region is on the picture of this index, or may be."""
    return count == 1 if region.picture is None else region.picture == index


def _add(lists: PointLists, region: Region, unit: np.ndarray) -> None:
    """Puts a region into the lists of all its labels."""
    if region.fault is not None:
        for label in region.labels or [None]:
            lists.spoil(label, region.fault, BROKEN)
    elif region.shape is None:
        for label in region.labels:
            kinds = " and ".join(kind for kind in region.kinds if kind)
            lists.spoil(label, f"{region.where}: results of type {kinds} mark no place in a picture", WITHOUT_PLACE)
    elif not region.labels:
        lists.spoil(None, f"{region.where}: it has no label", "objects without a label")
    for label in region.labels:
        if region.fault is None and region.shape in SHAPES:
            with lists.object(label, region.where):
                add_region(lists, region, label, unit)


def _regions_of(task: Task, used: str, journal: Journal) -> list[Region]:
    """The regions on the pictures that are read; a task can have others in another field."""
    others = [name for name in task.media if name != used]
    targets = {region.target for region in task.regions if region.shape is not None}
    if not others or (len(targets) < 2 and not targets & set(others)):
        return task.regions
    kept = []
    for region in task.regions:
        if region.target == used or region.shape is None:
            kept.append(region)
            continue
        journal.skip(
            "regions on other pictures of their task",
            f"{region.where}: left out, it is on {short(region.target)} and not on {used!r}; name the elements of the configuration "
            "like the fields of data, and choose one with the option field",
        )
    return kept
