"""Molmo2-Track: follow what a question asks for, in clips of five fields. Source: Molmo2, arXiv 2601.10611.

Rows of newer tables have the frame rate of their clip, and need no video to be judged; for older ones it is read from the videos.

The table does not say the field of a clip; it follows from the data set the clip was taken from. The overall score is the mean
over questions, so that people, sports and dancers decide it; the fields are reported apart and as a mean. See `layouts/tracks.py`
for the rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from molmopoint.eval.benchmark import Clip, Items, Source, View
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet, read_rows, stated_size, text_of
from molmopoint.eval.layouts.track_masks import RunLengthTracks, by_frame, length_of
from molmopoint.eval.layouts.tracks import RATE, Place, Question, TrackBenchmark, add_questions, sound_place
from molmopoint.eval.layouts.video_files import FrameRates, VideoFinder
from molmopoint.files import is_file, is_folder
from molmopoint.metrics.tracking import is_on_grid, is_on_reference_grid

COLUMNS = ("exp", "w", "h", "clip", "video", "video_dataset", "start_frame", "end_frame", "points", "masks")
OPTIONAL = ("fps", "mask_id")
FIELDS = {"aptv2": "Animals", "personpath22": "Person", "sportsmot": "Sports", "dancetrack": "Dancers", "sav": "Misc"}
OTHER_FIELD = "clip of a data set that belongs to no field"


class Molmo2Track(TrackBenchmark):
    """See the module."""

    name = "molmo2_track"
    title = "Molmo2-Track (Molmo2, arXiv 2601.10611)"
    source = Source(
        "allenai/Molmo2-VideoTrackEval",
        patterns=("*.parquet", "data/*.parquet"),
        note="put the clips into `videos` as CLIP.mp4, or the videos they are cut from as VIDEO_DATASET/VIDEO.mp4",
        licence="see the data set's card",
    )
    views = (View(("field",), macro=True, order=tuple(FIELDS.values())),)

    def read(self, folder: Path) -> Items:
        """Reads the split `test` and indexes the masks at the moments asked for; of the others nothing is kept."""
        collected, videos, rates = ItemCollector(), VideoFinder(folder), FrameRates(folder, self.name)
        questions: list[Question] = []
        tracks: dict[str, dict[str, dict[int, Any]]] = {}
        lengths: dict[str, int | None] = {}
        for row in read_rows(find_parquet(folder, "test"), COLUMNS, OPTIONAL):
            if (question := _question(collected, videos, rates, row)) is None:
                continue
            scored = set(question.scored)
            stored = {str(each["object_id"]): each["masks"] for each in row["masks"] or ()}
            tracks[question.item_id] = {
                name: {frame: mask for frame, mask in by_frame(masks).items() if frame in scored} for name, masks in stored.items()
            }
            lengths[question.item_id] = length_of(stored.values())
            questions.append(question)
        rates.keep()
        add_questions(collected, folder, self.name, questions, RunLengthTracks(tracks, lengths))
        return collected.items()


def _question(collected: ItemCollector, videos: VideoFinder, rates: FrameRates, row: dict[str, Any]) -> Question | None:
    expression, clip_name, data_set = text_of(row, "exp"), text_of(row, "clip"), text_of(row, "video_dataset")
    item_id = collected.name(f"{data_set}/{clip_name or row['video']}/{row['start_frame']}/{expression}")
    size = stated_size([row["w"], row["h"]])
    if not expression:
        return collected.miss(item_id, "no expression", clip_name)
    if size is None:
        return collected.miss(item_id, "no size of the video", f"{row['w']} x {row['h']}")
    whole, source = videos.expect(clip_name or item_id), videos.expect(f"{data_set}/{row['video']}", str(row["video"]))
    stated = _rate(row.get("fps"))
    # Videos that are gone may have been there: then their rates are known, and stored answers can be judged.
    path = next((path for path in (whole, source) if is_file(path) or is_folder(path) or rates.of(path) is not None), whole)
    if (fps := stated or rates.of(path)) is None:
        return collected.miss(item_id, "unknown frame rate of the video" if is_file(path) else "no video file", path.name)
    clip = Clip(path, frames_per_second=fps)
    if path != whole:
        end = None if row["end_frame"] is None else row["end_frame"] / fps
        clip = Clip(path, (row["start_frame"] or 0) / fps, end, fps)
    field = FIELDS.get(re.sub(r"[^a-z0-9]", "", data_set.lower()), "")
    collected.warnings[OTHER_FIELD] += not field
    # Recall of the reference goes by the stored order of the masks.
    objects = tuple(dict.fromkeys(str(each["object_id"]) for each in [*(row["masks"] or ()), *(row["points"] or ())]))
    places = _places(row["points"])
    having = sorted(places)
    return Question(
        item_id,
        expression,
        str(row["video"]),
        clip,
        size,
        fps,
        objects,
        places,
        tuple(frame for frame in having if is_on_grid(frame, fps, RATE)),
        tuple(frame for frame in having if is_on_reference_grid(frame, fps, RATE)),
        f"{data_set}/{row['video']}",
        {"field": field or "other"},
        tuple(str(each) for each in row.get("mask_id") or ()),
    )


def _rate(value: Any) -> float | None:
    """Frames per second as a row states them, or None."""
    usable = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if usable else None


def _places(points: Sequence[Mapping[str, Any]] | None) -> dict[int, dict[str, Place]]:
    """Where the objects are, by frame of the clip."""
    places: dict[int, dict[str, Place]] = {}
    for each in points or ():
        for frame, value in enumerate(each["points"] or ()):
            if value is not None and (place := sound_place(value)) is not None:
                places.setdefault(frame, {})[str(each["object_id"])] = place
    return places
