"""A summary as tables: for a terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from molmopoint.eval.reports.summary import Cell, Summary
from molmopoint.safe_text import table_cell

SCHEMA_VERSION = 1
"""Of `metrics.json`."""


def summary_table(summary: Summary) -> Table:
    """All numbers of a run, for a terminal; rule, mode and coverage stand in the title and below."""
    table = Table(
        title=_title(summary), caption=_caption(summary), title_justify="left", caption_justify="left"
    )
    metrics = _metrics_of(summary)
    table.add_column("")
    table.add_column("n", justify="right")
    for metric in metrics:
        table.add_column(escape(metric), justify="right")
    for name, cells in rows(summary):
        values = []
        for metric in metrics:
            cell = _cell_of(cells, metric)
            text = escape(with_interval(cell))
            values.append(f"[bold]{text}[/]" if cell == summary.headline else text)
        table.add_row(escape(name), str(cells[0].n), *values)
    return table


def markdown(summary: Summary) -> str:
    """The table for people: headline, coverage, every group, and how answers went wrong."""
    lines = [
        f"# {summary.title}",
        "",
        headline_line(summary),
        "",
        f"- Items: {summary.coverage}",
        f"- If every missing item were wrong: {percent(summary.missing_is_wrong)}",
    ]
    for name, rate in summary.rates.items():
        lines.append(f"- {name.replace('_', ' ').capitalize()}: {percent(rate)} % of the items")
    for kind, count in summary.coverage.warnings.items():
        lines.append(f"- Mended: {count} x {kind}")
    if summary.flaws:
        lines.append(f"- Flaws of the reference repeated on purpose: {', '.join(summary.flaws)}")
    metrics = _metrics_of(summary)
    lines += ["", "| | n | " + " | ".join(metrics) + " |", "|---|--:|" + "--:|" * len(metrics)]
    for name, cells in rows(summary):
        values = [with_interval(_cell_of(cells, metric)) for metric in metrics]
        lines.append(f"| {name} | {cells[0].n} | {' | '.join(values)} |")
    lines += ["", "Percent, with 95 % intervals."]
    return "\n".join(lines) + "\n"


def headline_line(summary: Summary) -> str:
    """The one number, with its interval, rule and coverage."""
    cell = summary.headline
    over = f", mean over {' and '.join(cell.view)}" if cell.is_macro else ""
    items = f"{summary.coverage.scored} of {summary.coverage.total} items"
    return f"**{cell.metric} {with_interval(cell)}** (rule `{summary.rule}`{over}; {items})"


def csv_text(summary: Summary) -> str:
    """A line per cell, in full precision; names that a spreadsheet would compute stand behind an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "rule", "view", "group", "metric", "value", "low", "high", "n"])
    for cell in summary.cells:
        names = (summary.task, summary.rule, " x ".join(cell.view), " / ".join(cell.group), cell.metric)
        numbers = [_exact(value) for value in (cell.value, cell.interval.low, cell.interval.high)]
        writer.writerow([*map(table_cell, names), *numbers, cell.n])
    return out.getvalue()


def metrics_dict(summary: Summary) -> dict[str, Any]:
    """What `metrics.json` holds beside the settings of the run; NaN is null."""
    return {"schema_version": SCHEMA_VERSION, **_without_nan(asdict(summary))}


def rows(summary: Summary) -> Iterator[tuple[str, list[Cell]]]:
    """Rows of the table: a name, and the cells of all metrics."""
    by_row: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Cell]] = {}
    for cell in summary.cells:
        by_row.setdefault((cell.view, cell.group), []).append(cell)
    for (view, group), cells in by_row.items():
        if group:
            yield " / ".join(group), cells
        elif view:
            yield f"mean over {' and '.join(view)}", cells
        else:
            yield "all", cells


def percent(value: float) -> str:
    """One decimal."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def with_interval(cell: Cell | None) -> str:
    """A value and its interval in percent; a dash where there is none."""
    if cell is None or math.isnan(cell.value):
        return "-"
    return f"{percent(cell.value)} [{percent(cell.interval.low)}, {percent(cell.interval.high)}]"


def _title(summary: Summary) -> str:
    mode = f", with the reference's flaws: {', '.join(summary.flaws)}" if summary.flaws else ""
    return f"{escape(summary.title)}\nrule {summary.rule}{escape(mode)}"


def _caption(summary: Summary) -> str:
    if_wrong = percent(summary.missing_is_wrong)
    rates = [f"{name.replace('_', ' ')} {percent(rate)} %" for name, rate in summary.rates.items()]
    lines = [f"items: {summary.coverage}; headline if missing ones were wrong: {if_wrong}", "; ".join(rates)]
    lines += [f"mended: {count} x {kind}" for kind, count in summary.coverage.warnings.items()]
    lines.append("percent, with 95 % intervals")
    return escape("\n".join(line for line in lines if line))


def _metrics_of(summary: Summary) -> list[str]:
    return list(dict.fromkeys(cell.metric for cell in summary.cells))


def _cell_of(cells: Sequence[Cell], metric: str) -> Cell | None:
    return next((cell for cell in cells if cell.metric == metric), None)


def _exact(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
