"""From numbers per item to the numbers of a table, each with its interval and the number of items behind it.

A judged run as it lies on the disk, for comparisons.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Answer, Benchmark, Item, Items, Metric, View
from molmopoint.eval.reports.intervals import NOTHING, Interval, bootstrap_mean, wilson
from molmopoint.eval.reports.published import JudgedRun


def read_run(folder: Path) -> JudgedRun:
    """What `eval` or `score` wrote.

    Args:
        folder: of one benchmark, OUT/TASK.

    Raises:
        EvaluationError: it is no such folder, or its files cannot be read.
    """
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]
        judged = [line for line in lines if "scores" in line]
        return JudgedRun(
            name=str(metrics.get("model") or folder),
            task=metrics["task"],
            version=metrics["version"],
            rule=metrics["rule"],
            flaws=tuple(metrics["flaws"]),
            scores={line["item_id"]: line["scores"] for line in judged},
            clusters={line["item_id"]: line["cluster"] for line in judged},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"expected a folder that `molmopoint eval` or `score` wrote (OUT/TASK, with metrics.json and items.jsonl), got {folder} "
            f"({type(error).__name__}: {error})"
        ) from error


@dataclass(frozen=True)
class Cell:
    """One number.

    Attributes:
        metric: name.
        view: how items were grouped; empty for all items.
        group: which group, a value per key of `view`; empty for all items and for macro means.
        value: 0..1; NaN without items.
        n: items behind it.
        interval: 95 %.
    """

    metric: str
    view: tuple[str, ...]
    group: tuple[str, ...]
    value: float
    n: int
    interval: Interval

    @property
    def is_macro(self) -> bool:
        """Whether it is a mean over groups."""
        return bool(self.view) and not self.group


@dataclass(frozen=True)
class Coverage:
    """How much of the benchmark a score is about.

    Attributes:
        total: items the data describes.
        scored: items that could be asked and judged.
        failed: scored items whose model or media failed; they count as wrong.
        missing: items that could not be asked, by reason.
        warnings: faults that were mended, by kind.
    """

    total: int
    scored: int
    failed: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.missing.items())
        failed = f"; {self.failed} failed and count as wrong" if self.failed else ""
        return f"{self.scored} of {self.total}" + (f" ({reasons})" if reasons else "") + failed


@dataclass(frozen=True)
class Summary:
    """A scored run of one benchmark.

    Attributes:
        task: name of the benchmark.
        title: as its authors write it.
        version: of the benchmark's file.
        rule: of judging.
        flaws: of the reference that were repeated on purpose; empty in the usual mode.
        headline: the one number.
        missing_is_wrong: the same with a 0 for every missing item.
        cells: all numbers, the headline's metric first.
        coverage: how much was scored.
        rates: shares of the scored items whose answer has no point, more points than the task wants, was cut, or had points
            without a place; and means of the benchmark's `shares`.
    """

    task: str
    title: str
    version: int
    rule: str
    flaws: tuple[str, ...]
    headline: Cell
    missing_is_wrong: float
    cells: tuple[Cell, ...]
    coverage: Coverage
    rates: Mapping[str, float]


Scores = Mapping[str, Mapping[str, float]]
"""Numbers by metric, by item id."""


def summarise(
    benchmark: Benchmark,
    items: Items,
    scores: Scores,
    answers: Mapping[str, Answer],
    rule: str,
    *,
    ref_compat: bool = False,
    failed: int = 0,
    extra: Sequence[Metric] = (),
) -> Summary:
    """The table of a run.

    Args:
        benchmark: whose items they are.
        items: of the data; those asked only in part (a limit) are told apart by `scores`.
        scores: of the items that were judged.
        answers: of the items that were answered, for the rates.
        rule: they were judged by.
        ref_compat: whether the reference's flaws were repeated.
        failed: items whose model or media failed.
        extra: metrics of `scores` beside those of the benchmark.
    """
    judged = [item for item in items.found if item.item_id in scores]
    cells = [cell for metric in (*benchmark.metrics, *extra) for cell in _cells_of(metric, judged, scores, benchmark.views)]
    metric, category = benchmark.headline_of(rule)
    headline = next(cell for cell in cells if cell.metric == metric and cell.view == ((category,) if category else ()) and not cell.group)
    reasons = Counter(missing.reason for missing in items.missing)
    if left := len(items.found) - len(judged):
        reasons["not asked"] += left
    total = len(items.found) + len(items.missing)
    return Summary(
        task=benchmark.name,
        title=benchmark.title,
        version=benchmark.version,
        rule=rule,
        flaws=benchmark.flaws if ref_compat else (),
        headline=headline,
        missing_is_wrong=_with_zeros(headline, len(items.missing)),
        cells=tuple(cells),
        coverage=Coverage(total, len(judged), failed, dict(reasons), dict(items.warnings)),
        rates=_rates([answers[item.item_id] for item in judged if item.item_id in answers], len(judged), benchmark)
        | _shares(benchmark, judged, scores),
    )


def cell_of(metric: Metric, items: Sequence[Item], scores: Scores, view: tuple[str, ...] = (), group: tuple[str, ...] = ()) -> Cell:
    """The mean of a metric over items that have it."""
    having = _having(metric, items, scores)
    values = [float(scores[item.item_id][metric.name]) for item in having]
    value = sum(values) / len(values) if values else math.nan
    clusters = [item.cluster or item.item_id for item in having]
    num_clusters = len(set(clusters))
    # Wilson's interval takes items as independent, which they are if no two share a cluster. A share of exactly 0 or 1 leaves the
    # bootstrap nothing to vary; then clusters count as items.
    if not having:
        interval = NOTHING
    elif metric.kind == "binary" and (num_clusters == len(clusters) or value in (0.0, 1.0)):
        interval = wilson(round(value * num_clusters), num_clusters)
    else:
        interval = bootstrap_mean(values, clusters)
    return Cell(metric.name, view, group, value, len(values), interval)


def _cells_of(metric: Metric, items: Sequence[Item], scores: Scores, views: Sequence[View]) -> list[Cell]:
    cells = [cell_of(metric, items, scores)]
    for view in views:
        groups = _groups_of(items, view)
        cells += [cell_of(metric, members, scores, view.category, group) for group, members in groups.items()]
        if view.macro:
            cells.append(_macro(metric, groups, scores, view))
    return cells


def _macro(metric: Metric, groups: Mapping[tuple[str, ...], list[Item]], scores: Scores, view: View) -> Cell:
    """The unweighted mean over groups that have items."""
    values, clusters, strata, means = [], [], [], []
    for group, members in groups.items():
        if having := _having(metric, members, scores):
            here = [float(scores[item.item_id][metric.name]) for item in having]
            means.append(sum(here) / len(here))
            values += here
            clusters += [item.cluster or item.item_id for item in having]
            strata += [group] * len(here)
    value = sum(means) / len(means) if means else math.nan
    return Cell(metric.name, view.category, (), value, len(values), bootstrap_mean(values, clusters, strata))


def _having(metric: Metric, items: Sequence[Item], scores: Scores) -> list[Item]:
    """Items the metric is about."""
    with_it = [item for item in items if metric.name in scores[item.item_id]]
    return [item for item in with_it if metric.given is None or scores[item.item_id].get(metric.given)]


def _groups_of(items: Iterable[Item], view: View) -> dict[tuple[str, ...], list[Item]]:
    """Items by group, in the order of the view; an item may be in several."""
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        values = [item.categories.get(key, ()) for key in view.category]
        for group in product(*((value,) if isinstance(value, str) else value for value in values)):
            groups.setdefault(group, []).append(item)
    place = {name: i for i, name in enumerate(view.order)}
    return dict(sorted(groups.items(), key=lambda pair: [(place.get(name, len(place)), name) for name in pair[0]]))


def _with_zeros(headline: Cell, missing: int) -> float:
    """The headline if every missing item were wrong. Of a macro mean this is a lower estimate: missing items have no group."""
    return headline.value * headline.n / (headline.n + missing) if headline.n else math.nan


def _rates(answers: Sequence[Answer], judged: int, benchmark: Benchmark) -> dict[str, float]:
    if not judged or benchmark.needs != "points":
        return {}
    empty = judged - sum(len(answer) > 0 for answer in answers)
    rates = {"without_points": empty / judged}
    if benchmark.expects_one:
        rates["several_points"] = sum(len(answer) > 1 for answer in answers) / judged
    rates["truncated"] = sum(answer.truncated for answer in answers) / judged
    rates["with_invalid_points"] = sum(answer.invalid > 0 for answer in answers) / judged
    return rates


def _shares(benchmark: Benchmark, judged: Sequence[Item], scores: Scores) -> dict[str, float]:
    cells = {name: cell_of(Metric(name, "mean"), judged, scores) for name in benchmark.shares}
    return {name: cell.value for name, cell in cells.items() if cell.n}
