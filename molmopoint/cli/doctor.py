"""`molmopoint doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from importlib import metadata
from typing import Any

from rich.table import Table

from molmopoint.cli import console
from molmopoint.cli.console import OK
from molmopoint.version import __version__

_CORE = (
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "einops",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "pillow",
    "scipy",
)
_DISTRIBUTION = "molmopoint"
_NOT_FOR_USERS = ("all", "dev", "test")


def run(json_output: bool) -> int:
    """Prints the findings; always 0, because missing extras are no error."""
    with console.quiet_stdout():
        found = examine()
    if json_output:
        console.print_json(found)
    else:
        _print(found)
    return OK


def examine() -> dict[str, Any]:
    """Versions, devices, attention backends, and each extra with what it lacks."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {_DISTRIBUTION: __version__, **{name: _version(name) for name in _CORE}},
        "devices": _devices(),
        "attention": _attention_backends(),
        "extras": _extras(),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    """The CPU and every accelerator torch sees."""
    import torch

    found: list[dict[str, Any]] = [
        {"name": "cpu", "description": platform.processor() or platform.machine(), "default_dtype": "float32"}
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": f"cuda:{index}",
                "description": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB",
                "default_dtype": "bfloat16" if torch.cuda.is_bf16_supported() else "float32",
            }
        )
    if torch.backends.mps.is_available():
        found.append(
            {
                "name": "mps",
                "description": "Apple GPU, used when asked for with --device mps",
                "default_dtype": "float32",
            }
        )
    return found


def _attention_backends() -> list[dict[str, Any]]:
    """Each backend, whether it can be used here, and what for."""
    import torch

    has_flash = importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available()
    return [
        {"name": "sdpa", "usable": True, "note": "default"},
        {"name": "eager", "usable": True, "note": "slow, for comparison"},
        {"name": "flex_attention", "usable": torch.cuda.is_available(), "note": "long packed rows on a GPU"},
        {
            "name": "flash_attention_2",
            "usable": has_flash,
            "note": "ViT and single-token steps; needs a GPU and the extra [flash]",
        },
    ]


def _extras() -> list[dict[str, Any]]:
    """Each extra of the installed package and its packages that are missing."""
    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    members: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", requirement)
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if extra and name and extra[1] not in _NOT_FOR_USERS and name[0] != _DISTRIBUTION:
            members.setdefault(extra[1], []).append(name[0])
    return [
        {
            "name": extra,
            "missing": [name for name in names if _version(name) is None],
            "install": f"pip install 'molmopoint[{extra}]'",
        }
        for extra, names in sorted(members.items())
    ]


def _print(found: dict[str, Any]) -> None:
    paper = console.findings()
    paper.print(f"[bold]Python[/] {found['python']} on {found['platform']} ({sys.executable})")
    packages = Table("Package", "Version", box=None, pad_edge=False, header_style="bold")
    for name, version in found["packages"].items():
        packages.add_row(name, version or "[yellow]not installed[/]")
    devices = Table("Device", "What", "Precision by default", box=None, pad_edge=False, header_style="bold")
    for device in found["devices"]:
        devices.add_row(device["name"], device["description"], device["default_dtype"])
    attention = Table("Attention", "Usable", "What for", box=None, pad_edge=False, header_style="bold")
    for backend in found["attention"]:
        attention.add_row(
            backend["name"],
            "[green]yes[/]" if backend["usable"] else "[yellow]no[/]",
            backend["note"].replace("[", r"\["),
        )
    extras = Table("Extra", "State", "How to get it", box=None, pad_edge=False, header_style="bold")
    for extra in found["extras"]:
        missing = ", ".join(extra["missing"])
        extras.add_row(
            extra["name"],
            f"[yellow]missing {missing}[/]" if missing else "[green]complete[/]",
            extra["install"].replace("[", r"\[") if missing else "",
        )
    for table in (packages, devices, attention, extras):
        if table.row_count:
            paper.print()
            paper.print(table)
    if not found["extras"]:
        paper.print(
            "\n[yellow]molmopoint is not installed as a package, so its extras are unknown; run pip install "
            "-e . in the checkout[/]"
        )
