"""Measuring models: `evaluate` on benchmarks, and `python -m molmopoint.eval.speed` for how fast they are.

Names are imported when they are first used, so that measuring speed loads nothing of the benchmarks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molmopoint.eval.benchmark import Benchmark
    from molmopoint.eval.benchmarks import benchmark_names, find_benchmark
    from molmopoint.eval.evaluation import EvaluationResult, evaluate

__all__ = ["Benchmark", "EvaluationResult", "benchmark_names", "evaluate", "find_benchmark"]

_HOMES = {
    "Benchmark": "molmopoint.eval.benchmark",
    "EvaluationResult": "molmopoint.eval.evaluation",
    "benchmark_names": "molmopoint.eval.benchmarks",
    "evaluate": "molmopoint.eval.evaluation",
    "find_benchmark": "molmopoint.eval.benchmarks",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}"
        )
    return getattr(import_module(_HOMES[name]), name)
