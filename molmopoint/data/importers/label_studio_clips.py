"""Boxes in clips of Label Studio: key frames, between which a box moves in a straight line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.data.importers.collecting import Collector
from molmopoint.data.importers.common import listed, number, numbers, required, short
from molmopoint.data.importers.label_studio_regions import CLIP_SHAPE, Region, box_middles
from molmopoint.data.importers.point_lists import BROKEN, WITHOUT_PLACE
from molmopoint.errors import ProcessingError

_MAX_POINTS = 500_000
"""Points of a clip, as of ten boxes in half an hour; two key frames can claim any number of frames."""


def clip_rows(clip: Path, regions: Sequence[Region], fps: float | None, collector: Collector) -> Iterator[dict[str, Any]]:
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
        track = [{"x": x, "y": y, "t": time, "object_id": object_id} for (x, y), time in zip(middles.tolist(), times.tolist(), strict=True)]
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
    boxes = np.stack([np.interp(frames, keys[:, 0], keys[:, column]) for column in range(1, 6)], axis=1)
    middles = box_middles(boxes[:, :4], boxes[:, 4], region.size)
    seen = np.isfinite(middles).all(axis=1)
    times = np.maximum(frames - 1, 0) / _rate(region, fps)  # frames are counted from 1
    return times[seen], middles[seen]


def _key_frames(region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Key frames in order.

    Returns:
        (n, 6) frame, left, top, width, height and angle, and (n,) bool whether the box is shown from there on.
    """
    where = region.where
    rows: dict[float, tuple[list[float], bool]] = {}
    for key in listed(region.value.get("sequence"), where):
        if not isinstance(key, Mapping):
            raise ProcessingError(f"expected key frames, got {short(key)}; export it again")
        values = numbers([required(key, name, where) for name in ("frame", "x", "y", "width", "height")], where, 5).tolist()
        if values[0] < 0 or values[0] % 1:
            raise ProcessingError(f"expected frames counted from 1, got {values[0]:g}; export it again")
        angle = number(key.get("rotation") or 0, where)
        rows[values[0]] = ([*values, angle], bool(key.get("enabled", True)))
    if not rows:
        raise ProcessingError("expected key frames as sequence, got none; export it again")
    ordered = [rows[frame] for frame in sorted(rows)]
    return np.array([values for values, _ in ordered]), np.array([shown for _, shown in ordered])


def _shown_frames(keys: np.ndarray, enabled: np.ndarray, region: Region, at_most: int) -> np.ndarray:
    """(n,) all frames with the box: from an enabled key frame up to the next one, from the last to the clip's end.

    Key frames themselves count: one that is not enabled is the last frame of a stretch.
    """
    last = max(float(keys[-1]), number(region.value.get("framesCount") or 0, region.where))
    ends = np.append(keys[1:], last)
    wanted = len(keys) + float((ends - keys)[enabled].sum())
    if wanted > at_most:
        raise ProcessingError(f"expected at most {_MAX_POINTS:,} points in a clip, got {wanted:,.0f} more of this box; cut the clip")
    stretches = [np.arange(start, end + 1) for start, end, shown in zip(keys, ends, enabled, strict=True) if shown]
    return np.unique(np.concatenate([keys, *stretches]))


def _rate(region: Region, fps: float | None) -> float:
    """Frames per second in which the boxes are counted."""
    where, value = region.where, region.value
    rates = [fps]
    count, duration = (number(value.get(name) or 0, where) for name in ("framesCount", "duration"))
    rates.append(count / duration if count > 0 and duration > 0 else None)
    timed = [key for key in listed(value.get("sequence"), where) if key.get("time")]
    if timed:
        frame, time = numbers([timed[-1]["frame"], timed[-1]["time"]], where, 2).tolist()
        rates.append(frame / time if time > 0 else None)
    for rate in rates:
        if rate is not None and np.isfinite(rate) and 0 < rate < 1e4:
            return float(rate)
    raise ProcessingError("expected frames per second, got no duration; give the option fps")
