"""Molmo2-VideoCount: how many objects, animals, or actions are in a clip. Source: Molmo2, arXiv 2601.10611.

- `stated`, the default and the rule of published tables: the number that the text says, wrong where it says none.
- `points`: the number of points, of models that count by pointing; an answer without points is read as text.

`close` allows for one and five percent of the true number, unlike the picture benchmarks. Tables also have the mean over six
ranges of the true number and the mean over three categories; a range without items is left out.

A text states its number as a bare number, as "a total of N" or "the total number of ... is: N", else as "There are N", else as "There
are none." The reference does not understand the last two and calls them wrong, and "-3" is a number to it; `ref_compat` does so too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Clip, Item, Items, Metric, Source, View
from molmopoint.eval.layouts.boxes import whole_number
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet, read_rows, text_of
from molmopoint.eval.layouts.video_files import VideoFinder
from molmopoint.metrics.matching import bin_of, close_in_video, stated_count

COLUMNS = ("video_id", "video_source", "clip_start", "clip_end", "label", "question", "count", "category", "video_duration")
BINS = {"0-4": (0, 5), "5-9": (5, 10), "10-14": (10, 15), "15-19": (15, 20), "20-24": (20, 25), "25 and more": (25, 1 << 62)}
CATEGORIES = ("object", "animal", "action/event")


class Molmo2VideoCount(Benchmark):
    """See the module for the rules; `Item.truth` is the true number."""

    name = "molmo2_video_count"
    title = "Molmo2-VideoCount (Molmo2, arXiv 2601.10611)"
    version = 2
    source = Source(
        "allenai/Molmo2-VideoCountEval",
        patterns=("*.parquet", "data/*.parquet"),
        note="the videos are fetched from their sources; put them into `videos` as VIDEO_ID.mp4, or VIDEO_SOURCE/VIDEO_ID.mp4",
        licence="see the data set's card",
    )
    asking = Asking(max_new_tokens=2048, fps=2.0, max_frames=384)
    rules = ("stated", "points")
    headline = ("correct", None)
    metrics = (Metric("correct", "binary"), Metric("close", "binary"), Metric("valid", "binary", title="gives a number"))
    views = (View(("bin",), macro=True, order=tuple(BINS)), View(("category",), macro=True, order=CATEGORIES))
    flaws = ('T15: "There are none." and "There are 3." are no numbers, "-3" is one',)

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split `val`."""
        videos, collected = VideoFinder(folder), ItemCollector()
        for row in read_rows(find_parquet(folder, "val"), COLUMNS):
            _add(collected, videos, row)
        return collected.items()

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """`correct`, `close`, and whether there is a number at all."""
        count = len(answer) if rule == "points" and len(answer) else stated_count(answer.text, ref_compat=ref_compat)
        return {
            "correct": float(count == item.truth),
            "close": float(count is not None and close_in_video(count, item.truth)),
            "valid": float(count is not None),
        }


def _add(collected: ItemCollector, videos: VideoFinder, row: dict[str, Any]) -> None:
    question, video, source = text_of(row, "question"), str(row["video_id"]), text_of(row, "video_source")
    start, end, count = row["clip_start"], row["clip_end"], whole_number(row["count"])
    item_id = collected.name(f"{video}/{start}-{end}/{question}")
    if not question:
        return collected.miss(item_id, "no question", video)
    if count is None:
        return collected.miss(item_id, "no true number", row["count"])
    if end is not None and end <= (start or 0):
        return collected.miss(item_id, "a clip without length", f"{start} to {end} seconds")
    categories = {"bin": bin_of(count, BINS) or "unknown", "category": text_of(row, "category") or "unknown"}
    clip = Clip(videos.expect(f"{source}/{video}", video), start, end)
    return collected.add(Item(item_id, question, clip=clip, truth=count, categories=categories, cluster=video))
