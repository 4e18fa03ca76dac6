"""One object over time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


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
        frames = [None] * len(self) if self.frame is None else self.frame.tolist()
        columns = (self.time, self.x, self.y, self.visible, self.score)
        for time, x, y, visible, score, frame in zip(*(column.tolist() for column in columns), frames, strict=True):
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
        return f"Track(#{self.object_id}{name}, {len(self)} point{'s' * (len(self) != 1)}, {self.start:g}..{self.end:g} s)"
