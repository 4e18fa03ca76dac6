"""Counting things in pictures: the number of points, or the number in words, against the true one."""

from __future__ import annotations

from typing import ClassVar

from molmopoint.eval.benchmark import (
    Benchmark,
    GenerationSettings,
    Item,
    ItemScores,
    Metric,
    ParsedAnswer,
    ShownTruth,
    View,
)
from molmopoint.metrics.matching import close_in_image, stated_count

MAX_NEW_TOKENS = 192
"""They hold ten points; more are cut off, which the table shows."""
MIN_CROPS = 24


class CountingBenchmark(Benchmark):
    """The answer's number against the true one; `Item.truth` is the true number.

    - `points`, the default and the rule of published tables: the number is how many points there are. "There
      are 5." without points is 0.
    - `stated`: the number is what the text says, and wrong where it says none; see `stated_count`.

    Both are reported with `disagrees`: how often the text says another number than there are points, of the
    answers that say one. Tables have the mean over all items and the mean over true counts, which reports mix
    up.
    """

    version: ClassVar[int] = 2
    generation: ClassVar[GenerationSettings] = GenerationSettings(MAX_NEW_TOKENS, min_crops=MIN_CROPS)
    rules = ("points", "stated")
    headline = ("correct", None)
    metrics = (
        Metric("correct", "binary"),
        Metric("close", "binary", title="off by at most 1"),
        Metric("states", "binary", title="states a number"),
        Metric("disagrees", "binary", title="states another number than it points", given="states"),
    )
    views = (View(("count",), macro=True, order=tuple(str(count) for count in range(100))),)

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """`correct`, `close` (off by at most one), `states` a number, and `disagrees` with the points."""
        stated = stated_count(answer.text)
        count = len(answer) if rule == "points" else stated
        return {
            "correct": float(count == item.truth),
            "close": float(count is not None and close_in_image(count, item.truth)),
            "states": float(stated is not None),
            "disagrees": float(stated is not None and stated != len(answer)),
        }

    def shown_truth(self, item: Item) -> ShownTruth:
        """The number; nobody knows the places."""
        return ShownTruth(count=item.truth)
