"""What was measured, as tables for people or one JSON document."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from molmopoint.version import __version__

SCHEMA_VERSION = 1
LIBRARIES = ("torch", "torchvision", "transformers", "numpy", "pillow")


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
        found["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return found


def print_json(document: dict[str, Any]) -> None:
    """One strict JSON document on stdout."""
    sys.stdout.write(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2, allow_nan=False) + "\n")


def print_tables(document: dict[str, Any]) -> None:
    """Everything in the document, one model after the other."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(", ".join(f"{name} {value}" for name, value in document["machine"].items()))
    for entry in document["models"]:
        settings = [", ".join(f"{name}={value}" for name, value in setting.items()) for setting in entry["settings"]]
        console.print(f"\n[bold]{entry['name']}[/], {entry['parameters'] / 1e6:.1f} M parameters; {' [bold]vs[/] '.join(settings)}")
        console.print(_times(entry["rows"], two=len(settings) == 2))
        for check in entry["checks"]:
            print_check(console, check)
        if entry["costs"]:
            console.print(_costs(entry["costs"]))
        if entry["memory"]:
            console.print(_memory(entry["memory"]))
    for clip in document["clips"]:
        _print_clip(console, clip)


def _times(rows: list[dict[str, Any]], *, two: bool) -> Table:
    names = ["median (quartiles)", *(["second", "ratio"] if two else [])]
    table = Table("phase", "measure", "rows", "unit", *names, title="times")
    for row in rows:
        more = [in_range(row["second"]), in_range(row["ratio"])] if two else []
        table.add_row(row["phase"], row["measure"], str(row["batch"]), row["unit"], in_range(row["first"]), *more)
    return table


def _costs(costs: list[dict[str, Any]]) -> Table:
    table = Table("phase", "ms", "largest", "second", "third", title="largest costs, one row; decode per step")
    for cost in costs:
        parts = [f"{part['part']} {part['milliseconds']:.3g} ms ({part['share']:.0%})" for part in cost["parts"]]
        table.add_row(cost["phase"], f"{cost['milliseconds']:.3g}", *parts, *[""] * (3 - len(parts)))
    return table


def _memory(cases: list[dict[str, Any]]) -> Table:
    table = Table("rows", "setting", "model and inputs, MB", "peak above, MB", title="memory of a whole answer")
    for case in cases:
        table.add_row(str(case["batch"]), case["setting"], f"{case['baseline_mb']:.0f}", f"{case['above_mb']:.0f}")
    return table


def _print_clip(console: Console, clip: dict[str, Any]) -> None:
    held, dtype = clip["vit_features_held_once"], clip["vit_features_in_compute_dtype"]
    console.print(
        f"\n[bold]clip of {clip['frames']} frames[/] at toy width, {clip['tokens']} tokens: one pass {clip['prefill_s']:.1f} s; "
        f"peak {clip['above_mb']:.0f} MB above {clip['baseline_mb']:.0f} MB; "
        f"ViT features held once: {'yes' if held else '[red]no[/]'}; in compute dtype ({clip['vit_features_dtype']}): "
        f"{'yes' if dtype else '[red]no[/]'}"
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
