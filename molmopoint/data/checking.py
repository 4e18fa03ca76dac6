"""Looks through a data set before anything is trained on it.

Faults are what training would refuse, or learn wrongly from: missing and broken files, points outside,
coordinates of another
space, the same point twice. Notes are what a person should look at: class balance, copies, turned pictures.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from molmopoint.data.embedded import PictureFile, inspect_picture
from molmopoint.data.records import (
    FULL_SCALE,
    EmbeddedPicture,
    Record,
    iterate_rows,
    parse_record,
    picture_sources,
)
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file

Severity = Literal["fault", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: "fault" is refused by training or spoils it; "note" is for a person to judge.
        kind: short name, the same for the same problem.
        row: number of the row, from 1; None where it is the whole data set.
        message: what is there and what to do.
    """

    severity: Severity
    kind: str
    row: int | None
    message: str


@dataclass
class Report:
    """Findings and figures of a data set.

    Attributes:
        rows: rows read, faulty ones included.
        pictures: different picture files named.
        clips: different video files named.
        points: points in all rows.
        rows_without_points: rows that say there is nothing to point at.
        labels: rows per label, most frequent first; rows with a prompt alone are not in it.
        tokens: tokens of each row, where they were counted.
        findings: in the order of the rows, those of the whole data set last.
    """

    rows: int = 0
    pictures: int = 0
    clips: int = 0
    points: int = 0
    rows_without_points: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """Findings that must be put right."""
        return [finding for finding in self.findings if finding.severity == "fault"]

    @property
    def notes(self) -> list[Finding]:
        """Findings to judge."""
        return [finding for finding in self.findings if finding.severity == "note"]

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def fault(self, kind: str, row: int | None, message: str) -> None:
        """Adds a fault."""
        self.findings.append(Finding("fault", kind, row, message))

    def note(self, kind: str, row: int | None, message: str) -> None:
        """Adds a note."""
        self.findings.append(Finding("note", kind, row, message))

    def kinds(self) -> dict[str, int]:
        """Number of findings of each kind, faults first, the most frequent first within."""
        counts = Counter((finding.severity, finding.kind) for finding in self.findings).most_common()
        counts.sort(key=lambda entry: entry[0][0])  # by severity; the order within stays
        return {kind: count for (_, kind), count in counts}

    def token_summary(self) -> dict[str, float] | None:
        """Least, middle, 95th of a hundred and most tokens of a row; None where they were not counted."""
        if not self.tokens:
            return None
        low, middle, high, top = np.percentile(self.tokens, [0, 50, 95, 100])
        return {
            "min": float(low),
            "median": float(middle),
            "p95": float(high),
            "max": float(top),
            "total": float(sum(self.tokens)),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "ok": self.ok,
            "rows": self.rows,
            "pictures": self.pictures,
            "clips": self.clips,
            "points": self.points,
            "rows_without_points": self.rows_without_points,
            "labels": self.labels,
            "tokens": self.token_summary(),
            "faults": [_finding_fields(finding) for finding in self.faults],
            "notes": [_finding_fields(finding) for finding in self.notes],
        }


def _finding_fields(finding: Finding) -> dict[str, Any]:
    return {"kind": finding.kind, "row": finding.row, "message": finding.message}


_RARE = 5
"""Labels in fewer rows are noted."""

_DOMINANT = 0.8
"""A label with more than this share of the rows is noted."""

_MIN_POINTS = {"norm1": 3, "percent": 20}
"""Points a data set must have before it is called one of a smaller space: few may lie in a corner by chance."""

_LONG_SIDE = 200
"""Pixels; in a picture with shorter sides all points may well lie below 100."""


@dataclass(frozen=True)
class BrokenRow:
    """A row that is no record.

    Attributes:
        row: number of the row, from 1; of a file the line.
        reason: what was expected, what is there, and what to do.
    """

    row: int
    reason: str


def parsed_rows(source: str | os.PathLike[str] | Iterable[Mapping[str, Any]]) -> Iterator[Record | BrokenRow]:
    """Each row of a JSONL file or data set as `read_records` reads it, the broken ones too, so that one hides
    no other.

    Raises:
        ProcessingError: there is no such file.
    """
    for row, columns in iterate_rows(source):
        if isinstance(columns, ProcessingError):
            yield BrokenRow(row, str(columns))
            continue
        try:
            yield parse_record(columns, row)
        except ProcessingError as error:
            yield BrokenRow(row, str(error))


def check_records(
    records: Iterable[Record | BrokenRow],
    root: str | os.PathLike[str],
    *,
    count_tokens: Callable[[Record], int] | None = None,
    decode: bool = True,
) -> Report:
    """Faults and notes of a data set.

    Args:
        records: rows as `read_records` or `parsed_rows` give them; a broken row counts as a fault.
        root: folder in which relative paths begin, that of the JSONL file.
        count_tokens: tokens of a row; where given, the report says how they are spread.
        decode: decode every picture, which alone finds files that are cut off.
    """
    check = _Check(Path(root), decode)
    for record in records:
        check.report.rows += 1
        if isinstance(record, BrokenRow):
            check.report.fault("malformed", record.row, record.reason)
            continue
        check.add(record)
        if count_tokens is not None:
            check.report.tokens.append(count_tokens(record))
    return check.finish()


