"""`molmopoint mcp`: a model as tools for agents, over stdio or HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from molmopoint.cli import console
from molmopoint.cli.console import NO_MODEL, USAGE
from molmopoint.cli.options import Device, DtypeOrNone, Model
from molmopoint.errors import MolmoPointError

EPILOG = "Exit codes: 0 the client has ended, 2 wrong usage, 3 the model could not be loaded."


def mcp_command(
    model: Model = "nano",
    device: Device = None,
    dtype: DtypeOrNone = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Address of a running `molmopoint serve` to ask, in place of a model here.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="MOLMOPOINT_API_KEY", help="Key of that server.", show_default=False),
    ] = None,
    allow_folder: Annotated[
        list[Path] | None,
        typer.Option(
            "--allow-folder",
            metavar="FOLDER",
            help="Folder whose pictures and clips may be named by path; may be repeated. Without any, pictures "
            "come as data alone.",
            show_default=False,
        ),
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Speak streamable HTTP at /mcp on this machine, in place of stdio.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTP.")] = 8010,
    max_file: Annotated[int, typer.Option(min=1, help="Megabytes of a picture or clip.")] = 32,
    max_pixels: Annotated[int, typer.Option(min=1, help="Width times height of a picture.")] = 64_000_000,
) -> None:
    """Offer a model to agents as tools of the Model Context Protocol: point, count, ask, click_target, track.

    Speaks over stdin and stdout, as agents start it, or with --http at http://127.0.0.1:PORT/mcp, which other
    machines cannot reach.
    """
    try:
        from molmopoint.agents.folders import Sources
        from molmopoint.agents.tools import tool_server
    except ImportError as error:
        console.complain(f'expected the package mcp, got: {error}; pip install "molmopoint[serve]"')
        raise typer.Exit(USAGE) from error
    most_bytes = max_file * 2**20
    try:
        sources = Sources.of(allow_folder or (), most_bytes=most_bytes, most_pixels=max_pixels)
    except MolmoPointError as error:
        console.complain(error)
        raise typer.Exit(USAGE) from error

    from molmopoint.cli.loading import LOADING_FAULTS, load_pointer

    try:
        with console.quiet_stdout():  # it belongs to the protocol
            if server is None:
                pointer = load_pointer(model, dtype, device)
            else:
                from molmopoint.serving import Client

                pointer = Client(server, key=key)
    except LOADING_FAULTS as error:
        console.complain(f"the model {server or model!r} could not be loaded: {error}")
        raise typer.Exit(NO_MODEL) from error
    tools = tool_server(pointer, sources)
    if http:
        # Base64 takes a third more than the file.
        tools.run("streamable-http", port=port, max_request_body_size=4 * most_bytes // 3 + 2**16)
    else:
        tools.run("stdio")
