"""What a run teaches that is to judge: a step is the mean loss over the rows of all its micro-batches and
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from molmopoint.errors import RecipeError
from molmopoint.molmo2 import add_residual_dropout
from molmopoint.reward import RewardModel
from molmopoint.training.optimiser import freeze, group_of
from molmopoint.training.pointing import compile_blocks
from molmopoint.training.recipe import Recipe, Reward
from molmopoint.training.reward.dataset import PreferenceDataset
from molmopoint.training.reward.losses import RewardMetrics, reward_losses
from molmopoint.training.reward.prepare import BEST, RANKS, PreferenceCollator
from molmopoint.training.trainer import RunTrainer, training_arguments
from molmopoint.training.vocabulary_rows import HEAD


def reward_section(recipe: Recipe) -> Reward:
    """The settings of a reward model.

    Raises:
        RecipeError: the recipe is one for pointing.
    """
    if recipe.reward is None:
        raise RecipeError(
            "expected a recipe with a table [reward], got one without; use the recipe reward, or name it as "
            "base"
        )
    return recipe.reward


def make_reward_trainable(model: RewardModel, recipe: Recipe) -> None:
    """Adds the adapters of the recipe and freezes what does not train.

    Grounding heads never train, the output table only where the recipe wants it to.

    Raises:
        RecipeError: adapters that do not fit the model, or nothing that trains.
    """
    lora = recipe.lora
    if lora is not None:
        model.add_adapters(rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets)
    freeze(model, recipe)
    section = reward_section(recipe)
    for name, parameter in model.named_parameters():
        if HEAD in name:
            parameter.requires_grad_(section.train_text_head)
        elif group_of(name) == "point" or (name == "separator" and not section.train_separator):
            parameter.requires_grad_(False)
        if recipe.bf16_weights and not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(torch.bfloat16)


class RewardObjective:
    """A loss of the scores of each list of answers, and maybe of the words of a best one; an `Objective` of
    the trainer.

    Args:
        recipe: of the run, with a section `reward`.
        metrics: where figures are summed.
    """

    whole_batches = True

    def __init__(self, recipe: Recipe, metrics: RewardMetrics) -> None:
        section = reward_section(recipe)
        self.kind = section.loss
        self.text_weight = section.text
        self.metrics = metrics

    def weight_of(self, batch: Mapping[str, Any]) -> Tensor:
        """Its rows: every list of answers counts once, whatever its length."""
        ranks: Tensor = batch[RANKS]
        return torch.tensor(float(len(ranks)), device=ranks.device)

    def count(self, batch: Mapping[str, Any]) -> float:
        """Counts tokens and crops of a micro-batch; operations are not known."""
        self.metrics.count(batch)
        return 0.0

    def loss(
        self, model: nn.Module, batch: dict[str, Any], divisor: Tensor, *, in_detail: bool
    ) -> tuple[Tensor, Any]:
        """The part of a micro-batch in the loss of the step, and the output of the model."""
        ranks, best = batch.pop(RANKS), batch.pop(BEST)  # (B, N), (B,)
        output = model(**batch, spoken=best if self.text_weight else None)
        losses = reward_losses(self.kind, output.scores, ranks, best)  # (B,)
        self.metrics.add(output.scores.detach(), ranks, losses.detach(), divisor, output.text_losses)
        if output.text_losses is not None:
            losses = losses + self.text_weight * output.text_losses.to(losses.device)
        return losses.sum() / divisor, output


def reward_trainer(
    model: RewardModel,
    recipe: Recipe,
    dataset: PreferenceDataset,
    collator: PreferenceCollator,
    out: Path,
    *,
    steps: int,
    **options: Any,
) -> RunTrainer:
    """The trainer of a reward model.

    Args:
        model: with its adapters and frozen parts, see `make_reward_trainable`.
        recipe: of the run, with a section `reward`.
        dataset: rows of this process.
        collator: of its rows.
        out: folder of the run.
        steps: optimiser steps.
        **options: further arguments of `RunTrainer`.
    """
    add_residual_dropout(model, recipe.residual_dropout)
    if recipe.compile:
        compile_blocks(model)
    args = training_arguments(recipe, out, steps)
    objective = RewardObjective(recipe, RewardMetrics(args.device))
    return RunTrainer(model, objective, recipe, args, dataset, collator, **options)
