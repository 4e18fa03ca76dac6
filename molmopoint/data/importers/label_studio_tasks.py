"""Tasks of a Label Studio export: what was labelled, and the annotation that counts.

There are three forms: "JSON" with a list of annotations in each task, "JSON-MIN" with the fields of one annotation beside
those of the data, and what storages are filled with, one annotation with its task inside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import listed, read_json, short
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.label_studio_files import file_ending
from molmopoint.data.importers.label_studio_regions import CLIP_SHAPE, Region, read_regions
from molmopoint.errors import ProcessingError
from molmopoint.files import PICTURE_SUFFIXES

_CLIP_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm"})
"""Endings, in lower case, of files in which a clip is expected."""

_MINIMAL = frozenset({"annotation_id", "annotator", "lead_time"})
"""Fields by which JSON-MIN is known."""

_ABOUT = _MINIMAL | {"agreement", "created_at", "id", "updated_at"}
"""Fields of JSON-MIN that are neither data nor regions."""


@dataclass(frozen=True)
class Task:
    """What somebody said of one task.

    Attributes:
        where: file and task, for messages.
        data: what was labelled, by field.
        regions: of the annotation that counts.
    """

    where: str
    data: Mapping[str, Any]
    regions: list[Region]

    @property
    def media(self) -> list[str]:
        """Fields of `data` with addresses of pictures or clips."""
        return [name for name, value in self.data.items() if _holds_media(value)]

    @property
    def has_boxes_in_clips(self) -> bool:
        """Whether something was drawn on a clip."""
        return any(region.shape == CLIP_SHAPE for region in self.regions)

    def addresses(self, field: str | None) -> tuple[str, list[str]]:
        """A field, and the addresses in it.

        Args:
            field: None looks for it.

        Raises:
            ProcessingError: there is no such field, or it holds no address.
        """
        media = self.media
        names = ("video", "image") if self.has_boxes_in_clips else ("image", "video")
        usual = [name for name in names if name in self.data]
        used = field or next(iter(usual or media), "image")
        if used not in self.data or (field is None and not usual and len(media) > 1):
            known = ", ".join(map(str, media or self.data)) or "no fields"
            asked = "'image' in data" if field is None else f"{field!r} in data"
            raise ProcessingError(f"expected {asked}, got {known[:200]}; choose the field of the pictures with the option field")
        value = self.data[used]
        addresses = [_address(entry) for entry in (value if isinstance(value, list) else [value])]
        if not addresses or None in addresses:
            raise ProcessingError(f"expected addresses of pictures as {used!r}, got {short(value)}; choose another with the option field")
        return used, [address for address in addresses if address is not None]


def is_clip(address: str) -> bool:
    """Whether a file is a clip by its ending."""
    return file_ending(address) in _CLIP_SUFFIXES


def read_tasks(path: Path, journal: Journal) -> list[Task]:
    """All tasks that somebody annotated.

    Args:
        path: a file, or a folder of files.
        journal: hears which tasks are left out.

    Raises:
        ProcessingError: nothing there is a task.
    """
    tasks: list[Task] = []
    known: set[str] = set()
    fault: ProcessingError | None = None
    num_tasks = 0
    for where, entry in _entries(path, journal):
        try:
            data, results = _annotation(entry, where, journal)
        except ProcessingError as error:
            journal.skip("tasks that cannot be read", str(error))
            fault = fault or error
            continue
        num_tasks += 1
        if results is None:
            journal.skip("tasks that nobody annotated", f"{where}: left out, nobody annotated it")
            continue
        if "annotations" not in entry and "completions" not in entry:  # one annotation of perhaps several
            inner = entry.get("task")
            number = (inner if isinstance(inner, Mapping) else entry).get("id")
            name = json.dumps([number, [value for value in data.values() if _holds_media(value)]], default=str)
            if name in known:
                journal.note("annotations that do not count, as their task has another one", where)
                continue
            known.add(name)
        tasks.append(Task(where, data, read_regions(results, where)))
    if not num_tasks:
        raise fault or ProcessingError(f"expected tasks of Label Studio in {path}, got none; export as JSON")
    return tasks


def _entries(path: Path, journal: Journal) -> Iterator[tuple[str, Any]]:
    """What should be tasks, and where each stands."""
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            document = read_json(file)
        except ProcessingError as error:
            if not path.is_dir():
                raise
            journal.skip("files that cannot be read", str(error))
            continue
        for count, entry in enumerate(document if isinstance(document, list) else [document], start=1):
            name = entry.get("id", count) if isinstance(entry, Mapping) else count
            yield f"{file.name}, task {short(name)}", entry


def _annotation(entry: Any, where: str, journal: Journal) -> tuple[Mapping[str, Any], list[Any] | None]:
    """What was labelled and the results that count; None if nobody annotated it.

    Raises:
        ProcessingError: it is no task.
    """
    if not isinstance(entry, Mapping):
        raise ProcessingError(f"{where}: expected a task, got {short(entry)}; export as JSON")
    if isinstance(entry.get("task"), Mapping) and "result" in entry:
        return _data(entry["task"], where), _chosen([entry], where, journal)
    if "data" in entry:
        annotations = entry.get("annotations", entry.get("completions"))
        return _data(entry, where), _chosen(listed(annotations, where), where, journal)
    if _MINIMAL & entry.keys():
        return _minimal(entry)
    raise ProcessingError(f"{where}: expected a task with data, got {short(list(entry))}; export as JSON")


def _data(task: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    data = task.get("data")
    if not isinstance(data, Mapping):
        raise ProcessingError(f"{where}: expected an object as data, got {short(data)}; export as JSON")
    return data


def _chosen(annotations: list[Any], where: str, journal: Journal) -> list[Any] | None:
    """Results of the annotation marked as ground truth, else of the first; those that were cancelled never count."""
    usable = [
        entry
        for entry in annotations
        if isinstance(entry, Mapping) and not entry.get("was_cancelled") and not entry.get("skipped") and "result" in entry
    ]
    if not usable:
        return None
    if len(usable) > 1:
        journal.note("annotations that do not count, as their task has another one", where, count=len(usable) - 1)
    chosen = next((entry for entry in usable if entry.get("ground_truth")), usable[0])
    return listed(chosen["result"], where)


def _minimal(entry: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Any]]:
    """Data and results of JSON-MIN, where both stand beside each other."""
    data: dict[str, Any] = {}
    results: list[Any] = []
    for name, value in entry.items():
        if isinstance(value, list) and value and all(_is_region(item) for item in value):
            results += [_result(item) for item in value]
        elif name not in _ABOUT:
            data[name] = value
    return data, results


def _is_region(item: Any) -> bool:
    return isinstance(item, Mapping) and ("original_width" in item or any(str(name).endswith("labels") for name in item))


def _result(item: Mapping[str, Any]) -> dict[str, Any]:
    """A result as in the other export. Regions have no ids here: those with the same place are one."""
    sizes = {name: item[name] for name in ("original_width", "original_height") if name in item}
    value = {name: field for name, field in item.items() if name not in sizes}
    place = {name: field for name, field in value.items() if not name.endswith("labels") and name not in ("id", "parentID")}
    return {"id": json.dumps(place, sort_keys=True, default=str), "type": "", "value": value, **sizes}


def _holds_media(value: Any) -> bool:
    """Whether this is the address of a picture or clip, or a list of such."""
    entries = value if isinstance(value, list) else [value]
    endings = [file_ending(address) for entry in entries if (address := _address(entry)) is not None]
    return bool(endings) and len(endings) == len(entries) and all(ending in PICTURE_SUFFIXES | _CLIP_SUFFIXES for ending in endings)


def _address(value: Any) -> str | None:
    """An address, also where it is the only one in an object, as in lists that a page repeats."""
    if isinstance(value, str):
        return value
    found = [entry for entry in value.values() if isinstance(entry, str)] if isinstance(value, Mapping) else []
    media = [entry for entry in found if file_ending(entry) in PICTURE_SUFFIXES | _CLIP_SUFFIXES]
    return media[0] if len(media) == 1 else None
