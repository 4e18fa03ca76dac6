"""What counting benchmarks of pictures have in common."""

from __future__ import annotations

import math
from typing import ClassVar

from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Item, Metric, ShownTruth, View
from molmopoint.metrics.counts import close_in_image, stated_count


class CountingBenchmark(Benchmark):
    """The answer's number against the true one; `Item.truth` is the true number.

    - `points`, the default and the rule of published tables: the number is how many points there are. "There are 5." without
      points is 0.
    - `stated`: the number is what the text says, and wrong where it says none; see `stated_count`.

    Both are reported with `disagrees`: how often the text says another number than there are points, of the answers that say
    one. Tables have the mean over all items and the mean over true counts, which reports mix up.
    """

    version: ClassVar[int] = 2
    asking: ClassVar[Asking] = Asking(max_new_tokens=192, least_crops=24)
    rules = ("points", "stated")
    headline = ("correct", None)
    metrics = (
        Metric("correct", "binary"),
        Metric("close", "binary", title="off by at most 1"),
        Metric("states", "binary", title="states a number"),
        Metric("disagrees", "binary", title="states another number than it points", given="states"),
    )
    views = (View(("count",), macro=True, order=tuple(str(count) for count in range(100))),)

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
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


def whole_number(value: object) -> int | None:
    """A true count of zero or more, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value >= 0 and value == int(value) else None
