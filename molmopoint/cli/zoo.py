"""`molmopoint zoo`: the models that load by name."""

from __future__ import annotations

from dataclasses import asdict

from rich import box
from rich.markup import escape
from rich.table import Table

from molmopoint.checkpoints import ZooEntry, list_models
from molmopoint.cli import console
from molmopoint.cli.console import OK


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
    for title in ("Name", "Size", "Licence", "Scores, percent", "Source"):
        table.add_column(title, overflow="fold", no_wrap=title == "Name")
    for entry in entries:
        table.add_row(
            f"[bold]{escape(entry.name)}[/]"
            + ("\n[green]installed[/]" if entry.installed else "")
            + f"\n[dim]{escape(chr(10).join(entry.modalities))}[/]",
            _size(entry),
            escape(entry.licence),
            "\n".join(escape(f"{score.benchmark} {score.value:g}") for score in entry.scores)
            or "see its card",
            escape(f"{entry.hub_id or 'in this package'}\n{entry.origin}"),
        )
        table.add_section()
    paper = console.findings()
    paper.print(table)
    paper.print(
        "Load one with [bold]--model NAME[/], any other MolmoPoint or Molmo2 model by its hub id or folder. "
        "--json names the source of every score."
    )
    return OK


def _size(entry: ZooEntry) -> str:
    """Number of parameters, short."""
    if entry.parameters is None:
        return "not counted"
    if entry.parameters >= 10**9:
        return f"{entry.parameters / 10**9:.1f} B"
    return f"{entry.parameters / 10**6:.1f} M"
