"""Where training examples come from: groups of the user's rows, or scenes drawn on the fly.

A source gives for a number the rows and the pictures they are about; what becomes of them is the same for all
sources.

Rows to train on from a file, looked through before anything is trained.

Whatever training would refuse, or learn wrongly from, stops it here: the message names the row and what to
do. Broken pictures do
not: they are noted, and skipped, counted and listed when their turn comes.

Which part of the data is kept for the score: whole pictures, never single rows.

The choice depends on the names of the pictures and the seed alone. So it is the same on every machine and in
every order of the rows, and adding rows leaves most of it as it was.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from molmopoint.data.checking import BrokenRow, Finding, Report, check_records, parsed_rows
from molmopoint.data.questions import Query
from molmopoint.data.records import Record, RecordPoint, resolve_media
from molmopoint.data.synthetic import sample_scene
from molmopoint.errors import ProcessingError


class _HasMedia(Protocol):
    @property
    def media(self) -> tuple[str, ...]: ...


Row = TypeVar("Row", bound=_HasMedia)
"""A row that names what it is about."""


def split_records(records: Sequence[Row], part: float, seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and rows that are held out, both in their old order.

    Rows that share a picture or clip, even through others, stay together. Rows without visual input are
    trained on.

    Args:
        records: all rows.
        part: pictures to hold out; below 1 a part of all of them, else a number. At least one and not all, if
            there are two.
        seed: of the choice.
    """
    clusters = _clusters(records)
    wanted = round(part * sum(map(len, clusters)) if part < 1 else part)
    if part <= 0 or len(clusters) < 2:
        return list(records), []
    held: set[str] = set()
    ranked = sorted(clusters, key=lambda files: hashlib.sha256(f"{seed}\n{min(files)}".encode()).digest())
    for files in ranked[:-1]:
        if len(held) >= max(wanted, 1):
            break
        held |= files
    apart = [bool(held.intersection(record.media)) for record in records]
    return [r for r, out in zip(records, apart, strict=True) if not out], [
        r for r, out in zip(records, apart, strict=True) if out
    ]


def _clusters(records: Iterable[_HasMedia]) -> list[set[str]]:
    """Files that occur together, directly or through others."""
    parent: dict[str, str] = {}

    def root(file: str) -> str:
        while parent.setdefault(file, file) != file:
            parent[file] = file = parent[parent[file]]
        return file

    for record in records:
        for file in record.media:
            parent[root(file)] = root(record.media[0])
    clusters: defaultdict[str, set[str]] = defaultdict(set)
    for file in list(parent):
        clusters[root(file)].add(file)
    return list(clusters.values())


Rows: TypeAlias = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
"""A JSONL file, or a data set with the same columns."""

OnProgress: TypeAlias = Callable[[Iterable[Any], str], Iterable[Any]]
"""Shows how far an iteration is; gets a title."""

_SHOWN = 5
"""Faults that a message quotes."""

_LOOKED_AT = 100
"""Rows that are looked at before anything is loaded; with a picture each that takes some hundredths of a second."""

_SKIPPABLE = ("unreadable_picture",)
"""Faults of single files that training can do without."""


def no_progress(iterable: Iterable[Any], title: str) -> Iterable[Any]:
    """Shows nothing."""
    return iterable


def load_rows(rows: Rows, *, on_progress: OnProgress = no_progress) -> tuple[list[Record], Path]:
    """Checked rows, and the folder in which their relative paths begin.

    Args:
        rows: a JSONL file, or a data set with the same columns, whose paths begin in the working folder.
        on_progress: shows how far the check is.

    Raises:
        ProcessingError: a fault; the first ones are quoted with their rows and remedies.
    """
    name = str(rows) if isinstance(rows, str | os.PathLike) else "the data set"
    folder = Path(rows).parent if isinstance(rows, str | os.PathLike) else Path()
    kept: list[Record] = []

    def keep() -> Iterator[Record | BrokenRow]:
        for row in on_progress(parsed_rows(rows), f"checking {Path(name).name}"):
            if isinstance(row, Record):
                kept.append(row)
            yield row

    _refuse_faults(check_records(keep(), folder, decode=False), name)
    _check_spaces(kept, name)
    return kept, folder


def check_first_rows(path: str | os.PathLike[str]) -> None:
    """Looks through the first rows of a JSONL file: what is wrong with all of them is told before the libraries
    of models are loaded.

    Args:
        path: of the file.

    Raises:
        ProcessingError: a fault, as `load_rows` tells it.
    """
    first = islice(parsed_rows(path), _LOOKED_AT)
    _refuse_faults(check_records(first, Path(path).parent, decode=False), os.fspath(path))


def _refuse_faults(report: Report, name: str) -> None:
    """Raises ProcessingError where rows have faults that training cannot skip."""
    faults = [fault for fault in report.faults if fault.kind not in _SKIPPABLE]
    if faults:
        raise ProcessingError(
            f"expected rows without faults in {name}, got {_quote(faults)}; `molmopoint data check` shows "
            "them all"
        )


