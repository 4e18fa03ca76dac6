"""Which checkpoint of a run is the best one, told from scores that are known only so well.

A few dozen held-out requests do not rank checkpoints: with 30 of them F1 has a standard error of about 0.06, and the highest of
several scores is mostly the luckiest. So the one-standard-error rule of cross-validation decides (Breiman, Friedman, Olshen and
Stone: Classification and Regression Trees, 1984): of all that are as good as the highest within its standard error, the one that has
learned longest. With many requests the error goes to zero, and the highest score wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ERROR = "_error"
"""What follows the name of a score in the name of its standard error."""


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; 0 for fewer than two, which tell nothing about it."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def best_step(history: Sequence[Mapping[str, Any]], name: str) -> tuple[int, float] | None:
    """The best step of a run and its score.

    Args:
        history: lines of the log; those that were scored have "step", the score, more is better, and maybe its standard error
            under `name + "_error"`, else 0.
        name: of the score.

    Returns:
        The newest step whose score is the highest less its standard error or more; of equal highest scores the newest counts.
        None if nothing was scored.
    """
    scored = [(line[name], line["step"], line.get(name + ERROR, 0.0)) for line in history if name in line]
    if not scored:
        return None
    highest, _, error = max(scored)
    step, score = max((step, score) for score, step, _ in scored if score >= highest - error)
    return step, score
