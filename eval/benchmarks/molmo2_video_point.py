"""Molmo2-VideoPoint: point to everything a label names, at any moment of a video. Source: Molmo2, arXiv
2601.10611.

- Points and objects are matched by distance in time and space together: seconds, x and y become percent of
  the duration, the width and the height, rounded to a tenth. A pair counts if the object has a mask at the
  very time of the point and the point lies in it. Masks were grown for three seconds around the annotated
  moment, every half second: this is the tolerance in time.
- `exact`, the default and the rule of published tables: the time must be one of the mask's times. A model
  that saw the video at other times than multiples of half a second can never be right.
- `snap`: the time is first moved to the nearest half second.

Masks of another size than their video are brought to its size, and points are rounded in pixels of the video;
the reference looks them up in such masks as they are. Of a list of coordinates as text that was cut before
its closing quote the reference reads nothing, which `ref_compat` repeats; here its whole points count.

Letters: n points, m objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.eval.benchmark import (
    CUT_LIST,
    Benchmark,
    DatasetSource,
    GenerationSettings,
    Item,
    Items,
    ItemScores,
    Metric,
    ParsedAnswer,
    VideoSegment,
    View,
)
from molmopoint.eval.datasets.masks import index_masks
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    in_size,
    read_rows,
    stated_size,
    text_of,
    write_parquet,
)
from molmopoint.eval.datasets.videos import VideoFinder
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.fixtures.moving_shapes import FPS, SIZE, MovingShapes
from molmopoint.metrics.matching import assigned_scores, max_hit_scores
from molmopoint.metrics.run_lengths import MaskIndex, decode_mask, fingerprint

COLUMNS = (
    "video_id",
    "video_source",
    "label",
    "width",
    "height",
    "video_duration",
    "two_fps_timestamps",
    "points",
    "masks",
)
MASKS_PER_SECOND = 2
OTHER_SIZE = "mask of another size than its video"
UNREADABLE = "unreadable mask, never hit"
_SAME_TIME = 1e-6

ObjectMasks = Mapping[int, int]
"""Number of the mask of one object, by half second."""


@dataclass(frozen=True, eq=False)
class _Truth:
    """Seconds and pixels of the objects (m, 3), and the masks of each."""

    index: MaskIndex
    places: np.ndarray
    masks: tuple[ObjectMasks, ...]
    size: tuple[int, int]
    duration: float


class Molmo2VideoPoint(Benchmark):
    """See the module for the rules."""

    name = "molmo2_video_point"
    title = "Molmo2-VideoPoint (Molmo2, arXiv 2601.10611)"
    version = 2
    source = DatasetSource(
        "allenai/Molmo2-VideoPointEval",
        patterns=("*.parquet", "data/*.parquet"),
        note="the videos are fetched from their sources; put them into `videos` as VIDEO_ID.mp4, or VIDEO_SOURCE/VIDEO_ID.mp4",
        licence="see the data set's card",
    )
    generation = GenerationSettings(max_new_tokens=2048, fps=2.0, max_frames=384)
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
        rows = list(read_rows(find_parquet(folder, "val"), COLUMNS))
        keys = []
        run_lengths = []
        for row in rows:
            for i, half_second, encoded in _stored_masks(row):
                keys.append(f"{row['video_id']}/{row['label']}/{i}/{half_second}")
                run_lengths.append(encoded)
        indexed = index_masks(
            folder, self.name, keys, lambda i: decode_mask(run_lengths[i]), fingerprint(run_lengths)
        )
        videos = VideoFinder(folder)
        collected = ItemCollector()
        numbers = iter(indexed.numbers)
        for row in rows:
            # Every mask has its turn in the numbers, also those of rows that turn out to be useless.
            masks: tuple[dict[int, int], ...] = tuple({} for _ in row["masks"] or ())
            for i, half_second, _ in _stored_masks(row):
                masks[i][int(half_second)] = next(numbers)
            _add(collected, videos, row, indexed.index, masks)
        return collected.items()

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """Scores of both ways of matching."""
        truth: _Truth = item.truth
        if ref_compat:
            answer = answer.as_reference_reads()
        xy, _ = in_size(answer, truth.size)
        hits = _hits(truth, xy, answer.group, snap=rule == "snap")  # (n, m)
        to_percent = 100 / np.array([truth.duration, *truth.size])
        points = np.round(np.column_stack([answer.group, xy]) * to_percent, 1)  # (n, 3)
        objects = np.round(truth.places * to_percent, 1)  # (m, 3)
        scores = assigned_scores(points, objects, hits)
        return {**scores._asdict(), "max_hit_f1": max_hit_scores(hits).f1, "valid": float(len(answer) > 0)}

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four items and two that cannot be scored.

        One label twice, a video whose name has an accent, masks of half the size, a broken mask, nothing to
        point at, a row whose times do not fit its points, and a row without a duration.
        """
        rows = []
        for i, (video, source) in enumerate(
            (("-a_1", "youtube"), ("été", "MammalNet"), ("gen0", "generated"))
        ):
            shapes = moving_shapes.make(rng, discs=i + 1, seconds=4)
            moving_shapes.write_video(folder / "videos" / source / f"{video}.mp4", shapes.frames)
            rows.append(_made_row(video, source, "disc", shapes, every=2 if i == 1 else 1))
        rows[2]["masks"][0][0]["rle"]["counts"] = "!"
        first = rows[0]
        rows.append(
            {**first, "label": "nothing of the kind", "points": [], "two_fps_timestamps": [], "masks": []}
        )
        rows.append({**first, "label": "one time too few", "two_fps_timestamps": []})
        rows.append({**first, "label": "no duration", "video_duration": None})
        write_parquet(folder / "data" / "val-00000-of-00001.parquet", rows)