def check_apart(trained: Sequence[Record], held_out: Sequence[Record], folders: tuple[Path, Path]) -> None:
    """Refuses a held-out file with pictures that are trained on: its score would mean nothing.

    Args:
        trained: rows to train on.
        held_out: rows to score on.
        folders: of both, for their paths.
    """
    known = {(folders[0] / file).resolve(): record.row for record in trained for file in record.media}
    for record in held_out:
        for file in record.media:
            if (row := known.get((folders[1] / file).resolve())) is not None:
                raise ProcessingError(
                    f"row {record.row} of the held-out data: expected a picture that is not trained on, got "
                    f"{file}, which is in row {row} "
                    "of the training data; remove it from one of them, or leave the held-out file out and "
                    "let a part be held out"
                )


def _check_spaces(records: Sequence[Record], name: str) -> None:
    """Refuses rows of one source whose coordinates are in several spaces: one of them is likely wrong."""
    first: dict[str | None, Record] = {}
    for record in records:
        if record.coords is None:
            continue
        earlier = first.setdefault(record.source, record)
        if earlier.coords != record.coords:
            raise ProcessingError(
                f"row {record.row}, coords: expected {earlier.coords!r} as in row {earlier.row} of {name}, "
                f"got {record.coords!r}; "
                "bring all rows into one space, or name the data sets they come from in `source`"
            )


def _quote(faults: Sequence[Finding]) -> str:
    """The first faults of several, each with its row unless its message names it."""
    lines = []
    for fault in faults[:_SHOWN]:
        place = "" if fault.row is None or fault.message.startswith("row ") else f"row {fault.row}: "
        lines.append(f"{place}{fault.message}")
    more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return f"{len(faults)}: {'; '.join(lines)}{more}"


REPLAY_SEED = 71_041
"""First part of the seeds of scenes for replay; no other scenes of the project have it."""

_NUM_SCENES = 65_536
"""Scenes of one pass; those of the next pass are others."""


@dataclass(frozen=True, eq=False)
class Example:
    """Rows on one visual input.

    Attributes:
        records: one or more, each one expression.
        pictures: files or PIL pictures, in the order of the rows' `images`.
        clip: file of the clip; None without.
        masks: per record the masks (height, width) of its targets; None where only points are known.
    """

    records: tuple[Record, ...]
    pictures: tuple[Any, ...] = ()
    clip: Path | None = None
    masks: tuple[tuple[np.ndarray, ...], ...] | None = None


class Source(Protocol):
    """Examples by number."""

    @property
    def name(self) -> str:
        """For losses per source and messages."""
        ...

    def __len__(self) -> int: ...

    def example(self, index: int, epoch: int = 0) -> Example:
        """The example of this number; a source that draws may give others in other epochs."""
        ...


@dataclass(frozen=True, eq=False)
class GroupSource:
    """Groups of the rows of a file.

    Attributes:
        name: of the data.
        groups: as `trees.group_records` makes them.
        folder: where relative paths begin.
    """

    name: str
    groups: Sequence[tuple[Record, ...]]
    folder: Path

    def __len__(self) -> int:
        return len(self.groups)

    def example(self, index: int, epoch: int = 0) -> Example:
        """The group of this number, the same in every epoch."""
        group = self.groups[index]
        pictures, clip = resolve_media(group[0], self.folder)
        return Example(group, tuple(pictures), clip)


@dataclass(frozen=True)
class SceneSource:
    """Scenes of `molmopoint.data.synthetic`, what the embedded model was trained on.

    Attributes:
        name: of the source.
        seed: first part of every scene's seed.
        size: scenes of an epoch.
        held_out: show pairs of colour and shape that are kept for scores.
    """

    name: str = "synthetic"
    seed: int = REPLAY_SEED
    size: int = _NUM_SCENES
    held_out: bool = False

    def __len__(self) -> int:
        return self.size

    def example(self, index: int, epoch: int = 0) -> Example:
        """The scene of this number and epoch."""
        number = index + epoch * self.size
        scene = sample_scene(np.random.default_rng([self.seed, number]), self.held_out)
        records = tuple(_record_of(query, number + 1) for query in scene.queries)
        masks = tuple(tuple(target.mask for target in query.targets) for query in scene.queries)
        return Example(records, (scene.image,), masks=masks)


def _record_of(query: Query, row: int) -> Record:
    """A question about a scene as a row."""
    points = tuple(RecordPoint(target.x, target.y) for target in query.targets)
    return Record(
        row,
        images=("scene",),
        prompt=query.prompt if query.style == "point_count" else f"Point to {query.prompt}",
        label=query.label,
        points=points or None,
        coords="pixel" if points else None,
        no_points=not points,
        style=query.style,
        source="synthetic",
    )
