"""What was measured, as tables for people or one JSON document; and what the commands have in common."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from molmopoint.version import __version__

SCHEMA_VERSION = 1
LIBRARIES = ("torch", "torchvision", "transformers", "numpy", "pillow")

JsonOutput = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]


def new_app() -> typer.Typer:
    """A command line of one measurement."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def console() -> Console:
    """Where tables go."""
    return Console(highlight=False, soft_wrap=True)


def print_facts(console: Console, facts: dict[str, Any]) -> None:
    """Names and values in one line."""
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))


def machine(device: str) -> dict[str, Any]:
    """What ran: processor, cores, GPU, versions."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": torch.multiprocessing.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "molmopoint": __version__,
        **{name: metadata.version(name) for name in LIBRARIES},
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        )
    return found


def print_json(document: dict[str, Any]) -> None:
    """One strict JSON document on stdout."""
    sys.stdout.write(
        json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2, allow_nan=False) + "\n"
    )


def print_tables(document: dict[str, Any]) -> None:
    """Everything in the document, one model after the other."""
    paper = console()
    print_facts(paper, document["machine"])
    for entry in document["models"]:
        _print_model(paper, entry)
    for clip in document["clips"]:
        _print_clip(paper, clip)


def _print_model(console: Console, entry: dict[str, Any]) -> None:
    settings = []
    for setting in entry["settings"]:
        settings.append(", ".join(f"{name}={value}" for name, value in setting.items()))
    parameters = f"{entry['parameters'] / 1e6:.1f} M parameters"
    console.print(f"\n[bold]{entry['name']}[/], {parameters}; {' [bold]vs[/] '.join(settings)}")
    console.print(_times(entry["rows"], two=len(settings) == 2))
    for check in entry["checks"]:
        print_check(console, check)
    if entry["costs"]:
        console.print(_costs(entry["costs"]))
    if entry["memory"]:
        console.print(_memory(entry["memory"]))


def _times(rows: list[dict[str, Any]], *, two: bool) -> Table:
    names = {"first": "median (quartiles)"}
    if two:
        names |= {"second": "second", "ratio": "ratio"}
    table = Table("phase", "measure", "rows", "unit", *names.values(), title="times")
    for row in rows:
        values = [in_range(row[name]) for name in names]
        table.add_row(row["phase"], row["measure"], str(row["batch"]), row["unit"], *values)
    return table


def _costs(costs: list[dict[str, Any]]) -> Table:
    table = Table(
        "phase", "ms", "largest", "second", "third", title="largest costs, one row; decode per step"
    )
    for cost in costs:
        parts = []
        for part in cost["parts"]:
            parts.append(f"{part['part']} {part['milliseconds']:.3g} ms ({part['share']:.0%})")
        missing = [""] * (3 - len(parts))
        table.add_row(cost["phase"], f"{cost['milliseconds']:.3g}", *parts, *missing)
    return table


def _memory(cases: list[dict[str, Any]]) -> Table:
    table = Table(
        "rows", "setting", "model and inputs, MB", "peak above, MB", title="memory of a whole answer"
    )
    for case in cases:
        table.add_row(
            str(case["batch"]), case["setting"], f"{case['baseline_mb']:.0f}", f"{case['above_mb']:.0f}"
        )
    return table


def _print_clip(console: Console, clip: dict[str, Any]) -> None:
    held_once = "yes" if clip["vit_features_held_once"] else "[red]no[/]"
    in_dtype = "yes" if clip["vit_features_in_compute_dtype"] else "[red]no[/]"
    console.print(
        f"\n[bold]clip of {clip['frames']} frames[/] at toy width, {clip['tokens']} tokens: "
        f"one pass {clip['prefill_s']:.1f} s; "
        f"peak {clip['above_mb']:.0f} MB above {clip['baseline_mb']:.0f} MB; "
        f"ViT features held once: {held_once}; in compute dtype ({clip['vit_features_dtype']}): {in_dtype}"
    )
    console.print(", ".join(f"{name} {size:.2f} MB" for name, size in clip["state_mb"].items()))


def print_check(console: Console, check: dict[str, Any]) -> None:
    """A ratio and whether it is within its limit."""
    verdict = "[green]holds[/]" if check["holds"] else "[red]fails[/]"
    console.print(f"{check['name']}: {in_range(check['ratio'])} (limit {check['limit']}) {verdict}")


def in_range(summary: dict[str, float]) -> str:
    """Median and quartiles."""
    return f"{summary['median']:.3g} ({summary['low']:.3g} to {summary['high']:.3g})"


def _processor() -> str:
    """The processor's name; Linux tells it in a file only."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
