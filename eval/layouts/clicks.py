"""What screen benchmarks have in common: one instruction, one target, and the first point decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Item, Metric, ShownTruth, Target
from molmopoint.eval.layouts.outlines import box_outline
from molmopoint.eval.layouts.sizes import in_size
from molmopoint.metrics.lookup import in_box, in_polygon

LEAST_CROPS = 24
"""Crops per picture of the authors' script, for screens and photographs alike; a model that was made for more gets more."""


@dataclass(frozen=True, eq=False)
class ClickTarget:
    """What has to be clicked.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels, or None.
        polygon: (v, 2) corners in pixels, or None. Neither box nor polygon: there is no such thing on the screen.
        size: (width, height) the pixels belong to, where it is known.
        published: the first four numbers in the data, which a reference may take for something else.
    """

    box: np.ndarray | None = None
    polygon: np.ndarray | None = None
    size: tuple[int, int] | None = None
    published: tuple[float, ...] = ()

    @property
    def is_refusal(self) -> bool:
        """Whether the right answer is to decline."""
        return self.box is None and self.polygon is None

    def holds(self, xy: np.ndarray) -> bool:
        """Whether a point (2,) is in the target."""
        if self.box is not None:
            return bool(in_box(xy, self.box)[0])
        return self.polygon is not None and bool(in_polygon(xy, self.polygon)[0])


class ClickBenchmark(Benchmark):
    """The first point must lie in the box, all four sides included; without a point the answer is wrong."""

    asking: ClassVar[Asking] = Asking(max_new_tokens=128, single=True, least_crops=LEAST_CROPS)
    rules = ("official",)
    headline = ("correct", None)
    metrics = (Metric("correct", "binary"), Metric("wrong_format", "binary", title="no point"))
    expects_one = True

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """`correct`, and `wrong_format` where there is no point at all."""
        target: ClickTarget = item.truth
        xy, rescaled = in_size(answer, target.size)
        correct = len(xy) > 0 and target.holds(xy[0])
        return {"correct": float(correct), "wrong_format": float(len(xy) == 0), "rescaled": float(rescaled)}

    def shown_truth(self, item: Item) -> ShownTruth:
        """The box or polygon; nothing where the right answer is to decline."""
        target: ClickTarget = item.truth
        if target.is_refusal:
            return ShownTruth(count=0, size=target.size)
        rings = box_outline(target.box) if target.box is not None else (np.asarray(target.polygon),)
        return ShownTruth((Target(rings),), size=target.size)
