"""Where the command line writes: findings on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape

SCHEMA_VERSION = 1
"""Version of the JSON documents of all commands."""


def notes() -> Console:
    """For people: progress, remarks, errors."""
    return Console(stderr=True, highlight=False)


def findings() -> Console:
    """For results; without colours where stdout is no terminal, and never wrapped there."""
    return Console(highlight=False, soft_wrap=True)


def complain(message: object) -> None:
    """One error on stderr."""
    notes().print(f"[bold red]error:[/] {escape(str(message))}", soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    """One strict JSON document on stdout, keys in the order of the document."""
    sys.stdout.write(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Sends what libraries may print to stderr, so that stdout holds results alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
