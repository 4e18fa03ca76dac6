"""Measuring models: `evaluate` on benchmarks, and `python -m molmopoint.eval.speed` for how fast they are.

Names are imported when they are first used, so that measuring speed loads nothing of the benchmarks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.eval.benchmark import Benchmark
    from molmopoint.eval.benchmarks import benchmark_names, find_benchmark
    from molmopoint.eval.evaluation import EvaluationResult, evaluate
    from molmopoint.eval.outlines import box_outline
    from molmopoint.eval.runner.scoring import score_predictions

__all__ = [
    "Benchmark",
    "EvaluationResult",
    "benchmark_names",
    "box_outline",
    "evaluate",
    "find_benchmark",
    "score_predictions",
]

_HOMES = {
    "Benchmark": "benchmark",
    "EvaluationResult": "evaluation",
    "benchmark_names": "benchmarks",
    "box_outline": "outlines",
    "evaluate": "evaluation",
    "find_benchmark": "benchmarks",
    "score_predictions": "runner.scoring",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
