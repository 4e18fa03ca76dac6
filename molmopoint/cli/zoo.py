"""`molmopoint zoo`: the models that load by name."""

from __future__ import annotations

from dataclasses import asdict

from rich import box
from rich.markup import escape
from rich.table import Table

from molmopoint.checkpoints import ZooEntry, list_models
from molmopoint.cli import console
from molmopoint.cli.console import OK

_SIZE_WIDTH = 14
"""Characters of the column of sizes and licences."""

_EDGES = 8
"""Characters between and around three columns."""


def run(json_output: bool) -> int:
    """Prints the table."""
    entries = list_models()
    if json_output:
        models = [
            {**asdict(entry), "source": entry.source, "installed": entry.installed} for entry in entries
        ]
        console.print_json({"models": models})
        return OK
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    # Three columns fit into 80 characters without cutting names and addresses; narrower ones are folded.
    paper = console.findings()
    widest = max(len(entry.hub_id or "") for entry in entries)
    left = paper.width - widest - _SIZE_WIDTH - _EDGES
    is_wide = left >= _SIZE_WIDTH
    table.add_column("Name and weights", overflow="fold", min_width=widest if is_wide else None)
    table.add_column("Size, licence", overflow="fold", max_width=_SIZE_WIDTH)
    table.add_column("Scores, percent", overflow="fold", max_width=left if is_wide else None)
    for entry in entries:
        table.add_row(
            _what_it_is(entry),
            f"{_size(entry)}\n{escape(entry.licence)}",
            "\n".join(escape(f"{score.benchmark} {score.value:g}") for score in entry.scores)
            or "see its card",
        )
        table.add_section()
    paper.print(table)
    paper.print(
        "Load one with [bold]--model NAME[/], any other model of these families by its hub id or folder. "
        "--json names the source of every score."
    )
    return OK


def _what_it_is(entry: ZooEntry) -> str:
    """Name, where the weights are, and what they look at, a line each."""
    weights = escape(entry.hub_id or "in this package")
    if entry.installed and entry.hub_id:
        weights += " [green]installed[/]"
    looks_at = escape(", ".join(entry.modalities))
    return f"[bold]{escape(entry.name)}[/]\n{weights}\n[dim]{looks_at}[/]"


def _size(entry: ZooEntry) -> str:
    """Number of parameters, short."""
    if entry.parameters is None:
        return "not counted"
    if entry.parameters >= 10**9:
        return f"{entry.parameters / 10**9:.1f} B"
    return f"{entry.parameters / 10**6:.1f} M"
