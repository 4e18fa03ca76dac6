"""A summary as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from molmopoint.eval.reports.summary import Cell, Summary
from molmopoint.safe_text import table_cell

SCHEMA_VERSION = 1
"""Of `metrics.json`."""


def markdown(summary: Summary) -> str:
    """The table for people: headline, coverage, every group, and how answers went wrong."""
    lines = [f"# {summary.title}", "", headline_line(summary), ""]
    lines += [f"- Items: {summary.coverage}", f"- If every missing item were wrong: {percent(summary.missing_is_wrong)}"]
    lines += [f"- {name.replace('_', ' ').capitalize()}: {percent(rate)} % of the items" for name, rate in summary.rates.items()]
    lines += [f"- Mended: {count} x {kind}" for kind, count in summary.coverage.warnings.items()]
    if summary.flaws:
        lines += [f"- Flaws of the reference repeated on purpose: {', '.join(summary.flaws)}"]
    metrics = list(dict.fromkeys(cell.metric for cell in summary.cells))
    lines += ["", "| | n | " + " | ".join(metrics) + " |", "|---|--:|" + "--:|" * len(metrics)]
    lines += [f"| {name} | {row[0].n} | " + " | ".join(_of_metric(row, metric) for metric in metrics) + " |" for name, row in rows(summary)]
    lines += ["", "Percent, with 95 % intervals."]
    return "\n".join(lines) + "\n"


def headline_line(summary: Summary) -> str:
    """The one number, with its interval, rule and coverage."""
    cell = summary.headline
    over = f", mean over {' and '.join(cell.view)}" if cell.is_macro else ""
    items = f"{summary.coverage.scored} of {summary.coverage.total} items"
    return f"**{cell.metric} {with_interval(cell)}** (rule `{summary.rule}`{over}; {items})"


def rows(summary: Summary) -> Iterator[tuple[str, list[Cell]]]:
    """Rows of the table: a name, and the cells of all metrics."""
    by_row: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Cell]] = {}
    for cell in summary.cells:
        by_row.setdefault((cell.view, cell.group), []).append(cell)
    for (view, group), cells in by_row.items():
        yield ("all" if not view else " / ".join(group) if group else f"mean over {' and '.join(view)}"), cells


def csv_text(summary: Summary) -> str:
    """A line per cell, in full precision; names that a spreadsheet would compute stand behind an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "rule", "view", "group", "metric", "value", "low", "high", "n"])
    for cell in summary.cells:
        names = (summary.task, summary.rule, " x ".join(cell.view), " / ".join(cell.group), cell.metric)
        numbers = ("" if math.isnan(v) else repr(v) for v in (cell.value, cell.interval.low, cell.interval.high))
        writer.writerow([*map(table_cell, names), *numbers, cell.n])
    return out.getvalue()


def metrics_dict(summary: Summary) -> dict[str, Any]:
    """What `metrics.json` holds beside the settings of the run; NaN is null."""
    return {"schema_version": SCHEMA_VERSION, **_without_nan(asdict(summary))}


def percent(value: float) -> str:
    """One decimal."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def with_interval(cell: Cell) -> str:
    """A value and its interval in percent."""
    if math.isnan(cell.value):
        return "-"
    return f"{percent(cell.value)} [{percent(cell.interval.low)}, {percent(cell.interval.high)}]"


def _of_metric(cells: list[Cell], metric: str) -> str:
    return next((with_interval(cell) for cell in cells if cell.metric == metric), "-")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
