"""`molmopoint finetune`: from labelled pictures to a model that points better at what is in them.

`molmopoint finetune-reward`: from answers that were ranked to a model that judges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmopoint.cli import console
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.errors import CheckpointError, MolmoPointError

if TYPE_CHECKING:
    from molmopoint.training.finetune import FinetuneResult
    from molmopoint.training.reward.finetune import RewardResult


_SHOWN = 5
"""Skipped examples that are written out."""


@dataclass(frozen=True)
class FinetuneCommand:
    """The options of one call; see the help texts.

    Attributes:
        data: the JSONL file.
        model: zoo name, hub id or folder.
        out: folder of the run.
        recipe: name or file, None for that of the model.
        changes: of the recipe, as key=value.
        held_out: file to score on, None for a part of the data.
        replay: file of old skills, or "synthetic".
        json_output: print the result as JSON.
    """

    data: Path
    model: str
    out: Path
    recipe: str | None
    changes: list[str]
    held_out: Path | None
    replay: str | None
    json_output: bool = False

    def run(self) -> int:
        """Trains; returns the exit code."""
        return run_training(self._train)

    def _train(self) -> int:
        from molmopoint.training.finetune import finetune

        with console.quiet_stdout():
            result = finetune(
                self.data,
                self.model,
                self.out,
                self.recipe,
                overrides=self.changes,
                held_out=self.held_out,
                replay=self.replay,
                watch=watch,
                say=console.say,
            )
        return report(result, "example", json_output=self.json_output)


def run_training(train: Callable[[], int]) -> int:
    """Runs a training command; errors of the user are told in a line and become exit codes."""
    try:
        return train()
    except CheckpointError as error:
        console.complain(error)
        return NO_MODEL
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        return USAGE
    except KeyboardInterrupt:
        console.notes().print("stopped; the same command again goes on from the last checkpoint")
        return INTERRUPTED


def report(result: FinetuneResult | RewardResult, unit: str, *, json_output: bool, **more: Any) -> int:
    """Tells scores before and after and what was skipped, on the main process; returns the exit code of the run.

    Args:
        result: of the run.
        unit: what is counted as skipped, in the singular.
        json_output: print the result as JSON.
        **more: what the JSON tells beside.
    """
    if os.environ.get("RANK", "0") == "0":
        for skipped in result.skipped[:_SHOWN]:
            console.notes().print(f"skipped {unit} {skipped.index}: {skipped.reason}", markup=False)
        if json_output:
            scores = {"scores_before": result.scores_before, "scores_after": result.scores_after}
            console.print_json(
                {"model": str(result.folder / "model"), "steps": result.steps, **more, **scores, "skipped": len(result.skipped)}
            )
        else:
            if table := score_columns(result.scores_before, result.scores_after):
                console.findings().print(table)
            notes = f", {len(result.skipped)} {unit}s skipped" if result.skipped else ""
            console.findings().print(f"{result.steps} steps{notes}; the model is in {result.folder / 'model'}", markup=False)
    return SOME_FAILED if result.skipped else OK


def score_columns(before: Mapping[str, float], after: Mapping[str, float]) -> Any:
    """A table of scores side by side; None where nothing was held out."""
    from rich.table import Table

    if not after and not before:
        return None
    table = Table("held-out score", "before", "after")
    for name in {**before, **after}:
        values = (before.get(name), after.get(name))
        table.add_row(name.replace("_", " "), *("-" if value is None else f"{value:.3f}" for value in values))
    return table


def watch(iterable: Iterable[Any], title: str) -> Iterator[Any]:
    """A progress bar on stderr, on a terminal."""
    from rich.progress import track

    notes = console.notes()
    return iter(track(iterable, title, console=notes, transient=True, disable=not notes.is_terminal))


@dataclass(frozen=True)
class FinetuneRewardCommand:
    """The options of one call; see the help texts.

    Attributes:
        data: the JSONL file.
        model: zoo name, hub id or folder of the backbone.
        out: folder of the run.
        recipe: name or file, None for that of the model.
        changes: of the recipe, as key=value.
        held_out: file to score on, None for a part of the data.
        json_output: print the result as JSON.
    """

    data: Path
    model: str
    out: Path
    recipe: str | None
    changes: list[str]
    held_out: Path | None
    json_output: bool = False

    def run(self) -> int:
        """Trains; returns the exit code."""
        return run_training(self._train)

    def _train(self) -> int:
        from molmopoint.training.reward.finetune import finetune_reward

        with console.quiet_stdout():
            result = finetune_reward(
                self.data,
                self.model,
                self.out,
                self.recipe,
                overrides=self.changes,
                held_out=self.held_out,
                watch=watch,
                say=console.say,
            )
        return report(result, "row", json_output=self.json_output, data=result.data)
