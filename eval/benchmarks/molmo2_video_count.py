"""Molmo2-VideoCount: how many objects, animals, or actions are in a clip. Source: Molmo2, arXiv 2601.10611.

- `stated`, the default and the rule of published tables: the number that the text says, wrong where it says
  none.
- `points`: the number of points, of models that count by pointing; an answer without points is read as text.

`close` allows for one and five percent of the true number, unlike the picture benchmarks. Tables also have
the mean over six ranges of the true number and the mean over three categories; a range without items is left
out.

A text states its number as a bare number, as "a total of N" or "the total number of ... is: N", else as
"There are N", else as "There are none." The reference does not understand the last two and calls them wrong,
and "-3" is a number to it; `ref_compat` does so too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.eval.benchmark import (
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
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    read_rows,
    text_of,
    whole_number,
    write_parquet,
)
from molmopoint.eval.datasets.videos import VideoFinder
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.metrics.matching import bin_of, close_in_video, stated_count

COLUMNS = (
    "video_id",
    "video_source",
    "clip_start",
    "clip_end",
    "label",
    "question",
    "count",
    "category",
    "video_duration",
)
BINS = {
    "0-4": (0, 5),
    "5-9": (5, 10),
    "10-14": (10, 15),
    "15-19": (15, 20),
    "20-24": (20, 25),
    "25 and more": (25, 1 << 62),
}
CATEGORIES = ("object", "animal", "action/event")


class Molmo2VideoCount(Benchmark):
    """See the module for the rules; `Item.truth` is the true number."""

    name = "molmo2_video_count"
    title = "Molmo2-VideoCount (Molmo2, arXiv 2601.10611)"
    version = 2
    source = DatasetSource(
        "allenai/Molmo2-VideoCountEval",
        patterns=("*.parquet", "data/*.parquet"),
        note="the videos are fetched from their sources; put them into `videos` as VIDEO_ID.mp4, or VIDEO_SOURCE/VIDEO_ID.mp4",
        licence="see the data set's card",
    )
    generation = GenerationSettings(max_new_tokens=2048, fps=2.0, max_frames=384)
    rules = ("stated", "points")
    headline = ("correct", None)
    metrics = (
        Metric("correct", "binary"),
        Metric("close", "binary"),
        Metric("valid", "binary", title="gives a number"),
    )
    views = (
        View(("bin",), macro=True, order=tuple(BINS)),
        View(("category",), macro=True, order=CATEGORIES),
    )
    flaws = ('T15: "There are none." and "There are 3." are no numbers, "-3" is one',)

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split `val`."""
        videos = VideoFinder(folder)
        collected = ItemCollector()
        for row in read_rows(find_parquet(folder, "val"), COLUMNS):
            _add(collected, videos, row)
        return collected.items()

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """`correct`, `close`, and whether there is a number at all."""
        count = stated_count(answer.text, ref_compat=ref_compat)
        if rule == "points" and len(answer):
            count = len(answer)
        return {
            "correct": float(count == item.truth),
            "close": float(count is not None and close_in_video(count, item.truth)),
            "valid": float(count is not None),
        }

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Five items of all categories, clips of one video among them.

        One question comes twice, and three rows cannot be used.
        """
        rows = []
        for discs, (video, category) in enumerate(zip(("one", "two", "three"), CATEGORIES, strict=True), 1):
            frames = moving_shapes.make(rng, discs, seconds=4).frames
            moving_shapes.write_video(folder / "videos" / f"{video}.mp4", frames)
            rows.append(
                {
                    "video_id": video,
                    "video_source": "generated",
                    "clip_start": 0.0,
                    "clip_end": 4.0,
                    "label": "discs",
                    "question": "How many discs are there in the video?",
                    "count": discs,
                    "category": category,
                    "video_duration": 4.0,
                }
            )
        first = rows[0]
        rows.append(
            {
                **first,
                "clip_start": 1.0,
                "clip_end": 3.0,
                "question": "How many squares are there?",
                "count": 0,
            }
        )
        rows.append(dict(first))
        rows.append({**first, "question": ""})
        rows.append({**first, "question": "How many?", "count": None})
        rows.append({**first, "clip_start": 3.0, "clip_end": 3.0})
        write_parquet(folder / "data" / "val-00000-of-00001.parquet", rows)


def _add(collected: ItemCollector, videos: VideoFinder, row: dict[str, Any]) -> None:
    question = text_of(row, "question")
    video = str(row["video_id"])
    start, end = row["clip_start"], row["clip_end"]
    count = whole_number(row["count"])
    item_id = collected.name(f"{video}/{start}-{end}/{question}")
    if not question:
        return collected.miss(item_id, "no question", video)
    if count is None:
        return collected.miss(item_id, "no true number", row["count"])
    if end is not None and end <= (start or 0):
        return collected.miss(item_id, "a clip without length", f"{start} to {end} seconds")
    categories = {
        "bin": bin_of(count, BINS) or "unknown",
        "category": text_of(row, "category") or "unknown",
    }
    source = text_of(row, "video_source")
    clip = VideoSegment(videos.expect(f"{source}/{video}", video), start, end)
    return collected.add(
        Item(item_id, question, clip=clip, truth=count, categories=categories, cluster=video)
    )
