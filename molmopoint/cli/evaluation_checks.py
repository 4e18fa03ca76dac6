"""What an evaluation is given, checked before the libraries of models are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmopoint.cli.inputs import check_can_write, check_segmenter, leave
from molmopoint.errors import EvaluationError, MolmoPointError
from molmopoint.files import is_file, is_folder

if TYPE_CHECKING:
    from molmopoint.eval.benchmark import Benchmark

FIXTURE = "fixture"
"""A few made items in place of a folder with data."""


def check_scoring(
    tasks: Sequence[str],
    *,
    data: str | None,
    out: Path,
    rule: str | None,
    baseline: Path | None,
    segmenter: str | None,
) -> list[Benchmark]:
    """Ends the command where a benchmark, a rule, a folder or a segmenter does not exist.

    Returns:
        The benchmarks.
    """
    from molmopoint.eval.benchmarks import find_benchmark
    from molmopoint.eval.runner.settings import check_rule

    try:
        if not tasks:
            raise EvaluationError(
                "expected one or more benchmarks, got none; `molmopoint eval --list` tells the names"
            )
        found = [find_benchmark(name) for name in tasks]
        for benchmark in found:
            check_rule(benchmark, rule)
        if data not in (None, FIXTURE) and not is_folder(Path(str(data)).expanduser()):
            raise EvaluationError(
                f"expected --data as a folder with the data of {found[0].name}, or {FIXTURE}, got {data!r}; check "
                "the path"
            )
        if is_file(out):
            raise EvaluationError(f"expected --out as a folder, got the file {str(out)!r}; pass another")
        check_can_write("--out", out)
        if baseline is not None and not is_file(baseline / "metrics.json"):
            raise EvaluationError(
                "expected --baseline as a folder that `molmopoint eval` or `score` wrote (OUT/TASK), got "
                f"{str(baseline)!r} without metrics.json; check the path"
            )
    except (MolmoPointError, OSError) as error:
        raise leave(error) from error
    check_segmenter(segmenter)
    return found


def check_changes(benchmarks: Sequence[Benchmark], changes: Mapping[str, Any]) -> None:
    """Ends the command where a benchmark is not asked that way."""
    from molmopoint.eval.runner.settings import changed_settings

    try:
        for benchmark in benchmarks:
            changed_settings(benchmark, changes, option_name)
    except MolmoPointError as error:
        raise leave(error) from error


def check_data(benchmarks: Sequence[Benchmark], data: str | None) -> None:
    """Ends the command where data of the hub is neither here nor to be had."""
    if data is not None:
        return
    from molmopoint.eval.runner.data import check_reachable

    try:
        for benchmark in benchmarks:
            check_reachable(benchmark)
    except MolmoPointError as error:
        raise leave(error) from error


def option_name(setting: str) -> str:
    """How a setting is written on the command line."""
    return "--" + setting.replace("_", "-")
