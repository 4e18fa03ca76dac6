"""From numbers per item to the numbers of a table, each with its interval and the number of items behind it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from molmopoint.eval.benchmark import Benchmark, Item, Items, ItemScores, Metric, ParsedAnswer, View
from molmopoint.eval.reports.intervals import NOTHING, Interval, bootstrap_mean, wilson


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
        scored: items that could be asked and scored.
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
        text = f"{self.scored} of {self.total}"
        if self.missing:
            reasons = [f"{count} {reason}" for reason, count in self.missing.items()]
            text += f" ({', '.join(reasons)})"
        if self.failed:
            text += f"; {self.failed} failed and count as wrong"
        return text


@dataclass(frozen=True)
class Summary:
    """A scored run of one benchmark.

    Attributes:
        task: name of the benchmark.
        title: as its authors write it.
        version: of the benchmark's file.
        rule: of scoring.
        flaws: of the reference that were repeated on purpose; empty in the usual mode.
        headline: the one number.
        missing_is_wrong: the same with a 0 for every missing item.
        cells: all numbers, the headline's metric first.
        coverage: how much was scored.
        rates: shares of the scored items whose answer has no point, more points than the task wants, was cut,
            or had points without a place; and means of the benchmark's `shares`.
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


Scores = Mapping[str, ItemScores]
"""Numbers by metric, by item id."""


def summarise(
    benchmark: Benchmark,
    items: Items,
    scores: Scores,
    answers: Mapping[str, ParsedAnswer],
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
        scores: of the items that were scored.
        answers: of the items that were answered, for the rates.
        rule: they were scored by.
        ref_compat: whether the reference's flaws were repeated.
        failed: items whose model or media failed.
        extra: metrics of `scores` beside those of the benchmark.
    """
    scored = [item for item in items.found if item.item_id in scores]
    cells: list[Cell] = []
    for metric in (*benchmark.metrics, *extra):
        cells += _cells_of(metric, scored, scores, benchmark.views)
    headline = _headline(cells, *benchmark.headline_of(rule))
    reasons = Counter(missing.reason for missing in items.missing)
    left = len(items.found) - len(scored)
    if left:
        reasons["not asked"] += left
    total = len(items.found) + len(items.missing)
    answered = [answers[item.item_id] for item in scored if item.item_id in answers]
    rates = _rates(answered, len(scored), benchmark)
    return Summary(
        task=benchmark.name,
        title=benchmark.title,
        version=benchmark.version,
        rule=rule,
        flaws=benchmark.flaws if ref_compat else (),
        headline=headline,
        missing_is_wrong=_with_zeros(headline, len(items.missing)),
        cells=tuple(cells),
        coverage=Coverage(total, len(scored), failed, dict(reasons), dict(items.warnings)),
        rates=rates | _shares(benchmark, scored, scores),
    )


def cell_of(
    metric: Metric,
    items: Sequence[Item],
    scores: Scores,
    view: tuple[str, ...] = (),
    group: tuple[str, ...] = (),
) -> Cell:
    """The mean of a metric over items that have it."""
    having = _having(metric, items, scores)
    values = [float(scores[item.item_id][metric.name]) for item in having]
    value = sum(values) / len(values) if values else math.nan
    clusters = [item.cluster or item.item_id for item in having]
    num_clusters = len(set(clusters))
    # Wilson's interval takes items as independent, which they are if no two share a cluster. A share of
    # exactly 0 or 1 leaves the bootstrap nothing to vary; then clusters count as items.
    are_independent = num_clusters == len(clusters) or value in (0.0, 1.0)
    if not having:
        interval = NOTHING
    elif metric.kind == "binary" and are_independent:
        interval = wilson(round(value * num_clusters), num_clusters)
    else:
        interval = bootstrap_mean(values, clusters)
    return Cell(metric.name, view, group, value, len(values), interval)


def _cells_of(metric: Metric, items: Sequence[Item], scores: Scores, views: Sequence[View]) -> list[Cell]:
    cells = [cell_of(metric, items, scores)]
    for view in views:
        groups = _groups_of(items, view)
        for group, members in groups.items():
            cells.append(cell_of(metric, members, scores, view.category, group))
        if view.macro:
            cells.append(_macro(metric, groups, scores, view))
    return cells


def _headline(cells: Sequence[Cell], metric: str, category: str | None) -> Cell:
    """The cell of a metric over all items, or of its mean over the groups of a category."""
    view = (category,) if category else ()
    return next(cell for cell in cells if cell.metric == metric and cell.view == view and not cell.group)


def _macro(metric: Metric, groups: Mapping[tuple[str, ...], list[Item]], scores: Scores, view: View) -> Cell:
    """The unweighted mean over groups that have items."""
    values, clusters, strata, means = [], [], [], []
    for group, members in groups.items():
        having = _having(metric, members, scores)
        if not having:
            continue
        here = [float(scores[item.item_id][metric.name]) for item in having]
        means.append(sum(here) / len(here))
        values += here
        clusters += [item.cluster or item.item_id for item in having]
        strata += [group] * len(here)
    value = sum(means) / len(means) if means else math.nan
    interval = bootstrap_mean(values, clusters, strata)
    return Cell(metric.name, view.category, (), value, len(values), interval)


def _having(metric: Metric, items: Sequence[Item], scores: Scores) -> list[Item]:
    """Items the metric is about."""
    having = [item for item in items if metric.name in scores[item.item_id]]
    if metric.given is None:
        return having
    return [item for item in having if scores[item.item_id].get(metric.given)]


def _groups_of(items: Iterable[Item], view: View) -> dict[tuple[str, ...], list[Item]]:
    """Items by group, in the order of the view; an item may be in several."""
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        values = []
        for key in view.category:
            value = item.categories.get(key, ())
            values.append((value,) if isinstance(value, str) else value)
        for group in product(*values):
            groups.setdefault(group, []).append(item)
    place = {name: i for i, name in enumerate(view.order)}

    def in_order(group: tuple[str, ...]) -> list[tuple[int, str]]:
        return [(place.get(name, len(place)), name) for name in group]

    return {group: groups[group] for group in sorted(groups, key=in_order)}


def _with_zeros(headline: Cell, missing: int) -> float:
    """The headline if every missing item were wrong.

    Of a macro mean this is a lower estimate: missing items have no group.
    """
    if not headline.n:
        return math.nan
    return headline.value * headline.n / (headline.n + missing)


def _rates(answers: Sequence[ParsedAnswer], scored: int, benchmark: Benchmark) -> dict[str, float]:
    """Shares of the scored items; those without an answer have no point."""
    if not scored or benchmark.needs != "points":
        return {}
    with_points = sum(len(answer) > 0 for answer in answers)
    rates = {"without_points": (scored - with_points) / scored}
    if benchmark.expects_one:
        rates["several_points"] = sum(len(answer) > 1 for answer in answers) / scored
    rates["truncated"] = sum(answer.truncated for answer in answers) / scored
    rates["with_invalid_points"] = sum(answer.invalid > 0 for answer in answers) / scored
    return rates


def _shares(benchmark: Benchmark, items: Sequence[Item], scores: Scores) -> dict[str, float]:
    shares = {}
    for name in benchmark.shares:
        cell = cell_of(Metric(name, "mean"), items, scores)
        if cell.n:
            shares[name] = cell.value
    return shares
