"""`molmopoint finetune`: from labelled pictures to a model that points better at what is in them.

`molmopoint finetune-reward`: from answers that were ranked to a model that judges.
"""

from __future__ import annotations

import logging as python_logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from molmopoint.cli import console
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.cli.options import HeldOut, JsonOutput, RecipeChanges, RecipeName, Replay, RunOut, StartModel
from molmopoint.cli.training_checks import check_training
from molmopoint.errors import CheckpointError, MolmoPointError

if TYPE_CHECKING:
    from molmopoint.training.run import FinetuneResult

_SHOWN = 5
"""Skipped examples that are written out."""


def finetune_command(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A JSONL file, see docs/data_format.md.", show_default=False),
    ],
    out: RunOut,
    model: StartModel = "nano",
    recipe: RecipeName = None,
    change: RecipeChanges = None,
    held_out: HeldOut = None,
    replay: Replay = None,
    json_output: JsonOutput = False,
) -> None:
    """Train a model on your own labelled pictures.

    The data is checked first. Scores on held-out pictures are measured before, during and after; the best
    model is kept.

    [bold]Examples[/bold]

      molmopoint finetune data.jsonl --out learned

      molmopoint finetune clicks.jsonl --model allenai/MolmoPoint-8B --recipe lora --out learned

      molmopoint finetune data.jsonl --out learned --replay synthetic --set epochs=5
    """
    check_training(data, model, out, recipe, change or [], held_out, replay)

    def train() -> FinetuneResult:
        from molmopoint.training.finetune import finetune

        return finetune(
            data,
            model,
            out,
            recipe,
            overrides=change or [],
            held_out=held_out,
            replay=replay,
            on_progress=progress_bar,
            log=console.say,
        )

    raise typer.Exit(run_training(train, "example", json_output=json_output))


def finetune_reward_command(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A JSONL file, see docs/reward_training.md.", show_default=False),
    ],
    out: RunOut,
    model: StartModel = "nano",
    recipe: RecipeName = None,
    change: RecipeChanges = None,
    held_out: HeldOut = None,
    json_output: JsonOutput = False,
) -> None:
    """Train a reward model on answers that were ranked, compared or scored.

    All answers to a request are judged in one pass. Accuracy on held-out requests is measured before, during
    and after training, and the best model is kept.

    [bold]Examples[/bold]

      molmopoint finetune-reward preferences.jsonl --out judge

      molmopoint finetune-reward preferences.jsonl --model allenai/Molmo2-4B --out judge --set epochs=1
    """
    check_training(data, model, out, recipe, change or [], held_out, judges=True)

    def train() -> FinetuneResult:
        from molmopoint.training.reward.finetune import finetune_reward

        return finetune_reward(
            data,
            model,
            out,
            recipe,
            overrides=change or [],
            held_out=held_out,
            on_progress=progress_bar,
            log=console.say,
        )

    raise typer.Exit(run_training(train, "row", json_output=json_output))


def run_training(train: Callable[[], FinetuneResult], unit: str, *, json_output: bool) -> int:
    """Trains and reports; errors of the user are told in a line. Returns the exit code.

    Args:
        train: makes the run.
        unit: what is counted as skipped, in the singular.
        json_output: print the result as JSON.
    """
    try:
        with console.quiet_stdout():
            from transformers.utils import logging

            logging.disable_progress_bar()
            python_logging.getLogger("bitsandbytes").setLevel(
                python_logging.ERROR
            )  # of kernels that nobody asked for
            result = train()
    except CheckpointError as error:
        console.complain(error)
        return NO_MODEL
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        return USAGE
    except KeyboardInterrupt:
        console.notes().print("stopped; the same command again goes on from the last checkpoint")
        return INTERRUPTED
    if os.environ.get("RANK", "0") == "0":
        report(result, unit, json_output=json_output)
    return SOME_FAILED if result.skipped else OK


def report(result: FinetuneResult, unit: str, *, json_output: bool) -> None:
    """Tells scores before and after and what was skipped.

    Args:
        result: of the run.
        unit: what is counted as skipped, in the singular.
        json_output: print it as JSON.
    """
    for skipped in result.skipped[:_SHOWN]:
        console.notes().print(f"skipped {unit} {skipped.index}: {skipped.reason}", markup=False)
    model = result.folder / "model"
    if json_output:
        console.print_json(
            {
                "model": str(model),
                "steps": result.steps,
                "data": result.data,
                "scores_before": result.scores_before,
                "scores_after": result.scores_after,
                "skipped": len(result.skipped),
            }
        )
        return
    if table := score_columns(result.scores_before, result.scores_after):
        console.findings().print(table)
    notes = f", {len(result.skipped)} {unit}s skipped" if result.skipped else ""
    console.findings().print(f"{result.steps} steps{notes}; the model is in {model}", markup=False)


def score_columns(before: Mapping[str, float], after: Mapping[str, float]) -> Any:
    """A table of scores side by side; None where nothing was held out."""
    from rich.table import Table

    names = {**before, **after}
    if not names:
        return None
    table = Table("held-out score", "before", "after")
    for name in names:
        table.add_row(name.replace("_", " "), _number(before.get(name)), _number(after.get(name)))
    return table


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def progress_bar(iterable: Iterable[Any], title: str) -> Iterator[Any]:
    """A progress bar on stderr, on a terminal."""
    from rich.progress import track

    notes = console.notes()
    return iter(track(iterable, title, console=notes, transient=True, disable=not notes.is_terminal))
