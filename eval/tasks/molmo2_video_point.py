"""Molmo2-VideoPoint: point to everything a label names, at any moment of a video. Source: Molmo2, arXiv 2601.10611.

- Points and objects are matched by distance in time and space together: seconds, x and y become percent of the duration, the
  width and the height, rounded to a tenth. A pair counts if the object has a mask at the very time of the point and the point
  lies in it. Masks were grown for three seconds around the annotated moment, every half second: this is the tolerance in time.
- `exact`, the default and the rule of published tables: the time must be one of the mask's times. A model that saw the video at
  other times than multiples of half a second can never be right.
- `snap`: the time is first moved to the nearest half second.

Masks of another size than their video are brought to its size, and points are rounded in pixels of the video; the reference looks
them up in such masks as they are. Of a list of coordinates as text that was cut before its closing quote the reference reads nothing,
which `ref_compat` repeats; here its whole points count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.eval.benchmark import CUT_LIST, Answer, Asking, Benchmark, Clip, Item, Items, Metric, Source, View
from molmopoint.eval.layouts.outlines import index_masks
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet, in_size, read_rows, stated_size, text_of
from molmopoint.eval.layouts.video_files import VideoFinder
from molmopoint.metrics.matching import assigned_scores, max_hit_scores
from molmopoint.metrics.run_lengths import MaskIndex, decode_mask, fingerprint

COLUMNS = ("video_id", "video_source", "label", "width", "height", "video_duration", "two_fps_timestamps", "points", "masks")
MASKS_PER_SECOND = 2
OTHER_SIZE = "mask of another size than its video"
UNREADABLE = "unreadable mask, never hit"
_SAME_TIME = 1e-6


@dataclass(frozen=True, eq=False)
class _Truth:
    """Seconds and pixels of the objects (m, 3), and per object the number of its mask at each half second."""

    index: MaskIndex
    places: np.ndarray
    masks: tuple[Mapping[int, int], ...]
    size: tuple[int, int]
    duration: float


class Molmo2VideoPoint(Benchmark):
    """See the module for the rules."""

    name = "molmo2_video_point"
    title = "Molmo2-VideoPoint (Molmo2, arXiv 2601.10611)"
    version = 2
    source = Source(
        "allenai/Molmo2-VideoPointEval",
        patterns=("*.parquet", "data/*.parquet"),
        note="the videos are fetched from their sources; put them into `videos` as VIDEO_ID.mp4, or VIDEO_SOURCE/VIDEO_ID.mp4",
        licence="see the data set's card",
    )
    asking = Asking(max_new_tokens=2048, fps=2.0, max_frames=384)
    rules = ("exact", "snap")
    headline = ("f1", None)
    metrics = (
        Metric("f1", "mean"),
        Metric("precision", "mean"),
        Metric("recall", "mean"),
        Metric("max_hit_f1", "mean", title="F1, matched by masks"),
        Metric("valid", "binary", title="has points"),
    )
    flaws = (CUT_LIST,)
    views = (View(("source",)), View(("objects",), order=("0", "1", "2-5", "6 and more")))

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split `val` and indexes their masks."""
        files = find_parquet(folder, "val")
        rows = list(read_rows(files, COLUMNS))
        entries = [(row, i, each) for row in rows for i, object_masks in enumerate(_lists(row["masks"])) for each in object_masks]
        keys = [f"{row['video_id']}/{row['label']}/{i}/{each['frame_id']}" for row, i, each in entries]
        run_lengths = [each.get("rle") for _, _, each in entries]
        indexed = index_masks(folder, self.name, keys, lambda i: decode_mask(run_lengths[i]), fingerprint(run_lengths))
        videos, collected, numbers = VideoFinder(folder), ItemCollector(), iter(indexed.numbers)
        for row in rows:
            # Every mask has its turn in the numbers, also those of rows that turn out to be useless.
            masks = tuple({int(each["frame_id"]): next(numbers) for each in object_masks} for object_masks in _lists(row["masks"]))
            _add(collected, videos, row, indexed.index, masks)
        return collected.items()

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """Scores of both ways of matching."""
        truth: _Truth = item.truth
        answer = answer.as_reference_reads() if ref_compat else answer
        xy, _ = in_size(answer, truth.size)
        hits = _hits(truth, xy, answer.group, snap=rule == "snap")
        scale = 100 / np.array([truth.duration, *truth.size])
        points = np.round(np.column_stack([answer.group, xy]) * scale, 1)
        scores = assigned_scores(points, np.round(truth.places * scale, 1), hits)
        return {**scores._asdict(), "max_hit_f1": max_hit_scores(hits).f1, "valid": float(len(answer) > 0)}


