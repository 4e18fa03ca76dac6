"""Molmo2-Track: follow what a question asks for, in clips of five fields. Source: Molmo2, arXiv 2601.10611.

Rows of newer tables have the frame rate of their clip, and need no video to be scored; for older ones it is
read from the videos.

The table does not say the field of a clip; it follows from the data set the clip was taken from. The overall
score is the mean over questions, so that people, sports and dancers decide it; the fields are reported apart
and as a mean. See `protocols/tracking.py` for the rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.eval.benchmark import DatasetSource, Items, VideoSegment, View
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    read_rows,
    stated_size,
    text_of,
    write_parquet,
)
from molmopoint.eval.datasets.track_masks import RunLengthTracks, by_frame, length_of
from molmopoint.eval.datasets.videos import FrameRates, VideoFinder
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.fixtures.moving_shapes import FPS, SIZE, MovingShapes
from molmopoint.eval.protocols.tracking import (
    RATE,
    Place,
    TrackBenchmark,
    TrackQuestion,
    add_questions,
    sound_place,
)
from molmopoint.files import is_file, is_folder
from molmopoint.metrics.tracking import is_on_grid, is_on_reference_grid

COLUMNS = ("exp", "w", "h", "clip", "video", "video_dataset", "start_frame", "end_frame", "points", "masks")
OPTIONAL = ("fps", "mask_id")
FIELDS = {
    "aptv2": "Animals",
    "personpath22": "Person",
    "sportsmot": "Sports",
    "dancetrack": "Dancers",
    "sav": "Misc",
}
OTHER_FIELD = "clip of a data set that belongs to no field"


class Molmo2Track(TrackBenchmark):
    """See the module."""

    name = "molmo2_track"
    title = "Molmo2-Track (Molmo2, arXiv 2601.10611)"
    source = DatasetSource(
        "allenai/Molmo2-VideoTrackEval",
        patterns=("*.parquet", "data/*.parquet"),
        note="put the clips into `videos` as CLIP.mp4, or the videos they are cut from as VIDEO_DATASET/VIDEO.mp4",
        licence="see the data set's card",
    )
    views = (View(("field",), macro=True, order=tuple(FIELDS.values())),)

    def read(self, folder: Path) -> Items:
        """Reads the split `test` and indexes the masks at the moments asked for; of the others nothing is
        kept.
        """
        collected = ItemCollector()
        videos = VideoFinder(folder)
        rates = FrameRates(folder, self.name)
        questions: list[TrackQuestion] = []
        tracks: dict[str, dict[str, dict[int, Any]]] = {}
        lengths: dict[str, int | None] = {}
        for row in read_rows(find_parquet(folder, "test"), COLUMNS, OPTIONAL):
            question = _question(collected, videos, rates, row)
            if question is None:
                continue
            stored = {str(each["object_id"]): each["masks"] for each in row["masks"] or ()}
            tracks[question.item_id] = {name: _at(masks, question.scored) for name, masks in stored.items()}
            lengths[question.item_id] = length_of(stored.values())
            questions.append(question)
        rates.keep()
        add_questions(collected, folder, self.name, questions, RunLengthTracks(tracks, lengths))
        return collected.items()

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four questions of three fields and two that cannot be asked.

        A clip as a file and one that is a part of a video, masks of some frames only, a disc that leaves, a
        data set without a field; a clip that is not there, and one that is no video.
        """
        first = moving_shapes.make(rng, 2, leaves=1)
        second = moving_shapes.make(rng, 2, seconds=5)
        moving_shapes.write_video(folder / "videos" / "dance_0_17.mp4", first.frames)
        moving_shapes.write_video(folder / "videos" / "APTv2" / "long.mp4", second.frames)
        (folder / "videos" / "broken.mp4").write_bytes(b"no video")
        kept = slice(FPS, 4 * FPS)
        part = MovingShapes(second.frames[kept], second.masks[:, kept], second.centres[:, kept])
        whole = (0, 3 * FPS - 1)
        dance = _made_row("dance_0_17", "dance", "DanceTrack", whole, _made_objects(first, [0, 1]))
        only_second = {**dance, **_made_objects(first, [1])}
        only_first = {**dance, **_made_objects(first, [0])}
        animals = _made_objects(part, [0, 1], sparse=True)
        rows = [
            {**dance, "exp": "all dancers"},
            {**only_second, "exp": "the dancer who leaves"},
            {**_made_row("long_6_23", "long", "APTv2", (FPS, 4 * FPS - 1), animals), "exp": "the animals"},
            {**only_first, "exp": "someone", "video_dataset": "another set"},
            {**dance, "exp": "nobody", "clip": "gone_0_17", "video": "gone", "video_dataset": "SA-V"},
            {**dance, "exp": "nothing", "clip": "broken", "video": "broken", "video_dataset": "SA-V"},
        ]
        write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


