"""Training of reward models: a step is the mean loss over the rows of all its micro-batches and processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molmopoint.errors import RecipeError
from molmopoint.reward import RewardModel
from molmopoint.training.molmo2 import add_residual_dropout
from molmopoint.training.optimiser import freeze, group_of
from molmopoint.training.recipe import Lora, Recipe, Reward
from molmopoint.training.reward.dataset import PreferenceDataset
from molmopoint.training.reward.losses import RewardMetrics, reward_losses
from molmopoint.training.reward.prepare import BEST, RANKS, PreferenceCollator
from molmopoint.training.run_trainer import RunTrainer
from molmopoint.training.trainer import compile_blocks
from molmopoint.training.vocabulary_rows import HEAD


def reward_section(recipe: Recipe) -> Reward:
    """The settings of a reward model.

    Raises:
        RecipeError: the recipe is one for pointing.
    """
    if recipe.reward is None:
        raise RecipeError("expected a recipe with a table [reward], got one without; use the recipe reward, or name it as base")
    return recipe.reward


def make_reward_trainable(model: RewardModel, recipe: Recipe) -> None:
    """Adds the adapters of the recipe and freezes what does not train; grounding heads never do,
    the output table only where the recipe wants it to.

    Raises:
        RecipeError: adapters that do not fit the model, or nothing that trains.
    """
    if recipe.lora is not None:
        add_reward_adapters(model, recipe.lora)
    freeze(model, recipe)
    section = reward_section(recipe)
    for name, parameter in model.named_parameters():
        unused = HEAD in name or group_of(name) == "point"
        if unused or (name == "separator" and not section.train_separator):
            parameter.requires_grad_(HEAD in name and section.train_text_head)
        if recipe.bf16_weights and not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(torch.bfloat16)


def add_reward_adapters(model: RewardModel, lora: Lora) -> None:
    """Puts the adapters of a recipe on the text model."""
    model.add_adapters(rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets)


class RewardTrainer(RunTrainer):
    """Trains a reward model on preferences.

    Args:
        model: with its adapters and frozen parts, see `make_reward_trainable`.
        recipe: of the run, with a section `reward`.
        dataset: rows of this process.
        collator: of its rows.
        out: folder of the run.
        steps: optimiser steps.
        more: further arguments of `RunTrainer`.
    """

    def __init__(
        self,
        model: RewardModel,
        recipe: Recipe,
        dataset: PreferenceDataset,
        collator: PreferenceCollator,
        out: Path,
        *,
        steps: int,
        **more: Any,
    ) -> None:
        section = reward_section(recipe)
        self.kind, self.text_weight = section.loss, section.text
        add_residual_dropout(model, recipe.residual_dropout)
        if recipe.compile:
            compile_blocks(model)
        super().__init__(model, recipe, dataset, collator, out, steps=steps, **more)
        self.metrics: RewardMetrics = RewardMetrics(self.args.device)

    def weight_of(self, batch: Mapping[str, Any]) -> Tensor:
        """Its rows: every list of answers counts once, whatever its length."""
        return torch.tensor(float(len(batch[RANKS])))

    @property
    def items_per_batch(self) -> int:
        """One: the data makes whole batches."""
        return 1

    def count(self, batch: Mapping[str, Any]) -> None:
        """Tokens and crops of a micro-batch."""
        self.metrics.count(batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """The part of a micro-batch in the loss of the step, times the processes whose gradients are averaged."""
        ranks, best = inputs.pop(RANKS), inputs.pop(BEST)
        output = model(**inputs, spoken=best if self.text_weight else None)
        losses = reward_losses(self.kind, output.scores, ranks, best)
        divisor = num_items_in_batch if num_items_in_batch is not None else torch.tensor(float(len(ranks)), device=losses.device)
        self.metrics.add(output.scores.detach(), ranks, losses.detach(), divisor, output.text_losses)
        if output.text_losses is not None:
            losses = losses + self.text_weight * output.text_losses.to(losses.device)
        loss = losses.sum() / divisor
        self.watch(loss)
        loss = loss * self.args.world_size
        return (loss, output) if return_outputs else loss
