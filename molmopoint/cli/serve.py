"""`molmopoint serve`: models behind an address, for people, programs and agents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from molmopoint.cli import console
from molmopoint.cli.console import NO_MODEL, USAGE
from molmopoint.cli.inputs import check_device, check_dtype, check_model
from molmopoint.cli.options import Compile, Quantize

EPILOG = "Exit codes: 0 stopped by a signal, 2 wrong usage, 3 a model could not be loaded."
_MEGABYTE = 2**20


def serve_command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Zoo names, hub ids or folders; the first is the default."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            envvar="MOLMOPOINT_API_KEY",
            help="Key of a client, several times for several; other people on this machine can see options.",
            show_default=False,
        ),
    ] = None,
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", help="File with the keys of clients, one per line.", show_default=False),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option("--reward", help="Reward model for /v1/reward.", show_default=False),
    ] = None,
    point_style: Annotated[str, typer.Option(help="Form of points in chat answers.")] = "json",
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch pictures from addresses, from public hosts alone.")
    ] = False,
    dtype: Annotated[str | None, typer.Option(help="Precision of the weights.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="Device of the models.", show_default=False)] = None,
    quantize: Quantize = None,
    compile_steps: Compile = False,
    max_queue: Annotated[int, typer.Option(min=1, help="Open requests; more are refused.")] = 256,
    max_client: Annotated[
        int | None, typer.Option(min=1, help="Open requests of one client.", show_default=False)
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Requests that are answered together.")] = 16,
    max_batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of requests that are answered together, with longest answers.")
    ] = 65_536,
    max_cached: Annotated[int, typer.Option(min=0, help="Pictures whose features are kept.")] = 32,
    max_body: Annotated[int, typer.Option(min=1, help="Megabytes of a request.")] = 32,
    max_video: Annotated[int, typer.Option(min=1, help="Megabytes of a request with a clip.")] = 256,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds until an answer must be there.")
    ] = 120.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Width times height of a picture.")] = 64_000_000,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of a request.")] = 16,
    max_crops: Annotated[int, typer.Option(min=1, help="Crops per picture.")] = 64,
    max_frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 10_000,
    max_points: Annotated[int, typer.Option(min=1, help="Points that a request may ask for.")] = 1000,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 4096,
    max_jobs: Annotated[int, typer.Option(min=1, help="Open jobs.")] = 16,
) -> None:
    """Serve models over HTTP: a page, JSON points, OpenAI's and Moondream's routes, figures for Prometheus.

    Listens on this machine alone unless --host says otherwise, and asks for no key unless --api-key or
    --api-keys name some.
    """
    from molmopoint.serving.styles import STYLES

    if point_style not in STYLES:
        console.complain(f"expected --point-style as one of {', '.join(STYLES)}, got {point_style!r}")
        raise typer.Exit(USAGE)
    check_dtype(dtype)
    for model in models:
        check_device(model, device)
        check_model(model)
    for model in reward or []:
        check_model(model, scores=True)
    names = [_name_of(model) for model in (*models, *(reward or ()))]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        console.complain(
            f"expected models with names of their own, got {twice[0]!r} twice; name each once, and with --reward a "
            "reward model"
        )
        raise typer.Exit(USAGE)
    try:
        from molmopoint.serving import Limits
        from molmopoint.serving.limits import check_keys, read_keys
        from molmopoint.serving.running import check_address

        keys = list(api_key or ())
        if api_keys is not None:
            keys += read_keys(api_keys)
        check_keys(keys)
        check_address(host, port)
        limits = Limits(
            queue=max_queue,
            client_requests=max_client,
            batch=max_batch,
            batch_tokens=max_batch_tokens,
            cached_pictures=max_cached,
            body_bytes=max_body * _MEGABYTE,
            video_bytes=max_video * _MEGABYTE,
            seconds=max_seconds,
            pixels=max_pixels,
            pictures=max_pictures,
            crops=max_crops,
            frames=max_frames,
            points=max_points,
            tokens=max_tokens,
            jobs=max_jobs,
        )
        pointers = _loaders(models, dtype, device, quantize, compile_steps)
        judges = _reward_loaders(reward or [], dtype, device)
        _run(pointers, judges, host, port, keys, limits, point_style=point_style, allow_urls=allow_urls)
    except ImportError as error:
        console.complain(
            f'expected the packages of the extra "serve", got: {error}; pip install "molmopoint[serve]"'
        )
        raise typer.Exit(USAGE) from error
    except ValueError as error:
        console.complain(error)
        raise typer.Exit(USAGE) from error
    except OSError as error:
        console.complain(f"expected options that fit, got: {error}")
        raise typer.Exit(USAGE) from error


def _run(
    pointers: dict[str, Any],
    judges: dict[str, Any],
    host: str,
    port: int,
    keys: list[str],
    limits: Any,
    **options: Any,
) -> None:
    """Serves until a signal comes, or a model cannot be loaded."""
    from molmopoint.serving import app
    from molmopoint.serving.running import Running

    faults: list[Exception] = []

    def fail(error: Exception) -> None:
        faults.append(error)
        running.should_exit = True

    application = app(pointers, reward_models=judges, keys=keys, limits=limits, on_fault=fail, **options)
    names = ", ".join([*pointers, *judges])
    running = Running(
        application,
        host,
        port,
        grace=limits.seconds,
        on_start=lambda address: console.notes().print(f"serving {names} at {address}", highlight=False),
    )
    running.run()
    if faults:
        console.complain(str(faults[0]))
        raise typer.Exit(NO_MODEL)


def _loaders(
    models: list[str], dtype: str | None, device: str | None, quantize: str | None, compile_steps: bool
) -> dict[str, Callable[[], Any]]:
    """What loads each model, by its name; names that are none are told at once."""
    from molmopoint.checkpoints.locating import locate
    from molmopoint.cli.loading import load_pointer

    loaders: dict[str, Callable[[], Any]] = {}
    for model in models:
        name = _name_of(model)
        _check(locate, model)
        loaders[name] = partial(load_pointer, model, dtype, device, quantize, compile_steps)
    return loaders


def _reward_loaders(models: list[str], dtype: str | None, device: str | None) -> dict[str, Callable[[], Any]]:
    """The same for reward models."""
    if not models:
        return {}
    from molmopoint.checkpoints.locating import locate
    from molmopoint.reward import load_reward

    for model in models:
        _check(partial(locate, scores=True), model)
    return {_name_of(model): partial(load_reward, model, dtype=dtype, device_map=device) for model in models}


def _check(locate: Callable[..., Any], model: str) -> None:
    from molmopoint.errors import MolmoPointError

    try:
        locate(model)
    except MolmoPointError as error:
        console.complain(str(error))
        raise typer.Exit(NO_MODEL) from error


def _name_of(model: str) -> str:
    return Path(model).name if Path(model).is_dir() else model
