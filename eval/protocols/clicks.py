"""Clicking on screens: one instruction, one target, and the first point decides.

Targets are boxes and polygons, brought to one form and checked against their picture. Four numbers can be two
corners or a corner and a size, and the wrong reading often still looks like a box. So the form is named by
the benchmark, and a data set in which many boxes do not fit their pictures is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import (
    Benchmark,
    GenerationSettings,
    Item,
    ItemScores,
    Metric,
    ParsedAnswer,
    ShownTarget,
    ShownTruth,
)
from molmopoint.eval.datasets.rows import in_size
from molmopoint.eval.outlines import box_outline
from molmopoint.metrics.lookup import in_box, in_polygon

MAX_NEW_TOKENS = 128
MIN_CROPS = 24
"""Crops per picture of the authors' script, for screens and photographs alike; a model made for more gets
more."""


@dataclass(frozen=True, eq=False)
class ClickTarget:
    """What has to be clicked.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels, or None.
        polygon: (v, 2) corners in pixels, or None. Neither box nor polygon: there is no such thing on the
            screen.
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
        if self.polygon is not None:
            return bool(in_polygon(xy, self.polygon)[0])
        return False


class ClickBenchmark(Benchmark):
    """The first point must lie in the box, all four sides included; without a point the answer is wrong."""

    generation: ClassVar[GenerationSettings] = GenerationSettings(
        MAX_NEW_TOKENS, single=True, min_crops=MIN_CROPS
    )
    rules = ("official",)
    headline = ("correct", None)
    metrics = (Metric("correct", "binary"), Metric("wrong_format", "binary", title="no point"))
    expects_one = True

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
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
        return ShownTruth((ShownTarget(rings),), size=target.size)


BoxForm = Literal["xyxy", "xywh"]
"""Two corners, or the upper left corner and width and height."""

REACHES_OUT = "target reaches out of its picture"
TURNED = "corners of a box in the wrong order"

_TOLERANCE = 1.0
"""Pixels a target may reach out unnoticed: some count pixels, some the lines between them."""
_MOST_BAD = 0.2
"""Share of boxes that may be bad before the whole file is taken for one of another form."""
_FEW = 10
"""Boxes below which no share is looked at."""


class TargetReader:
    """Reads the targets of one file and counts their faults.

    Args:
        form: of the boxes.
        warnings: where faults that were mended are counted.
    """

    def __init__(self, form: BoxForm, warnings: Counter[str]) -> None:
        self.form: BoxForm = form
        self.warnings = warnings
        self._boxes = 0
        self._bad = 0

    def box(self, values: Any, size: tuple[int, int] | None) -> np.ndarray | None:
        """(4,) x1, y1, x2, y2 in pixels, or None if they are no box.

        Corners in the wrong order are put in order. A box that reaches out of its picture stays as it is, as
        in the published scripts: no point can lie out there.

        Args:
            values: as published.
            size: (width, height) of the picture, where it is known.
        """
        self._boxes += 1
        numbers = _numbers(values)
        if numbers is None or len(numbers) != 4:
            self._bad += 1
            return None
        if self.form == "xywh":
            numbers[2:] += numbers[:2]
        box = _in_order(numbers)
        turned = bool((box != numbers).any())
        self.warnings[TURNED] += turned
        reaches_out = self._reaches_out(box.reshape(2, 2), size)
        self._bad += bool(turned or reaches_out)
        return box

    def two_corners(self, values: Any, size: tuple[int, int] | None) -> np.ndarray | None:
        """(4,) x1, y1, x2, y2 in pixels from two opposite corners, whatever the form of the file's boxes.

        None if they are no box.
        """
        numbers = _numbers(values)
        if numbers is None or len(numbers) != 4:
            return None
        self._reaches_out(numbers.reshape(2, 2), size)
        return _in_order(numbers)

    def polygon(self, values: Any, size: tuple[int, int] | None) -> np.ndarray | None:
        """(v, 2) corners in pixels from a flat or nested list, or None if they are no polygon."""
        numbers = _numbers(values)
        if numbers is None or len(numbers) < 6 or len(numbers) % 2:
            return None
        corners = numbers.reshape(-1, 2)
        self._reaches_out(corners, size)
        return corners

    def check(self, name: str) -> None:
        """Refuses a file whose boxes seem to have another form.

        Args:
            name: of the benchmark.

        Raises:
            EvaluationError: more than a fifth of its boxes are none, are turned, or reach out of their
                pictures.
        """
        if self._boxes >= _FEW and self._bad > _MOST_BAD * self._boxes:
            form = "x1, y1, x2, y2" if self.form == "xyxy" else "x, y, width, height"
            raise EvaluationError(
                f"expected boxes {form} in pixels for {name}, got {self._bad} of {self._boxes} that do not "
                "fit their "
                "pictures; is this the original data, and do the pictures belong to it?"
            )

    def _reaches_out(self, corners: np.ndarray, size: tuple[int, int] | None) -> bool:
        if size is None:
            return False
        is_inside = (corners >= -_TOLERANCE) & (corners <= np.array(size) + _TOLERANCE)
        if is_inside.all():
            return False
        self.warnings[REACHES_OUT] += 1
        return True


def _in_order(numbers: np.ndarray) -> np.ndarray:
    """(4,) the upper left and the lower right corner of a box from any two opposite ones (4,)."""
    return np.concatenate([np.minimum(numbers[:2], numbers[2:]), np.maximum(numbers[:2], numbers[2:])])


def _numbers(values: Any) -> np.ndarray | None:
    """Flat finite float64 numbers, or None."""
    try:
        numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None
    return numbers.copy() if np.isfinite(numbers).all() else None
