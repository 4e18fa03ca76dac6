"""Numbers that others published, each with the rule it was scored by.

Numbers by different rules are never put side by side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rich.markup import escape
from rich.table import Table

from molmopoint.eval.reports.summary import Cell, Summary
from molmopoint.eval.reports.tables import percent


@dataclass(frozen=True)
class Published:
    """What is published about one model on one benchmark.

    Attributes:
        task: name of the benchmark.
        rule: of scoring.
        model: as the source names it.
        values: percent, by column: a metric, a group of items, both ("hota Animals"), a mean over groups
            ("mean over bin"), or "headline" where the number people quote is such a mean.
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
        mark = "~" if column in self.approximate else ""
        return f"{mark}{self.values[column]:.1f}"

    @property
    def origin(self) -> str:
        """Source and note."""
        return f"{self.source}; {self.note}" if self.note else self.source


def published_for(task: str, rule: str) -> list[Published]:
    """Numbers of a benchmark by one rule, in the order of the sources; none if nobody published any."""
    return [entry for entry in _numbers() if entry.task == task and entry.rule == rule]


def published_rules(task: str) -> list[str]:
    """Rules of a benchmark by which there are published numbers."""
    return list(dict.fromkeys(entry.rule for entry in _numbers() if entry.task == task))


def note_about(task: str) -> str:
    """What to know about all published numbers of a benchmark; empty where there is nothing."""
    return _content()["notes"].get(task, "")


def published_table(summary: Summary) -> Table:
    """Published numbers of the same benchmark and rule, and ours among them, for a terminal."""
    entries = published_for(summary.task, summary.rule)
    names = list(dict.fromkeys(name for entry in entries for name in entry.values))
    title = f"{escape(summary.title)}, published by rule {summary.rule}"
    caption = note_about(summary.task) or None
    if not entries:
        caption = _nothing_published(summary)
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in ("model", *names, "source"):
        table.add_column(escape(name), justify="left" if name in ("model", "source") else "right")
    for entry in entries:
        values = [entry.text(name) for name in names]
        table.add_row(escape(entry.model), *values, escape(entry.origin))
    ours = [_ours(summary, name) for name in names]
    coverage = f"{summary.coverage.scored} of {summary.coverage.total} items"
    table.add_row("[bold]this run[/]", *ours, coverage)
    return table


def _nothing_published(summary: Summary) -> str:
    """Says by which rules there are numbers, instead of showing them."""
    others = [f"--rule {rule}" for rule in published_rules(summary.task)]
    if not others:
        return "No published numbers are known by this rule."
    return f"No published numbers are known by this rule; there are some by {', '.join(others)}."


def _ours(summary: Summary, name: str) -> str:
    """Our value of a published column."""
    for cell in summary.cells:
        if name in _columns_of(cell):
            return percent(cell.value)
    return percent(summary.headline.value) if name == "headline" else ""


def _columns_of(cell: Cell) -> tuple[str, ...]:
    """Names under which a number may be published: its metric, its group, or both."""
    if not cell.view:
        return (cell.metric,)
    group = f"mean over {' and '.join(cell.view)}" if cell.is_macro else " / ".join(cell.group)
    return (group, f"{cell.metric} {group}")


@cache
def _numbers() -> tuple[Published, ...]:
    numbers = []
    for entry in _content()["numbers"]:
        approximate = tuple(entry.get("approximate", ()))
        numbers.append(Published(**{**entry, "approximate": approximate}))
    return tuple(numbers)


@cache
def _content() -> dict[str, Any]:
    path = files("molmopoint.eval.reports") / "published.json"
    return json.loads(path.read_text(encoding="utf-8"))