def _hits(truth: _Truth, xy: np.ndarray, seconds: np.ndarray, *, snap: bool) -> np.ndarray:
    """(n, m) bool: whether a point lies in the mask that an object has at the point's time."""
    steps = seconds * MASKS_PER_SECOND
    nearest = np.rint(steps)
    is_in_time = np.full(len(xy), True) if snap else np.abs(steps - nearest) < _SAME_TIME
    hits = np.zeros((len(xy), len(truth.masks)), dtype=bool)
    for j, masks in enumerate(truth.masks):
        numbers = np.array([masks.get(int(step), -1) for step in nearest], dtype=np.int64)  # (n,)
        asked = np.flatnonzero(is_in_time & (numbers >= 0))
        hits[asked, j] = truth.index.contains_resized(numbers[asked], xy[asked], truth.size)
    return hits


def _stored_masks(row: dict[str, Any]) -> Iterator[tuple[int, Any, Any]]:
    """Number of the object, half second, and run-lengths of every mask that has a time; an object may have
    none.
    """
    objects: Sequence[Sequence[dict[str, Any]] | None] = row["masks"] or ()
    for i, masks in enumerate(objects):
        for mask in masks or ():
            if mask.get("frame_id") is not None:
                yield i, mask["frame_id"], mask.get("rle")


def _add(
    collected: ItemCollector,
    videos: VideoFinder,
    row: dict[str, Any],
    index: MaskIndex,
    masks: tuple[ObjectMasks, ...],
) -> None:
    label = text_of(row, "label")
    video = str(row["video_id"])
    item_id = collected.name(f"{video}/{label}")
    if not label:
        return collected.miss(item_id, "no label", video)
    size = stated_size([row["width"], row["height"]])
    duration = row["video_duration"]
    if size is None or not duration or not duration > 0:
        detail = f"{row['width']} x {row['height']}, {duration} seconds"
        return collected.miss(item_id, "no size or duration of the video", detail)
    places = _places(row["two_fps_timestamps"], row["points"])
    if places is None or len(places) != len(masks):
        return collected.miss(item_id, "points, times and masks that do not fit each other", label)
    _count_faults(collected, masks, index, size)
    source = text_of(row, "video_source")
    return collected.add(
        Item(
            item_id,
            f'How many "{label}" are there in the video?',
            clip=VideoSegment(videos.expect(f"{source}/{video}", video)),
            truth=_Truth(index, places, masks, size, float(duration)),
            categories={"source": source or "unknown", "objects": _group_of(len(places))},
            cluster=video,
            image_sizes=(size,),
        )
    )


def _count_faults(
    collected: ItemCollector, masks: Sequence[ObjectMasks], index: MaskIndex, size: tuple[int, int]
) -> None:
    numbers: list[int] = []
    for each in masks:
        numbers += each.values()
    all_masks = np.array(numbers, dtype=np.int64)
    readable = all_masks[all_masks >= 0]
    is_of_other_size = (index.sizes[readable] != size).any(axis=1)
    collected.warnings[UNREADABLE] += len(all_masks) - len(readable)
    collected.warnings[OTHER_SIZE] += int(is_of_other_size.sum())


def _places(seconds: Sequence[float] | None, points: Sequence[Any] | None) -> np.ndarray | None:
    """(m, 3) time, x and y; None where they are not one each, or not numbers."""
    if len(seconds or ()) != len(points or ()):
        return None
    rows = []
    try:
        for time, point in zip(seconds or (), points or (), strict=True):
            x, y = (point.get("x"), point.get("y")) if isinstance(point, Mapping) else point
            rows.append((time, x, y))
        places = np.array(rows, dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        return None
    return places if np.isfinite(places).all() else None


def _group_of(count: int) -> str:
    if count < 2:
        return str(count)
    return "2-5" if count <= 5 else "6 and more"


_MADE_WINDOW = 1.5
"""Seconds before and after the annotated moment that have masks, in made items."""


def _made_row(video: str, source: str, label: str, shapes: MovingShapes, every: int) -> dict[str, Any]:
    """A row whose objects were pointed at one second after one another; `every` n-th pixel of a mask is kept."""
    discs, count = shapes.masks.shape[:2]
    seconds = [1.0 + i for i in range(discs)]
    points, masks = [], []
    for i, moment in enumerate(seconds):
        x, y = shapes.centres[i, round(moment * FPS)]
        points.append({"x": float(x), "y": float(y)})
        of_object = []
        for half_second in range(MASKS_PER_SECOND * count // FPS):
            if abs(half_second / MASKS_PER_SECOND - moment) <= _MADE_WINDOW:
                mask = shapes.masks[i, half_second * FPS // MASKS_PER_SECOND, ::every, ::every]
                of_object.append({"frame_id": half_second, "rle": moving_shapes.run_lengths(mask)})
        masks.append(of_object)
    width, height = SIZE
    return {
        "video_id": video,
        "video_source": source,
        "label": label,
        "width": width,
        "height": height,
        "video_duration": count / FPS,
        "two_fps_timestamps": seconds,
        "points": points,
        "masks": masks,
    }
