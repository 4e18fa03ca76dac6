"""`molmopoint finetune-reward`: from answers that were ranked to a model that judges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from molmopoint.cli import console
from molmopoint.cli.finetune import report, run_training, watch


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
