"""Folders of runs that are in use, told before the libraries of models are loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import typer

from molmopoint.cli import console
from molmopoint.cli.console import USAGE
from molmopoint.errors import MolmoPointError
from molmopoint.files.lock import check_free


def leave_if_busy(folders: Iterable[Path]) -> None:
    """Ends the command if another process is in one of the folders.

    Of several processes that share a run the first one asks: the others have no lock, or one of their own.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        for folder in folders:
            check_free(folder)
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        raise typer.Exit(USAGE) from error
