"""Two runs on the same items: which is better, how sure that is, and on which items they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from molmopoint.errors import EvaluationError
from molmopoint.eval.reports.intervals import Interval, bootstrap_difference, mcnemar
from molmopoint.eval.reports.tables import percent


@dataclass(frozen=True)
class ScoredRun:
    """What a comparison needs of a run; `items.jsonl` and `metrics.json` hold it.

    Attributes:
        name: in the table.
        task: name of the benchmark.
        version: of its rules.
        rule: of scoring.
        flaws: of the reference that were repeated.
        scores: numbers by metric, by item id.
        clusters: by item id.
    """

    name: str
    task: str
    version: int
    rule: str
    flaws: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    clusters: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """Of one metric between two runs, over the items both have.

    Attributes:
        metric: name.
        first: mean of the first run.
        second: mean of the second run.
        interval: 95 % of second minus first, items drawn once for both.
        n: items both have.
        only_first: ids of items where only the first run has the better number, in order.
        only_second: the same for the second run.
        p_value: of McNemar's exact test where every number is 0 or 1; else None.
    """

    metric: str
    first: float
    second: float
    interval: Interval
    n: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    p_value: float | None

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval.low > 0 or self.interval.high < 0


def read_run(folder: Path) -> ScoredRun:
    """What `eval` or `score` wrote.

    Args:
        folder: of one benchmark, OUT/TASK.

    Raises:
        EvaluationError: it is no such folder, or its files cannot be read.
    """
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        lines = [
            json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        scored = [line for line in lines if "scores" in line]
        return ScoredRun(
            name=str(metrics.get("model") or folder),
            task=metrics["task"],
            version=metrics["version"],
            rule=metrics["rule"],
            flaws=tuple(metrics["flaws"]),
            scores={line["item_id"]: line["scores"] for line in scored},
            clusters={line["item_id"]: line["cluster"] for line in scored},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            "expected a folder that `molmopoint eval` or `score` wrote (OUT/TASK, with metrics.json and "
            "items.jsonl), got "
            f"{folder} ({type(error).__name__}: {error})"
        ) from error


def compare(first: ScoredRun, second: ScoredRun) -> list[Difference]:
    """Differences of all metrics both runs have.

    Raises:
        EvaluationError: they are about different benchmarks, versions, rules or modes, or have no item in
            common.
    """
    for what in ("task", "version", "rule", "flaws"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            raise EvaluationError(
                f"expected two runs with the same {what}, got {one!r} ({first.name}) and {other!r} "
                f"({second.name}); "
                "score one of them again with `molmopoint score`"
            )
    common = sorted(first.scores.keys() & second.scores.keys())
    if not common:
        raise EvaluationError(
            f"expected items that both {first.name} and {second.name} answered, got none; compare runs on "
            "the same data"
        )
    of_both: dict[str, list[str]] = {}
    for item in common:
        for metric in first.scores[item]:
            if metric in second.scores[item]:
                of_both.setdefault(metric, []).append(item)
    return [_difference(metric, items, first, second) for metric, items in of_both.items()]


def _difference(metric: str, items: list[str], first: ScoredRun, second: ScoredRun) -> Difference:
    ones = [float(first.scores[item][metric]) for item in items]
    others = [float(second.scores[item][metric]) for item in items]
    only_first, only_second = [], []
    for item, one, other in zip(items, ones, others, strict=True):
        if one > other:
            only_first.append(item)
        elif other > one:
            only_second.append(item)
    is_binary = {*ones, *others} <= {0.0, 1.0}
    return Difference(
        metric=metric,
        first=sum(ones) / len(ones),
        second=sum(others) / len(others),
        interval=bootstrap_difference(ones, others, [first.clusters.get(item) or item for item in items]),
        n=len(items),
        only_first=tuple(only_first),
        only_second=tuple(only_second),
        p_value=mcnemar(len(only_first), len(only_second)) if is_binary else None,
    )


def comparison_table(first: ScoredRun, second: ScoredRun) -> Table:
    """Differences of two runs on the same items, for a terminal.

    Raises:
        EvaluationError: they cannot be compared.
    """
    differences = compare(first, second)
    title = f"{escape(second.name)} against {escape(first.name)}, {differences[0].n} items both have"
    table = Table(title=title, title_justify="left")
    for name in ("metric", "there", "here", "difference", "only there", "only here", "p"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for each in differences:
        interval = f"[{percent(each.interval.low)}, {percent(each.interval.high)}]"
        change = escape(f"{percent(each.second - each.first)} {interval}")
        table.add_row(
            escape(each.metric),
            percent(each.first),
            percent(each.second),
            f"[bold]{change}[/]" if each.is_sure else change,
            str(len(each.only_first)),
            str(len(each.only_second)),
            "" if each.p_value is None else f"{each.p_value:.3g}",
        )
    return table
