"""Answers for tests of benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

from molmopoint.eval.benchmark import ParsedAnswer


def points(*xy: tuple[float, float], **fields: Any) -> ParsedAnswer:
    """An answer with these points, in pixels."""
    return ParsedAnswer(
        np.array(xy, dtype=float).reshape(-1, 2), np.zeros(len(xy)), np.full(len(xy), -1), **fields
    )
