"""Exports of Label Studio: tasks with the annotation that counts, and the files behind their addresses.

There are three forms: "JSON" with a list of annotations in each task, "JSON-MIN" with the fields of one
annotation beside those of the data, and what storages are filled with, one annotation with its task inside.

An address is what the labelling page loaded: an upload, a local file of the server, an object of a bucket, a
link that the server resolves. The pictures lie in a folder of the user, flat or with some of the folders of
the address. Two
addresses never become one file: where the folder cannot keep them apart, both are refused, since points of
one would land on the picture of the other.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.label_studio_regions import CLIP_SHAPE, Region, read_regions
from molmopoint.data.importers.reading import picture_path, read_json
from molmopoint.data.importers.values import listed, short
from molmopoint.errors import ProcessingError
from molmopoint.files import PICTURE_SUFFIXES, is_file

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
            raise ProcessingError(
                f"expected {asked}, got {known[:200]}; choose the field of the pictures with the option field"
            )
        value = self.data[used]
        entries = value if isinstance(value, list) else [value]
        addresses = [_address_in(entry) for entry in entries]
        if not addresses or None in addresses:
            raise ProcessingError(
                f"expected addresses of pictures as {used!r}, got {short(value)}; choose another with the "
                "option field"
            )
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
            task = inner if isinstance(inner, Mapping) else entry
            media = [value for value in data.values() if _holds_media(value)]
            name = json.dumps([task.get("id"), media], default=str)
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
    """Results of the annotation marked as ground truth, else of the first; those that were cancelled never
    count.
    """
    usable = [entry for entry in annotations if _counts(entry)]
    if not usable:
        return None
    if len(usable) > 1:
        journal.note(
            "annotations that do not count, as their task has another one", where, count=len(usable) - 1
        )
    chosen = next((entry for entry in usable if entry.get("ground_truth")), usable[0])
    return listed(chosen["result"], where)


def _counts(annotation: Any) -> bool:
    """Whether somebody finished it."""
    if not isinstance(annotation, Mapping) or "result" not in annotation:
        return False
    return not annotation.get("was_cancelled") and not annotation.get("skipped")


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
    return isinstance(item, Mapping) and (
        "original_width" in item or any(str(name).endswith("labels") for name in item)
    )


def _result(item: Mapping[str, Any]) -> dict[str, Any]:
    """A result as in the other export. Regions have no ids here: those with the same place are one."""
    sizes = {name: item[name] for name in ("original_width", "original_height") if name in item}
    value = {name: field for name, field in item.items() if name not in sizes}
    place = {
        name: field
        for name, field in value.items()
        if not name.endswith("labels") and name not in ("id", "parentID")
    }
    return {"id": json.dumps(place, sort_keys=True, default=str), "type": "", "value": value, **sizes}


def _holds_media(value: Any) -> bool:
    """Whether this is the address of a picture or clip, or a list of such."""
    entries = value if isinstance(value, list) else [value]
    addresses = [_address_in(entry) for entry in entries]
    return bool(addresses) and all(address is not None and _is_media(address) for address in addresses)


def _is_media(address: str) -> bool:
    """Whether a file is a picture or a clip by its ending."""
    return file_ending(address) in PICTURE_SUFFIXES | _CLIP_SUFFIXES


def _address_in(value: Any) -> str | None:
    """An address, also where it is the only one in an object, as in lists that a page repeats."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        return None
    media = [entry for entry in value.values() if isinstance(entry, str) and _is_media(entry)]
    return media[0] if len(media) == 1 else None


