"""`--quiet` and `--verbose`, which every command has without naming them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from molmopoint.cli import console
from molmopoint.cli.console import USAGE

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No progress and no remarks: results and errors alone.",
        rich_help_panel="Output",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also what the libraries log, how long loading took, and where an error came from.",
        rich_help_panel="Output",
    ),
]


class CommandLine(typer.Typer):
    """An application, or a group of commands, whose commands take `--quiet` and `--verbose`."""

    def command(self, *arguments: Any, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As in typer."""
        register = super().command(*arguments, **options)

        def add(command: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_loudness(command))
            return command

        return add


def _with_loudness(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with two more options, which it does not see."""
    added = {"quiet": Quiet, "verbose": Verbose}

    @functools.wraps(command)
    def run(*arguments: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> Any:
        if quiet and verbose:
            console.complain("expected --quiet or --verbose, got both; choose one of them")
            raise typer.Exit(USAGE)
        console.set_loudness(quiet=quiet, verbose=verbose)
        return command(*arguments, **options)

    # typer reads the options of a command from its signature and its annotations.
    parameters = list(inspect.signature(command, eval_str=True).parameters.values())
    for name, annotation in added.items():
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        )
    signed: Any = run
    signed.__signature__ = inspect.Signature(parameters)
    signed.__annotations__ = {**get_type_hints(command, include_extras=True), **added}
    return run
