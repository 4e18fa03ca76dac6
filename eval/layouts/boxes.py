"""Boxes and polygons of published targets, brought to one form and checked against their picture.

Four numbers can be two corners or a corner and a size, and the wrong reading often still looks like a box. So the form is named
by the benchmark, and a data set in which many boxes do not fit their pictures is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np

from molmopoint.errors import EvaluationError

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

        Corners in the wrong order are put in order. A box that reaches out of its picture stays as it is, as in the published
        scripts: no point can lie out there.

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
        box = np.concatenate([np.minimum(numbers[:2], numbers[2:]), np.maximum(numbers[:2], numbers[2:])])
        turned = bool((box != numbers).any())
        self.warnings[TURNED] += turned
        reaches_out = self._reaches_out(box.reshape(2, 2), size)
        self._bad += bool(turned or reaches_out)
        return box

    def two_corners(self, values: Any, size: tuple[int, int] | None) -> np.ndarray | None:
        """(4,) x1, y1, x2, y2 in pixels from two opposite corners, whatever the form of the file's boxes; None if they are no box."""
        numbers = _numbers(values)
        if numbers is None or len(numbers) != 4:
            return None
        corners = numbers.reshape(2, 2)
        self._reaches_out(corners, size)
        return np.concatenate([corners.min(axis=0), corners.max(axis=0)])

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
            EvaluationError: more than a fifth of its boxes are none, are turned, or reach out of their pictures.
        """
        if self._boxes >= _FEW and self._bad > _MOST_BAD * self._boxes:
            form = "x1, y1, x2, y2" if self.form == "xyxy" else "x, y, width, height"
            raise EvaluationError(
                f"expected boxes {form} in pixels for {name}, got {self._bad} of {self._boxes} that do not fit their pictures; "
                "is this the original data, and do the pictures belong to it?"
            )

    def _reaches_out(self, corners: np.ndarray, size: tuple[int, int] | None) -> bool:
        if size is None or ((corners >= -_TOLERANCE) & (corners <= np.array(size) + _TOLERANCE)).all():
            return False
        self.warnings[REACHES_OUT] += 1
        return True


def _numbers(values: Any) -> np.ndarray | None:
    """Flat finite float64 numbers, or None."""
    try:
        numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None
    return numbers.copy() if np.isfinite(numbers).all() else None