def _at(masks: Sequence[Any] | None, frames: Iterable[int]) -> dict[int, Any]:
    """Run-lengths at some frames."""
    wanted = set(frames)
    return {frame: mask for frame, mask in by_frame(masks).items() if frame in wanted}


def _question(
    collected: ItemCollector, videos: VideoFinder, rates: FrameRates, row: dict[str, Any]
) -> TrackQuestion | None:
    expression = text_of(row, "exp")
    clip_name = text_of(row, "clip")
    data_set = text_of(row, "video_dataset")
    item_id = collected.name(f"{data_set}/{clip_name or row['video']}/{row['start_frame']}/{expression}")
    size = stated_size([row["w"], row["h"]])
    if not expression:
        return collected.miss(item_id, "no expression", clip_name)
    if size is None:
        return collected.miss(item_id, "no size of the video", f"{row['w']} x {row['h']}")
    clip = _clip(videos, rates, row, clip_name or item_id)
    fps = clip.frames_per_second
    if fps is None:
        reason = "unknown frame rate of the video" if is_file(clip.path) else "no video file"
        return collected.miss(item_id, reason, clip.path.name)
    field = FIELDS.get(re.sub(r"[^a-z0-9]", "", data_set.lower()), "")
    collected.warnings[OTHER_FIELD] += not field
    # Recall of the reference goes by the stored order of the masks.
    objects = dict.fromkeys(
        str(each["object_id"]) for each in [*(row["masks"] or ()), *(row["points"] or ())]
    )
    places = _places(row["points"])
    having = sorted(places)
    return TrackQuestion(
        item_id=item_id,
        expression=expression,
        video=str(row["video"]),
        clip=clip,
        size=size,
        fps=fps,
        objects=tuple(objects),
        places=places,
        asked=tuple(frame for frame in having if is_on_grid(frame, fps, RATE)),
        reference=tuple(frame for frame in having if is_on_reference_grid(frame, fps, RATE)),
        cluster=f"{data_set}/{row['video']}",
        categories={"field": field or "other"},
        numbered=tuple(str(each) for each in row.get("mask_id") or ()),
    )


def _clip(videos: VideoFinder, rates: FrameRates, row: dict[str, Any], clip_name: str) -> VideoSegment:
    """The file of a clip, or a part of the video it was cut from; without a frame rate where nobody knows it."""
    data_set = text_of(row, "video_dataset")
    whole = videos.expect(clip_name)
    cut_from = videos.expect(f"{data_set}/{row['video']}", str(row["video"]))
    path = whole
    for each in (whole, cut_from):
        # Videos that are gone may have been there: then their rates are known, and stored answers can be
        # scored.
        if is_file(each) or is_folder(each) or rates.of(each) is not None:
            path = each
            break
    fps = _rate(row.get("fps")) or rates.of(path)
    if fps is None or path == whole:
        return VideoSegment(path, frames_per_second=fps)
    start = (row["start_frame"] or 0) / fps
    end = None if row["end_frame"] is None else row["end_frame"] / fps
    return VideoSegment(path, start, end, fps)


def _rate(value: Any) -> float | None:
    """Frames per second as a row states them, or None."""
    is_rate = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if is_rate else None


def _places(points: Sequence[Mapping[str, Any]] | None) -> dict[int, dict[str, Place]]:
    """Where the objects are, by frame of the clip."""
    places: dict[int, dict[str, Place]] = {}
    for each in points or ():
        for frame, value in enumerate(each["points"] or ()):
            place = None if value is None else sound_place(value)
            if place is not None:
                places.setdefault(frame, {})[str(each["object_id"])] = place
    return places


def _made_row(
    clip: str, video: str, data_set: str, frames: tuple[int, int], objects: Mapping[str, Any]
) -> dict[str, Any]:
    """A row without its expression."""
    return {
        "exp": "",
        "w": SIZE[0],
        "h": SIZE[1],
        "clip": clip,
        "video": video,
        "video_dataset": data_set,
        "start_frame": frames[0],
        "end_frame": frames[1],
        **objects,
    }


def _made_objects(shapes: MovingShapes, objects: Sequence[int], *, sparse: bool = False) -> dict[str, Any]:
    """Points and masks of some discs; `sparse` ones have masks once per second.

    Columns of a parquet file have one type, so every mask has the fields of both forms.
    """
    points, masks = [], []
    for i in objects:
        object_id = str(i + 9)
        track, of_object = [], []
        for frame, mask in enumerate(shapes.masks[i]):
            is_there = bool(mask.any())
            track.append(shapes.centres[i, frame].tolist() if is_there else None)
            packed = moving_shapes.run_lengths(mask) if is_there else None
            if not sparse:
                of_object.append(None if packed is None else {**packed, "frame_id": None, "rle": None})
            elif frame % FPS == 0:
                of_object.append({"size": None, "counts": None, "frame_id": frame, "rle": packed})
        points.append({"object_id": object_id, "points": track})
        masks.append({"object_id": object_id, "masks": of_object})
    return {"points": points, "masks": masks}
