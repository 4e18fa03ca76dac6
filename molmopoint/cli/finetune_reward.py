"""`molmopoint finetune-reward`: from answers that were ranked to a model that judges."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from molmopoint.cli import console
from molmopoint.cli.exit_codes import OK, SOME_FAILED
from molmopoint.cli.finetune import run_training, score_columns, watch

if TYPE_CHECKING:
    from molmopoint.training.reward.finetune import RewardResult

_SHOWN = 5
"""Skipped rows that are written out."""


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
                say=console.notes().print,
            )
        if os.environ.get("RANK", "0") == "0":
            self._report(result)
        return SOME_FAILED if result.skipped else OK

    def _report(self, result: RewardResult) -> None:
        """Scores before and after, and what was skipped."""
        for skipped in result.skipped[:_SHOWN]:
            console.notes().print(f"skipped row {skipped.index}: {skipped.reason}", markup=False)
        if self.json_output:
            console.print_json(
                {
                    "model": str(result.folder / "model"),
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
        notes = f", {len(result.skipped)} rows skipped" if result.skipped else ""
        console.findings().print(f"{result.steps} steps{notes}; the model is in {result.folder / 'model'}", markup=False)
