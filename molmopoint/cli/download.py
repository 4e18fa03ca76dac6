"""`molmopoint download`: a model of the hub, its size told first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from molmopoint.cli import completion, console
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, USAGE
from molmopoint.cli.options import JsonOutput
from molmopoint.errors import CheckpointError

EPILOG = "Exit codes: 0 all files are here, 2 wrong usage, 3 the model could not be fetched, 130 interrupted."


def download_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the zoo ([bold]molmopoint zoo[/bold] lists them), or hub id.",
            show_default=False,
            autocompletion=completion.models,
        ),
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", show_default=False)
    ] = None,
    local_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for the files; by default the cache of the hub.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell the files and their sizes, and fetch nothing.")
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Fetch a model from the hub: weights, config, tokenizer and processor, and no code.

    What there is to fetch is told first. Files that are here already are not fetched again, a connection that
    breaks goes on where it was, and the same command goes on after a stop with the files that are missing.

    [bold]Examples[/bold]

      molmopoint download molmopoint-8b

      molmopoint download allenai/Molmo2-4B --local-dir models/molmo2-4b
    """
    raise typer.Exit(run(model, revision, local_dir, dry_run=dry_run, json_output=json_output))


def run(model: str, revision: str | None, folder: Path | None, *, dry_run: bool, json_output: bool) -> int:
    """Tells what is to be fetched, fetches it, and returns the exit code."""
    from huggingface_hub.utils import disable_progress_bars

    from molmopoint.checkpoints.hub import fetch, in_bytes, plan_download
    from molmopoint.checkpoints.locating import locate

    if console.is_quiet():
        disable_progress_bars()
    if folder is not None and folder.exists() and not folder.is_dir():
        console.complain(f"expected a folder with --local-dir, got the file {str(folder)!r}; pass another")
        return USAGE
    try:
        source, revision = locate(model, revision, scores=True)
        if Path(source).is_dir():
            return _here_already(model, source, json_output=json_output)
        plan = plan_download(source, revision, folder)
        missing = sum(file.size for file in plan.missing)
        place = "the cache of the hub" if folder is None else str(folder)
        if not json_output:
            _print(plan)
        console.say(
            f"{len(plan.missing)} of {len(plan.files)} files to fetch, {in_bytes(missing)}, to {place}"
            if plan.missing
            else f"all {len(plan.files)} files are here, in {place}"
        )
        if dry_run:
            fetched = None
        else:
            with console.quiet_stdout():
                fetched = fetch(plan)
    except CheckpointError as error:
        console.complain(error)
        return NO_MODEL
    except KeyboardInterrupt:
        console.complain("interrupted; whole files stay, and the same command goes on with the others")
        return INTERRUPTED
    if json_output:
        console.print_json(_document(plan, fetched))
    elif fetched is not None:
        console.findings().print(
            f"{model} is in {fetched}; load it with --model {model if folder is None else fetched}",
            markup=False,
        )
    return OK


def _here_already(model: str, source: str, *, json_output: bool) -> int:
    """Says that a model needs no fetching."""
    if json_output:
        console.print_json({"repository": None, "folder": source, "files": []})
    else:
        console.findings().print(f"{model} is here already, in {source}", markup=False)
    return OK


def _print(plan: Any) -> None:
    """The files with their sizes."""
    from molmopoint.checkpoints.hub import in_bytes

    table = Table("File", box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("Size", justify="right")
    table.add_column("")
    for file in plan.files:
        table.add_row(escape(file.name), in_bytes(file.size), "[green]here[/]" if file.is_here else "")
    table.add_section()
    table.add_row(f"{len(plan.files)} files", in_bytes(sum(file.size for file in plan.files)), "")
    paper = console.findings()
    paper.print(f"[bold]{escape(plan.repository)}[/] at {escape(plan.commit[:12])}")
    paper.print(table)
    if plan.left_out:
        console.say(f"left out, because no model is read from them: {', '.join(plan.left_out)}")


def _document(plan: Any, fetched: Path | None) -> dict[str, Any]:
    """The same for programs."""
    files = [{"name": file.name, "size": file.size, "was_here": file.is_here} for file in plan.files]
    return {
        "repository": plan.repository,
        "commit": plan.commit,
        "files": files,
        "left_out": list(plan.left_out),
        "folder": None if fetched is None else str(fetched),
    }
