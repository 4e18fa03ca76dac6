"""Tracks as results: columns that know their units, objects on demand.

A row says where an object is at a moment. What no row says is told apart by `moments`, the times at which
objects were looked for: models list only what they see, so an object without a row at one of the moments was
not in sight (or was missed), and between the moments nothing is known. `interpolated` fills the gaps between
the points of an object and marks the rows it adds: `visible` is False where the object was looked for in
between and not found.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.points import Points
from molmopoint.tracks.columns import Columns, checked_columns
from molmopoint.tracks.document import rows_from_document, rows_to_document
from molmopoint.tracks.files import read_document, write_document
from molmopoint.tracks.resampling import check_max_gap, resample, wanted_times


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """Where one object is at one moment.

    Attributes:
        object_id: number of the object.
        time: seconds from the start of the clip.
        x: pixels from the left edge of the displayed video.
        y: pixels from its upper edge.
        visible: whether it is in sight; False where its place is only inferred.
        score: 0..1, uncalibrated; NaN if unknown.
        frame: number of the frame on screen, from 0; None if unknown.
        label: phrase that names the object, if known.
    """

    object_id: int
    time: float
    x: float
    y: float
    visible: bool = True
    score: float = math.nan
    frame: int | None = None
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Track:
    """One object over time; iterating gives its n points in the order of time. `Tracks` makes it.

    Attributes:
        object_id: number of the object.
        time: (n,) float64 seconds, ascending.
        x: (n,) float64 pixels of the displayed video.
        y: (n,) float64 pixels of the displayed video.
        visible: (n,) bool.
        score: (n,) float64, NaN where unknown.
        frame: (n,) int64 from 0, or None.
        label: phrase that names the object, if known.
    """

    object_id: int
    time: np.ndarray
    x: np.ndarray
    y: np.ndarray
    visible: np.ndarray
    score: np.ndarray
    frame: np.ndarray | None = None
    label: str | None = None

    def __len__(self) -> int:
        return len(self.time)

    def __iter__(self) -> Iterator[TrackPoint]:
        columns = [column.tolist() for column in (self.time, self.x, self.y, self.visible, self.score)]
        frames = [None] * len(self) if self.frame is None else self.frame.tolist()
        for time, x, y, visible, score, frame in zip(*columns, frames, strict=True):
            yield TrackPoint(self.object_id, time, x, y, visible, score, frame, self.label)

    @property
    def xy(self) -> np.ndarray:
        """(n, 2) pixels of the displayed video."""
        return np.stack([self.x, self.y], axis=1)

    @property
    def start(self) -> float:
        """Seconds of its first point."""
        return float(self.time[0])

    @property
    def end(self) -> float:
        """Seconds of its last point."""
        return float(self.time[-1])

    def __repr__(self) -> str:
        name = "" if self.label is None else f" {self.label!r}"
        points = "point" if len(self) == 1 else "points"
        return f"Track(#{self.object_id}{name}, {len(self)} {points}, {self.start:g}..{self.end:g} s)"


_PREVIEW = 3


@dataclass(frozen=True, eq=False, repr=False)
class Tracks(Sequence[Track]):
    """Objects over time: a sequence of `Track`, in the order of ids, that keeps its n points as columns.

    Rows are put in order at birth: by time, then by object.

    Attributes:
        object_id: (n,) int64 number of the object.
        time: (n,) float64 seconds from the start of the clip.
        x: (n,) float64 pixels of the displayed video.
        y: (n,) float64 pixels of the displayed video.
        visible: (n,) bool; False for a place that is only inferred. None at birth means all are in sight.
        score: (n,) float64 in 0..1, NaN where unknown; None at birth means unknown for all.
        frame: (n,) int64 number of the frame on screen, from 0; None if unknown.
        size: (width, height) of the displayed video; None if unknown.
        fps: frames per second of the video; None if unknown.
        moments: (T,) float64 seconds at which objects were looked for, ascending, those of all rows among
            them. None at birth means those of the rows.
        labels: phrase that names an object, by its number; objects without one are left out.

    Raises:
        GroundingError: columns of unequal length, a number out of range, or an object that is in two places
            at once.
    """

    object_id: np.ndarray
    time: np.ndarray
    x: np.ndarray
    y: np.ndarray
    visible: np.ndarray = None  # type: ignore[assignment]  # becomes a column at birth, as the next one and moments
    score: np.ndarray = None  # type: ignore[assignment]
    frame: np.ndarray | None = None
    size: tuple[int, int] | None = None
    fps: float | None = None
    moments: np.ndarray = None  # type: ignore[assignment]
    labels: Mapping[int, str] | None = None

    def __post_init__(self) -> None:
        given = Columns(self.object_id, self.time, self.x, self.y, self.visible, self.score, self.frame)
        columns, about = checked_columns(given, self.size, self.fps, self.moments, self.labels)
        for name, value in (columns._asdict() | about._asdict()).items():
            object.__setattr__(self, name, value)

    @classmethod
    def empty(
        cls, *, size: tuple[int, int] | None = None, fps: float | None = None, moments: Any = None
    ) -> Tracks:
        """No objects, though they may have been looked for."""
        none = np.empty(0)
        return cls(none, none, none, none, size=size, fps=fps, moments=moments)

    @classmethod
    def from_points(cls, points: Points, *, fps: float | None = None, moments: Any = None) -> Tracks:
        """Tracks from the points of an answer about a clip: equal ids are one object.

        Args:
            points: of a clip; their groups are seconds.
            fps: frames per second of the video.
            moments: (T,) seconds of the frames that the model saw; the times of points are added.

        Of several points of one object at one time the first is kept.

        Raises:
            GroundingError: points of pictures.
        """
        if not points.is_video:
            raise GroundingError(
                "expected points of a clip, whose groups are seconds, got points of pictures; track in a "
                "video"
            )
        points = points[_first_of_each_place(points)]
        labels: dict[int, str] = {}
        for number, label in zip(points.object_id.tolist(), points.labels or (), strict=False):
            if label is not None:
                labels[number] = label
        looked_for: Any = None
        if moments is not None:
            seen = np.asarray(moments, dtype=np.float64).reshape(-1)
            looked_for = np.concatenate([seen, points.group])
        size = points.image_sizes[0] if points.image_sizes else None
        columns = (points.object_id, points.group, points.x, points.y)
        return cls(*columns, score=points.score, size=size, fps=fps, moments=looked_for, labels=labels)

    def to_points(self) -> Points:
        """The rows as points of a clip; `visible` and `moments` have no place there."""
        labels = None
        if self.labels:
            labels = [self.labels.get(number) for number in self.object_id.tolist()]
        sizes = None if self.size is None else [self.size]
        return Points(self.object_id, self.time, self.x, self.y, self.score, image_sizes=sizes, labels=labels)

    @property
    def num_points(self) -> int:
        """Rows of all objects together."""
        return len(self.time)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Numbers of the objects, ascending."""
        return tuple(np.unique(self.object_id).tolist())

    @property
    def xy(self) -> np.ndarray:
        """(n, 2) pixels of the displayed video."""
        return np.stack([self.x, self.y], axis=1)

    def track(self, object_id: int) -> Track:
        """One object by its number.

        Raises:
            GroundingError: no object has this number.
        """
        rows = self.object_id == object_id
        if not rows.any():
            raise GroundingError(
                f"expected the number of an object out of {list(self.object_ids)}, got {object_id!r}"
            )
        frame = None if self.frame is None else self.frame[rows]
        label = (self.labels or {}).get(int(object_id))
        columns = (self.time[rows], self.x[rows], self.y[rows], self.visible[rows], self.score[rows])
        return Track(int(object_id), *columns, frame=frame, label=label)

    def where(self, rows: Any) -> Tracks:
        """Some of the rows, by a mask (n,) or a list of indices; the moments stay."""
        chosen = np.arange(self.num_points)[_as_index(rows)]
        ids = self.object_id[chosen]
        return replace(
            self,
            object_id=ids,
            time=self.time[chosen],
            x=self.x[chosen],
            y=self.y[chosen],
            visible=self.visible[chosen],
            score=self.score[chosen],
            frame=None if self.frame is None else self.frame[chosen],
            labels=self._labels_of(ids),
        )

    def between(self, start: float, end: float) -> Tracks:
        """Rows and moments of a part of the time, both ends included.

        Raises:
            GroundingError: the part ends before it starts.
        """
        if not start <= end:
            raise GroundingError(
                f"expected a part of time whose end is not before its start, got {start}..{end}"
            )
        part = self.where((self.time >= start) & (self.time <= end))
        is_inside = (self.moments >= start) & (self.moments <= end)
        return replace(part, moments=self.moments[is_inside])

    def shifted(self, seconds: float) -> Tracks:
        """The same at later times, such as those of the file that a clip was cut from; times are rounded to
        microseconds.

        Raises:
            GroundingError: a time becomes negative.
        """
        frame = None
        if self.frame is not None and self.fps is not None:
            frame = self.frame + round(seconds * self.fps)
        time = np.round(self.time + seconds, 6)
        moments = np.round(self.moments + seconds, 6)
        return replace(self, time=time, moments=moments, frame=frame)

    def renumbered(self, numbers: Mapping[int, int]) -> Tracks:
        """The same with other numbers for objects; those that are not named keep theirs.

        Raises:
            GroundingError: two objects of one moment get the same number.
        """
        ids = [numbers.get(number, number) for number in self.object_id.tolist()]
        labels = {}
        for number, label in (self.labels or {}).items():
            labels[numbers.get(number, number)] = label
        return replace(self, object_id=np.array(ids, dtype=np.int64), labels=labels)

    def by_moment(self) -> Iterator[tuple[float, tuple[TrackPoint, ...]]]:
        """Every moment in order with the objects that have a place then; there may be none."""
        points = [point for track in self for point in track]
        points.sort(key=lambda point: (point.time, point.object_id))
        position = 0
        for moment in self.moments.tolist():
            first = position
            while position < len(points) and points[position].time == moment:
                position += 1
            yield moment, tuple(points[first:position])

    def at(self, time: float, *, max_gap: float | None = None) -> tuple[TrackPoint, ...]:
        """The objects at a time, on straight lines between the points before and after it.

        Args:
            time: seconds.
            max_gap: as in `interpolated`.

        Raises:
            GroundingError: the time is negative or no number.
        """
        if not (math.isfinite(time) and time >= 0):
            raise GroundingError(f"expected a time of 0 or more seconds, got {time}")
        places = self.interpolated(times=[time], max_gap=max_gap)
        return tuple(point for track in places for point in track)

    def interpolated(
        self, fps: float | None = None, *, times: Any = None, max_gap: float | None = None
    ) -> Tracks:
        """The objects at regular times, or at given ones, on straight lines between their points.

        Args:
            fps: points per second and object, at multiples of 1/fps. The first and the last point of an
                object, and those beside a gap, move to the nearest multiple.
            times: (m,) seconds instead; nothing moves.
            max_gap: seconds without a point beyond which an object counts as gone; None fills every gap.

        Returns:
            Rows at those times; scores only where a point was there already. `visible` is False where the
            object was looked for between two points and not found. Before its first and after its last point
            an object has no rows.

        Raises:
            GroundingError: neither fps nor times or both, or a number out of range.
        """
        wanted, reach = wanted_times(fps, times, self.time)
        check_max_gap(max_gap)
        if not len(self):
            return Tracks.empty(size=self.size, fps=fps or self.fps, moments=wanted)
        ids, index, xy, visible, scores = [], [], [], [], []  # a part (k,) of each column per object
        for track in self:
            part = resample(track.time, track.xy, track.visible, self.moments, wanted, reach, max_gap)
            ids.append(np.full(len(part.index), track.object_id))
            index.append(part.index)
            xy.append(part.xy)
            visible.append(part.visible)
            scores.append(np.where(part.known >= 0, track.score[part.known], np.nan))

        time = wanted[np.concatenate(index)]  # (n,)
        places = np.concatenate(xy)  # (n, 2)
        object_id = np.concatenate(ids)
        return Tracks(
            object_id=object_id,
            time=time,
            x=places[:, 0],
            y=places[:, 1],
            visible=np.concatenate(visible),
            score=np.concatenate(scores),
            frame=np.rint(time * fps).astype(np.int64) if fps else None,
            size=self.size,
            fps=fps or self.fps,
            moments=wanted,
            labels=self._labels_of(object_id),
        )

    def masks(
        self,
        segmenter: Any,
        video: Any,
        *,
        timestamps: Sequence[float] | np.ndarray | None = None,
        fps: float | None = None,
        negative_others: bool = False,
    ) -> Any:
        """`Masks`: one per object and frame; every point in sight is a click.

        Args:
            segmenter: what `molmopoint.load_segmenter` returned.
            video: the file, or its frames: (T, height, width, 3) uint8 or a list of pictures.
            timestamps: (T,) seconds of the frames; of a file the moments to look at, by default those of
                these tracks.
            fps: frames per second of a file to look at instead.
            negative_others: points of the nearest other objects of the same frame say "not here".

        Raises:
            ProcessingError: the video cannot be read.
            GroundingError: the segmenter is something else, or a point lies outside of the frames.
        """
        if not hasattr(segmenter, "follow"):
            raise GroundingError(
                f"expected what molmopoint.load_segmenter returns, got {type(segmenter).__name__}; load a "
                "segmenter first"
            )
        if timestamps is None and fps is None and len(self.moments):
            timestamps = self.moments
        points = self.where(self.visible).to_points()
        return segmenter.follow(
            video, points, timestamps=timestamps, fps=fps, negative_others=negative_others
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON: unknown scores are None. `from_dict` reads it back."""
        columns = Columns(self.object_id, self.time, self.x, self.y, self.visible, self.score, self.frame)
        return rows_to_document(columns, self.size, self.fps, self.moments, self.labels or {})

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Tracks:
        """Reads what `to_dict` wrote.

        Raises:
            GroundingError: another schema version, or a missing or malformed entry.
        """
        return cls(**rows_from_document(document))

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as strict JSON: NaN becomes null."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Tracks:
        """Reads what `to_json` wrote; GroundingError as in `from_dict`."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GroundingError(f"expected JSON as Tracks.to_json writes it, got: {error}") from error
        return cls.from_dict(document)

    def save(self, path: str | os.PathLike[str], format: str | None = None, **options: Any) -> None:
        """Writes a file for other tools; see docs/tracking.md for what each form can keep.

        Args:
            path: of the file.
            format: "csv", "json", "mot" or "coco"; by default as the ending says: .csv, .json, or .txt for
                MOTChallenge.
            **options: `fps` of the frame numbers and `box`, the (width, height) of the boxes around the
                points, in pixels: for "mot" and "coco". Points are boxes of size zero by default.

        Raises:
            GroundingError: an unknown format or option, or no rate where frames must be numbered.
        """
        write_document(self.to_dict(), path, format, **options)

    @classmethod
    def load(cls, path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Tracks:
        """Reads a file that `save` wrote, or one of another tool in the same form.

        Args:
            path: of the file.
            format: as in `save`; a .json file is recognised by what it holds.
            **options: what a form does not hold: `fps` and `size` of the video and `label` of all objects,
                for "csv" and "mot".

        Raises:
            GroundingError: the file is missing or of another form, or needs an option.
        """
        return cls.from_dict(read_document(path, format, **options))

    def __len__(self) -> int:
        return len(self.object_ids)

    def __iter__(self) -> Iterator[Track]:
        return map(self.track, self.object_ids)

    @overload
    def __getitem__(self, index: int) -> Track: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> Tracks: ...

    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> Track | Tracks:
        """One object for an int, counted from 0 in the order of ids; tracks of several for a slice, a mask or
        a list of them.
        """
        ids = np.array(self.object_ids, dtype=np.int64)
        if isinstance(index, (int, np.integer)):
            return self.track(int(ids[index]))
        chosen = ids[index] if isinstance(index, slice) else ids[_as_index(index)]
        return self.where(np.isin(self.object_id, chosen))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tracks):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # arrays can be changed in place

    def __repr__(self) -> str:
        if not len(self):
            return f"Tracks(0 objects at {len(self.moments)} moments)"
        shown = []
        for i in range(min(len(self), _PREVIEW)):
            inside_brackets = repr(self[i]).removeprefix("Track(").removesuffix(")")
            shown.append(inside_brackets)
        if len(self) > _PREVIEW:
            shown.append(f"... {len(self) - _PREVIEW} more")
        objects = "object" if len(self) == 1 else "objects"
        return f"Tracks({len(self)} {objects}: {'; '.join(shown)})"

    def _labels_of(self, ids: np.ndarray) -> dict[int, str]:
        """The labels of some objects."""
        return {number: label for number, label in (self.labels or {}).items() if number in ids}


def _as_index(rows: Any) -> np.ndarray:
    """A mask or indices as an array; an empty list is one of indices."""
    return np.asarray(rows, dtype=None if np.size(rows) else np.int64)


def _first_of_each_place(points: Points) -> np.ndarray:
    """Indices, ascending, of the points that are the first of their object at their time."""
    _, objects = np.unique(points.object_id, return_inverse=True)
    places = np.stack([points.group, objects.reshape(-1)], axis=1)  # (n, 2); whole ids might not fit a float
    _, first = np.unique(places, axis=0, return_index=True)
    return np.sort(first)
