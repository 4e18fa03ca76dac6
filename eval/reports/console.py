"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from molmopoint.eval.reports.published import JudgedRun, compare, note_about, published_for, published_rules
from molmopoint.eval.reports.summary import Cell, Summary
from molmopoint.eval.reports.tables import percent, rows, with_interval


def summary_table(summary: Summary) -> Table:
    """All numbers of a run; rule, mode and coverage stand in the title and below."""
    table = Table(title=_title(summary), caption=_caption(summary), title_justify="left", caption_justify="left")
    metrics = list(dict.fromkeys(cell.metric for cell in summary.cells))
    table.add_column("")
    table.add_column("n", justify="right")
    for metric in metrics:
        table.add_column(escape(metric), justify="right")
    for name, cells in rows(summary):
        table.add_row(escape(name), str(cells[0].n), *(_cell(cells, metric, summary) for metric in metrics))
    return table


def comparison_table(first: JudgedRun, second: JudgedRun) -> Table:
    """Differences of two runs on the same items.

    Raises:
        EvaluationError: they cannot be compared.
    """
    differences = compare(first, second)
    table = Table(title=f"{escape(second.name)} against {escape(first.name)}, {differences[0].n} items both have", title_justify="left")
    for name in ("metric", "there", "here", "difference", "only there", "only here", "p"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for each in differences:
        change = f"{percent(each.second - each.first)} [{percent(each.interval.low)}, {percent(each.interval.high)}]"
        p_value = "" if each.p_value is None else f"{each.p_value:.3g}"
        table.add_row(
            escape(each.metric),
            percent(each.first),
            percent(each.second),
            f"[bold]{escape(change)}[/]" if each.is_sure else escape(change),
            str(len(each.only_first)),
            str(len(each.only_second)),
            p_value,
        )
    return table


def published_table(summary: Summary) -> Table:
    """Published numbers of the same benchmark and rule, and ours among them; numbers by other rules are left out."""
    entries = published_for(summary.task, summary.rule)
    names = list(dict.fromkeys(name for entry in entries for name in entry.values))
    title = f"{escape(summary.title)}, published by rule {summary.rule}"
    caption = note_about(summary.task) or None if entries else _nothing_published(summary)
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in ("model", *names, "source"):
        table.add_column(escape(name), justify="left" if name in ("model", "source") else "right")
    for entry in entries:
        table.add_row(escape(entry.model), *(entry.text(name) for name in names), escape(entry.origin))
    ours = [_ours(summary, name) for name in names]
    table.add_row("[bold]this run[/]", *ours, f"{summary.coverage.scored} of {summary.coverage.total} items")
    return table


def _title(summary: Summary) -> str:
    mode = f", with the reference's flaws: {', '.join(summary.flaws)}" if summary.flaws else ""
    return f"{escape(summary.title)}\nrule {summary.rule}{escape(mode)}"


def _caption(summary: Summary) -> str:
    rates = "; ".join(f"{name.replace('_', ' ')} {percent(rate)} %" for name, rate in summary.rates.items())
    mended = [f"mended: {count} x {kind}" for kind, count in summary.coverage.warnings.items()]
    items = f"items: {summary.coverage}; headline if missing ones were wrong: {percent(summary.missing_is_wrong)}"
    return escape("\n".join(line for line in (items, rates, *mended, "percent, with 95 % intervals") if line))


def _cell(cells: Sequence[Cell], metric: str, summary: Summary) -> str:
    cell = next((each for each in cells if each.metric == metric), None)
    if cell is None:
        return "-"
    text = escape(with_interval(cell))
    return f"[bold]{text}[/]" if cell == summary.headline else text


def _nothing_published(summary: Summary) -> str:
    """Says by which rules there are numbers, instead of showing them."""
    others = [f"--rule {rule}" for rule in published_rules(summary.task)]
    return "No published numbers are known by this rule" + (f"; there are some by {', '.join(others)}." if others else ".")


def _ours(summary: Summary, name: str) -> str:
    """A published column is named by its metric, its group, both, its mean over groups, or `headline`."""
    for cell in summary.cells:
        group = f"mean over {' and '.join(cell.view)}" if cell.is_macro else " / ".join(cell.group)
        if name in ((group, f"{cell.metric} {group}") if cell.view else (cell.metric,)):
            return percent(cell.value)
    return percent(summary.headline.value) if name == "headline" else ""