class _Check:
    """One pass over the rows, and what must be remembered of them."""

    def __init__(self, root: Path, decode: bool) -> None:
        self.report = Report()
        self._root = root
        self._decode = decode
        self._files: dict[Path | EmbeddedPicture, PictureFile | str] = {}
        self._clips: dict[Path, bool] = {}
        self._answers: dict[Hashable, tuple[int, Hashable]] = {}
        self._labels: Counter[str] = Counter()
        self._extents: dict[tuple[str | None, str], list[float]] = defaultdict(list)
        self._shortest_side: dict[tuple[str | None, str], int] = {}

    def add(self, record: Record) -> None:
        files = [self._picture(source, record.row) for source in picture_sources(record, self._root)]
        clip = None if record.video is None else self._root / record.video
        if clip is not None and not self._clips.setdefault(clip, is_file(clip)):
            self.report.fault(
                "missing_file", record.row, f"expected a clip, got no file {clip}; check the path"
            )
        self.report.points += record.num_points
        for request in record.requests:
            self._labels.update(_labels_of(request))
            self._check_repeated_points(request)
            if request.points:
                self._check_places(request, files)
        self.report.rows_without_points += any(request.no_points for request in record.requests)
        if not record.turns:
            self._check_twice(record)

    def finish(self) -> Report:
        """Adds what only the whole data set shows."""
        report = self.report
        report.pictures, report.clips = len(self._files), len(self._clips)
        report.labels = dict(self._labels.most_common())
        if not report.rows:
            report.fault(
                "empty", None, "expected one or more rows, got none; check that it is the file you meant"
            )
        self._check_spaces()
        self._check_copies()
        self._check_balance()
        return report

    def _picture(self, path: Path | EmbeddedPicture, row: int) -> PictureFile | None:
        """The picture if it can be read; each one is opened once, and reported at the first row that names
        it.
        """
        if path not in self._files:
            if isinstance(path, Path) and not is_file(path):
                self._files[path] = "missing"
                self.report.fault(
                    "missing_file",
                    row,
                    f"expected a picture, got no file {path}; check the path and the folder",
                )
            else:
                found = self._files[path] = inspect_picture(path, self._decode)
                if isinstance(found, str):
                    self.report.fault(
                        "unreadable_picture",
                        row,
                        f"expected a picture in {_name(path)}, got {found}; replace it",
                    )
        found = self._files[path]
        return None if isinstance(found, str) else found

    def _check_repeated_points(self, record: Record) -> None:
        """The same point twice in a row."""
        repeated = [place for place, count in _places(record).items() if count > 1]
        if not repeated:
            return
        x, y = repeated[0][:2]
        more = f" and {len(repeated) - 1} more" if len(repeated) > 1 else ""
        self.report.fault(
            "duplicate_point", record.row, f"the point ({x:g}, {y:g}){more} is there twice; drop the copies"
        )

    def _check_twice(self, record: Record) -> None:
        """The same row twice, and two answers to one request."""
        request = (
            record.visual,
            record.prompt,
            record.prompts,
            record.label,
            record.style,
            record.caption is not None,
        )
        answer = (frozenset(_places(record)), record.coords, record.no_points, record.answer, record.caption)
        first_row, first_answer = self._answers.setdefault(request, (record.row, answer))
        if first_row == record.row:
            return
        if first_answer == answer:
            self.report.note("duplicate_row", record.row, f"the same as row {first_row}; drop one of them")
        elif record.is_pointing:
            advice = "put the points of one request into one row, or word the requests apart"
            self.report.note(
                "two_answers",
                record.row,
                f"asks the same as row {first_row} and answers differently; {advice}",
            )

    def _check_places(self, record: Record, files: list[PictureFile | None]) -> None:
        """Points outside their picture, and what may have gone wrong with them."""
        points, coords = record.points or (), str(record.coords)
        xy = np.array([(point.x, point.y) for point in points])
        key = (record.source, coords)
        self._extents[key] += [float(value) for value in xy.max(axis=1)]
        if coords in FULL_SCALE:
            full = np.full_like(xy, FULL_SCALE[coords])
            outside = _outside(xy, full)
            if outside.any():
                message = _outside_message(xy, full, outside) + _fitting_space(xy, coords)
                self.report.fault("point_outside", record.row, message)
            return
        if record.video is not None or any(file is None for file in files):
            return  # clips are not opened here, and what is wrong with the files has been said
        known = [file for file in files if file is not None]
        shortest = min(min(file.displayed) for file in known)
        self._shortest_side[key] = min(self._shortest_side.get(key, shortest), shortest)
        which = [point.image for point in points]
        self._check_pixels(record.row, xy, [known[i] for i in which])

    def _check_pixels(self, row: int, xy: np.ndarray, files: list[PictureFile]) -> None:
        """Points in pixels against the size of their pictures, as displayed, as stored, and with x and y
        exchanged.
        """
        displayed = np.array([file.displayed for file in files], dtype=np.float64)
        stored = np.array([file.stored for file in files], dtype=np.float64)
        outside = _outside(xy, displayed)
        turned = [file for file in files if file.orientation != 1]
        if not outside.any():
            if turned:
                advice = "points are counted in the picture as shown; make sure that the annotation tool showed it upright"
                self.report.note(
                    "exif_rotated", row, f"the picture has EXIF orientation {turned[0].orientation}; {advice}"
                )
            return
        message = _outside_message(xy, displayed, outside)
        if (displayed != stored).any() and not _outside(xy, stored).any():
            hint = "they fit the picture as stored, before its EXIF rotation; turn the points, or remove the EXIF orientation"
            self.report.fault("exif_rotated", row, f"{message}; {hint}")
        elif not _outside(xy[:, ::-1], displayed).any():
            self.report.fault(
                "swapped_axes", row, f"{message}; they fit with x and y exchanged; exchange them"
            )
        else:
            self.report.fault(
                "point_outside", row, f"{message}; correct or drop them, or name the right space in coords"
            )

    def _check_spaces(self) -> None:
        """Points of a source that all lie in the corner that another space would fill."""
        for (source, coords), extents in self._extents.items():
            for smaller, least in _MIN_POINTS.items():
                full = FULL_SCALE[smaller]
                if coords == "pixel":
                    shortest = self._shortest_side.get((source, coords), 0)
                    is_larger = shortest >= max(_LONG_SIDE, full)
                else:
                    is_larger = FULL_SCALE[coords] > full
                if smaller == coords or not is_larger or len(extents) < least or max(extents) > full:
                    continue
                name = "" if source is None else f" of source {source!r}"
                message = f"all {len(extents)} points{name} with coords {coords!r} lie in 0..{full:g}; they look like {smaller!r}"
                if smaller == "norm1":
                    self.report.fault("wrong_space", None, f"{message}; correct coords")
                else:
                    self.report.note("wrong_space", None, f"{message}; look at the contact sheet")
                break

    def _check_copies(self) -> None:
        by_digest: dict[str, list[Path | EmbeddedPicture]] = defaultdict(list)
        for path, file in self._files.items():
            if isinstance(file, PictureFile):
                by_digest[file.digest].append(path)
        for copies in by_digest.values():
            if len(copies) > 1:
                names = ", ".join(path.name for path in copies[:3])
                self.report.note(
                    "same_picture",
                    None,
                    f"{len(copies)} files hold the same picture ({names}); keep them on one side of a split",
                )

    def _check_balance(self) -> None:
        labels = self._labels
        report = self.report
        rare = [label for label, count in labels.items() if count < _RARE]
        if rare:
            rarest = sorted(rare, key=labels.__getitem__)[:5]
            names = ", ".join(map(repr, rarest))
            if len(rare) > len(rarest):
                names += ", ..."
            report.note(
                "rare_label",
                None,
                f"{len(rare)} of {len(labels)} labels are in fewer than {_RARE} rows ({names})",
            )
        if len(labels) > 1:
            top, count = labels.most_common(1)[0]
            if count > _DOMINANT * labels.total():
                report.note(
                    "dominant_label",
                    None,
                    f"{count / labels.total():.0%} of labelled rows are {top!r}; the others are learnt less "
                    "well",
                )
        if report.points and not report.rows_without_points:
            report.note(
                "no_absent_targets",
                None,
                "no row says no_points, so a model may learn to point at something every time",
            )


