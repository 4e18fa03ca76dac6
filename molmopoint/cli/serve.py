"""`molmopoint serve`: models behind an address, for people, programs and agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from molmopoint.cli import console
from molmopoint.cli.console import NO_MODEL, USAGE

EPILOG = "Exit codes: 0 stopped by a signal, 2 wrong usage, 3 a model could not be loaded."


def serve_command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Zoo names, hub ids or folders; the first is the default."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", help="File with the keys of clients, one per line.", show_default=False),
    ] = None,
    point_style: Annotated[str, typer.Option(help="Form of points in chat answers.")] = "json",
    dtype: Annotated[str | None, typer.Option(help="Precision of the weights.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="Device of the models.", show_default=False)] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="Open requests; more are refused.")] = 256,
    max_batch: Annotated[int, typer.Option(min=1, help="Requests that are answered together.")] = 16,
    max_body: Annotated[int, typer.Option(min=1, help="Megabytes of a request.")] = 32,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds until an answer must be there.")
    ] = 120.0,
) -> None:
    """Serve models over HTTP: JSON points, OpenAI's and Moondream's routes, figures for Prometheus.

    Listens on this machine alone unless --host says otherwise, and asks for no key unless --api-keys names
    some.
    """
    try:
        import uvicorn

        from molmopoint.serving import Limits, app
        from molmopoint.serving.limits import read_keys
        from molmopoint.serving.styles import STYLES
    except ImportError as error:
        console.complain(
            f'expected the packages of the extra "serve", got: {error}; pip install "molmopoint[serve]"'
        )
        raise typer.Exit(USAGE) from error
    if point_style not in STYLES:
        console.complain(f"expected --point-style as one of {', '.join(STYLES)}, got {point_style!r}")
        raise typer.Exit(USAGE)
    try:
        keys = () if api_keys is None else read_keys(api_keys)
    except (OSError, ValueError) as error:
        console.complain(f"expected a file with keys, got: {error}")
        raise typer.Exit(USAGE) from error

    from molmopoint.cli.loading import LOADING_FAULTS, load_pointer

    pointers = {}
    for model in models:
        name = Path(model).name if Path(model).is_dir() else model
        if name in pointers:
            console.complain(f"expected models with names of their own, got {name!r} twice")
            raise typer.Exit(USAGE)
        try:
            pointers[name] = load_pointer(model, dtype, device)
        except LOADING_FAULTS as error:
            console.complain(str(error))
            raise typer.Exit(NO_MODEL) from error
    limits = Limits(queue=max_queue, batch=max_batch, body_bytes=max_body * 2**20, seconds=max_seconds)
    application = app(pointers, keys=keys, limits=limits, point_style=point_style)  # pyright: ignore[reportArgumentType] (checked above)
    uvicorn.run(
        application, host=host, port=port, log_level="warning", timeout_graceful_shutdown=int(max_seconds) + 1
    )