def _hits(truth: _Truth, xy: np.ndarray, seconds: np.ndarray, *, snap: bool) -> np.ndarray:
    """(n, m) bool: whether a point lies in the mask that an object has at the point's time."""
    steps = seconds * MASKS_PER_SECOND
    nearest = np.rint(steps)
    known = np.full(len(xy), True) if snap else np.abs(steps - nearest) < _SAME_TIME
    hits = np.zeros((len(xy), len(truth.masks)), dtype=bool)
    for j, masks in enumerate(truth.masks):
        numbers = np.array([masks.get(int(step), -1) for step in nearest], dtype=np.int64)
        asked = np.flatnonzero(known & (numbers >= 0))
        hits[asked, j] = truth.index.contains_resized(numbers[asked], xy[asked], truth.size)
    return hits


def _add(
    collected: ItemCollector, videos: VideoFinder, row: dict[str, Any], index: MaskIndex, masks: tuple[Mapping[int, int], ...]
) -> None:
    label, video, source = text_of(row, "label"), str(row["video_id"]), text_of(row, "video_source")
    item_id = collected.name(f"{video}/{label}")
    if not label:
        return collected.miss(item_id, "no label", video)
    size, duration = stated_size([row["width"], row["height"]]), row["video_duration"]
    if size is None or not duration or not duration > 0:
        return collected.miss(item_id, "no size or duration of the video", f"{row['width']} x {row['height']}, {duration} seconds")
    places = _places(row["two_fps_timestamps"], row["points"])
    if places is None or len(places) != len(masks):
        return collected.miss(item_id, "points, times and masks that do not fit each other", label)
    numbers = np.array([number for each in masks for number in each.values()], dtype=np.int64)
    collected.warnings[UNREADABLE] += int((numbers < 0).sum())
    collected.warnings[OTHER_SIZE] += int((index.sizes[numbers[numbers >= 0]] != size).any(axis=1).sum())
    truth = _Truth(index, places, masks, size, float(duration))
    clip = Clip(videos.expect(f"{source}/{video}", video))
    prompt = f'How many "{label}" are there in the video?'
    categories = {"source": source or "unknown", "objects": _group_of(len(places))}
    return collected.add(Item(item_id, prompt, clip=clip, truth=truth, categories=categories, cluster=video, image_sizes=(size,)))


def _places(seconds: Sequence[float] | None, points: Sequence[Any] | None) -> np.ndarray | None:
    """(m, 3) time, x and y; None where they are not one each, or not numbers."""
    if len(seconds or ()) != len(points or ()):
        return None
    pairs = [(each.get("x"), each.get("y")) if isinstance(each, Mapping) else each for each in points or ()]
    try:
        rows = [(time, x, y) for time, (x, y) in zip(seconds or (), pairs, strict=True)]
        places = np.array(rows, dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        return None
    return places if np.isfinite(places).all() else None


def _lists(masks: Sequence[Sequence[dict[str, Any]] | None] | None) -> list[list[dict[str, Any]]]:
    """The masks of every object that have a time; an object may have none."""
    return [[mask for mask in each or () if mask.get("frame_id") is not None] for each in masks or ()]


def _group_of(count: int) -> str:
    return str(count) if count < 2 else "2-5" if count <= 5 else "6 and more"