def _labels_of(record: Record) -> set[str]:
    """What a row points at: its label, or those of its points."""
    if record.label:
        return {record.label}
    return {point.label for point in record.points or () if point.label}


def _places(record: Record) -> Counter[tuple[float, float, int, float | None, str | None]]:
    """How often each place is pointed at."""
    return Counter((point.x, point.y, point.image, point.t, point.label) for point in record.points or ())


def _name(picture: Path | EmbeddedPicture) -> str:
    """The picture in messages."""
    return picture.name if isinstance(picture, EmbeddedPicture) else str(picture)


def _outside(xy: np.ndarray, full: np.ndarray) -> np.ndarray:
    """(n,) bool: which points (n, 2) lie outside 0..full (n, 2)."""
    return np.any((xy < 0) | (xy > full), axis=1)


def _outside_message(xy: np.ndarray, full: np.ndarray, outside: np.ndarray) -> str:
    first = int(np.argmax(outside))
    (x, y), (width, height) = xy[first], full[first]
    verb = "lies" if outside.sum() == 1 else "lie"
    return f"{outside.sum()} of {len(xy)} points {verb} outside 0..{width:g}, 0..{height:g}, the first at ({x:g}, {y:g})"


def _fitting_space(xy: np.ndarray, coords: str) -> str:
    """The smallest other space that holds all points, as a hint."""
    for name in ("norm1", "percent", "norm1000"):
        full = np.full_like(xy, FULL_SCALE[name])
        if name != coords and not _outside(xy, full).any():
            return f"; they would fit {name!r}, if coords is wrong"
    return "; correct or drop them, or name the right space in coords"