_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What the server writes in front of the name of an upload."""


_MAX_PARTS = 64
"""Folders of an address; all their endings are compared."""


class _Address(NamedTuple):
    """Where a picture comes from.

    Attributes:
        parts: host or bucket, folders and name.
        local: a path as the user wrote it, which is kept whole where no file is found.
    """

    parts: tuple[str, ...]
    local: bool


class ExportedFiles:
    """Files of all addresses of an export.

    Args:
        folder: of the pictures or clips.
        addresses: all that the export has; their differences decide how much of each path is needed.
    """

    def __init__(self, folder: Path, addresses: Iterable[str]) -> None:
        self._folder = folder
        self._found: dict[_Address, Path] = {}
        known: set[_Address] = set()
        for text in addresses:
            try:
                known.add(_parse(text))
            except ProcessingError:
                continue  # told where it is asked for
        # How many addresses end in the same folders and name.
        self._endings = Counter(
            address.parts[start:] for address in known for start in range(len(address.parts))
        )
        for address in known:
            if (file := self._existing(address)) is not None:
                self._found[address] = file
        self._users = Counter(self._found.values())

    def file(self, text: str) -> Path:
        """The file of an address; where there is none, the path at which it would be looked for.

        Raises:
            ProcessingError: the address names no file, leads out of the folder, or shares its file with
                another.
        """
        address = _parse(text)
        if (file := self._found.get(address)) is not None:
            if self._users[file] > 1:
                raise ProcessingError(
                    f"expected a file of its own for {text!r}, got {file.name!r}, in which other addresses "
                    "of the "
                    "export end as well; keep their folders below the one given as images"
                )
            return file
        return self._inside("/".join(self._shortest(address)))

    def known(self, texts: Iterable[str]) -> Iterator[Path]:
        """The files of addresses, as far as they name one."""
        for text in texts:
            with contextlib.suppress(ProcessingError):
                yield self.file(text)

    def _existing(self, address: _Address) -> Path | None:
        """The file with as many folders of the address as possible; names without the mark of uploads come
        last.
        """
        for name in (address.parts[-1], _UPLOAD.sub("", address.parts[-1], count=1)):
            for start in range(len(address.parts)):
                try:
                    path = self._inside("/".join([*address.parts[start:-1], name]))
                except ProcessingError:
                    continue
                if is_file(path):
                    return path
        return None

    def _shortest(self, address: _Address) -> tuple[str, ...]:
        """The name, with as many folders as tell it from the other addresses."""
        if address.local:
            return address.parts
        lengths = range(1, len(address.parts) + 1)
        return next(
            (address.parts[-n:] for n in lengths if self._endings[address.parts[-n:]] == 1), address.parts
        )

    def _inside(self, name: str) -> Path:
        return picture_path(self._folder, name, "address of a picture")


def file_ending(text: str) -> str:
    """How the file of an address ends, in lower case; nothing if it names no file."""
    try:
        return PurePosixPath(_parse(text).parts[-1]).suffix.lower()
    except ProcessingError:
        return ""


def _parse(text: str) -> _Address:
    """The parts of an address.

    Raises:
        ProcessingError: it names no file.
    """
    try:
        url = urlsplit(text)
        query = parse_qs(url.query)
    except ValueError as error:  # such as a bracket that is not closed
        raise ProcessingError(
            f"expected the address of a file, got {text[:80]!r} ({error}); correct it"
        ) from error
    if url.scheme == "data":
        raise ProcessingError(
            "expected the address of a file, got the picture itself in the export; write it to a file first"
        )
    if "fileuri" in query:
        return _parse(_decoded(query["fileuri"][0]))
    if "local-files" in url.path and "d" in query:
        return _from_path("", query["d"][0], local=True)
    if url.scheme in ("http", "https"):
        return _from_path(url.netloc, unquote(url.path), local=False)
    if "://" in text:  # a bucket, whose names may have any characters
        return _from_path("", text.partition("://")[2], local=False)
    if text.startswith("/"):
        return _from_path("", unquote(url.path), local=False)
    return _from_path("", text, local=not url.scheme)  # a drive of Windows is as good as a scheme


def _from_path(host: str, path: str, *, local: bool) -> _Address:
    parts = [part for part in [host, *path.replace("\\", "/").split("/")] if part not in ("", ".")]
    if not parts or len(parts) > _MAX_PARTS or ".." in parts or path.endswith(("/", "\\")):
        raise ProcessingError(f"expected the path of a file, got {path[:80]!r}; correct it")
    return _Address(tuple(parts), local)


def _decoded(text: str) -> str:
    """The address inside of a link that the server resolves."""
    try:
        # A plus in an address means a space.
        standard = text.rstrip("=").replace("-", "+").replace(" ", "+").replace("_", "/")
        inner = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ProcessingError(
            f"expected an address in base64 as fileuri, got {text[:80]!r} ({error}); export it again"
        ) from error
    if "fileuri=" in inner:
        raise ProcessingError(
            f"expected the address of a file as fileuri, got another link {inner[:80]!r}; export it again"
        )
    return inner
