"""`molmopoint graft`: grounding heads on a vision-language model of transformers, ready to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from molmopoint.cli import console
from molmopoint.cli.console import NO_MODEL, OK, USAGE
from molmopoint.cli.loading import LOADING_FAULTS
from molmopoint.cli.options import Dtype, JsonOutput
from molmopoint.files import is_file


def graft_command(
    host: Annotated[
        str,
        typer.Argument(
            metavar="HOST",
            help="Hub id or folder of a Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 or InternVL.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the new model.", show_default=False),
    ],
    width: Annotated[
        int, typer.Option(min=8, help="Width in which places are chosen; a multiple of 2.")
    ] = 512,
    dtype: Annotated[
        Dtype, typer.Option(help="Precision of the weights; auto as they are stored.")
    ] = Dtype.auto,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the new weights.")] = 0,
    json_output: JsonOutput = False,
) -> None:
    """Give a vision-language model of your choice grounding tokens.

    The host keeps all of its words, to the bit. What is new knows nothing yet: train it with
    [bold]molmopoint finetune[/bold].

    [bold]Examples[/bold]

      molmopoint graft Qwen/Qwen2.5-VL-3B-Instruct --out start

      molmopoint finetune data.jsonl --model start --recipe graft --out learned
    """
    raise typer.Exit(_run(host, out, width, dtype.value, revision, seed, json_output=json_output))


def _run(
    host: str,
    out: Path,
    width: int,
    dtype: str,
    revision: str | None,
    seed: int,
    *,
    json_output: bool,
) -> int:
    """Makes the graft; returns the exit code."""
    if is_file(out) or width % 2:
        wrong = (
            f"--out as a folder, got the file {str(out)!r}"
            if is_file(out)
            else f"an even --width, got {width}"
        )
        console.complain(f"expected {wrong}")
        return USAGE
    try:
        with console.notes().status(f"Grafting {escape(host)} ..."):
            from molmopoint.checkpoints import graft

            model, processor = graft(
                host, patch_embed_dim=width, dtype=dtype, revision=revision, seed=seed, out=out
            )
    except LOADING_FAULTS as error:
        console.complain(error)
        return NO_MODEL
    new = {name: part.numel() for name, part in model.named_parameters() if name.startswith(_NEW)}
    told = {
        "out": str(out),
        "host": processor.host_type,
        "parameters": sum(part.numel() for part in model.parameters()),
        "new_parameters": sum(new.values()),
        "new_tokens": list(model.config.new_rows),
    }
    if json_output:
        console.print_json(told)
    else:
        console.say(
            f"{out}: a graft on a {told['host']}, {told['new_parameters']:,} of {told['parameters']:,} weights are "
            "new; train it with molmopoint finetune --model"
        )
    return OK


_NEW = ("build_vit_embedding", "point_predictor")
