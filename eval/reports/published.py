"""Numbers that others published, each with the rule it was scored by; numbers by different rules are never put side by side.

Two runs on the same items: which is better, how sure that is, and on which items they differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.reports.intervals import Interval, bootstrap_difference, mcnemar


@dataclass(frozen=True)
class JudgedRun:
    """What a comparison needs of a run; `items.jsonl` and `metrics.json` hold it.

    Attributes:
        name: in the table.
        task: name of the benchmark.
        version: of its file.
        rule: of judging.
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


def compare(first: JudgedRun, second: JudgedRun) -> list[Difference]:
    """Differences of all metrics both runs have.

    Raises:
        EvaluationError: they are about different benchmarks, versions, rules or modes, or have no item in common.
    """
    for what in ("task", "version", "rule", "flaws"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            raise EvaluationError(
                f"expected two runs with the same {what}, got {one!r} ({first.name}) and {other!r} ({second.name}); "
                "score one of them again with `molmopoint score`"
            )
    common = sorted(first.scores.keys() & second.scores.keys())
    if not common:
        raise EvaluationError(f"expected items that both {first.name} and {second.name} answered, got none; compare runs on the same data")
    metrics = dict.fromkeys(metric for item in common for metric in first.scores[item] if metric in second.scores[item])
    return [_difference(metric, first, second, common) for metric in metrics]


def _difference(metric: str, first: JudgedRun, second: JudgedRun, common: list[str]) -> Difference:
    having = [item for item in common if metric in first.scores[item] and metric in second.scores[item]]
    ones = [float(first.scores[item][metric]) for item in having]
    others = [float(second.scores[item][metric]) for item in having]
    only_first = tuple(item for item, one, other in zip(having, ones, others, strict=True) if one > other)
    only_second = tuple(item for item, one, other in zip(having, ones, others, strict=True) if other > one)
    binary = {*ones, *others} <= {0.0, 1.0}
    return Difference(
        metric=metric,
        first=sum(ones) / len(ones),
        second=sum(others) / len(others),
        interval=bootstrap_difference(ones, others, [first.clusters.get(item) or item for item in having]),
        n=len(having),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(len(only_first), len(only_second)) if binary else None,
    )


@dataclass(frozen=True)
class Published:
    """What is published about one model on one benchmark.

    Attributes:
        task: name of the benchmark.
        rule: of judging.
        model: as the source names it.
        values: percent, by column: a metric, a group of items, both ("hota Animals"), a mean over groups ("mean over bin"), or
            "headline" where the number people quote is such a mean.
        source: where it is printed.
        approximate: columns whose value is not exact; they are no targets.
        note: what to know before comparing.
    """

    task: str
    rule: str
    model: str
    values: dict[str, float]
    source: str
    approximate: tuple[str, ...] = ()
    note: str = ""

    def text(self, column: str) -> str:
        """A value with one decimal, "~" before one that is not exact, nothing where none is published."""
        if column not in self.values:
            return ""
        return f"{'~' if column in self.approximate else ''}{self.values[column]:.1f}"

    @property
    def origin(self) -> str:
        """Source and note."""
        return f"{self.source}; {self.note}" if self.note else self.source


def published_for(task: str, rule: str) -> list[Published]:
    """Numbers of a benchmark by one rule, in the order of the sources; none if nobody published any."""
    return [entry for entry in _numbers() if (entry.task, entry.rule) == (task, rule)]


def published_rules(task: str) -> list[str]:
    """Rules of a benchmark by which there are published numbers."""
    return list(dict.fromkeys(entry.rule for entry in _numbers() if entry.task == task))


def note_about(task: str) -> str:
    """What to know about all published numbers of a benchmark; empty where there is nothing."""
    return _content()["notes"].get(task, "")


@cache
def _numbers() -> tuple[Published, ...]:
    return tuple(Published(**{**entry, "approximate": tuple(entry.get("approximate", ()))}) for entry in _content()["numbers"])


@cache
def _content() -> dict[str, Any]:
    return json.loads((files("molmopoint.eval.reports") / "published.json").read_text(encoding="utf-8"))
