"""What a run teaches that is to point: the losses of MolmoPoint and Molmo2 on packed rows.

A model takes the batch of `PackCollator` with `num_items_in_batch`, `z_loss` and `weight_pointing_losses`,
and returns an output with `loss`, `loss_sums` (kind -> sum), `weight_sum` and `logits` (R, V) of the
supervised tokens in row-major order, as MolmoPoint does. Batches without pictures or points give gradients
(of zero) to what they do not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from molmopoint.molmo2 import add_residual_dropout
from molmopoint.training.metrics import StepFlops, TrainingMetrics, weight_of
from molmopoint.training.optimiser import freeze
from molmopoint.training.packed_dataset import SOURCE_IDS, PackCollator, PackedDataset
from molmopoint.training.recipe import Recipe
from molmopoint.training.trainer import RunTrainer, training_arguments
from molmopoint.training.vocabulary_rows import split_output_rows


class PointingObjective:
    """Text, patch, subpatch and location losses of packed rows; an `Objective` of the trainer.

    Args:
        model: with its frozen parameters marked, not sharded yet.
        recipe: of the run.
        metrics: where figures are summed.
    """

    whole_batches = False

    def __init__(self, model: nn.Module, recipe: Recipe, metrics: TrainingMetrics) -> None:
        self.config: Any = model.config
        self.recipe = recipe
        self.metrics = metrics
        self._flops_of = StepFlops(model)

    def weight_of(self, batch: Mapping[str, Any]) -> Tensor:
        """Sum of the loss weights of its tokens."""
        return weight_of(batch)

    def count(self, batch: Mapping[str, Any]) -> float:
        """Counts tokens and crops of a micro-batch; returns its operations."""
        flops = self._flops_of(batch)
        self.metrics.count(batch, flops)
        return flops

    def loss(
        self, model: nn.Module, batch: dict[str, Any], divisor: Tensor, *, in_detail: bool
    ) -> tuple[Tensor, Any]:
        """The part of a micro-batch in the loss of the step, and the output of the model."""
        source_ids = batch.pop(SOURCE_IDS)
        weighted = self.recipe.weight_pointing_losses
        output = model(
            **batch,
            num_items_in_batch=divisor,
            z_loss=self.recipe.z_loss,
            weight_pointing_losses=weighted,
        )
        self.metrics.add(output, divisor)
        if in_detail:
            self.metrics.add_details(output, batch, source_ids, self.config, weighted=weighted)
        return output.loss, output


def pointing_trainer(
    model: nn.Module,
    recipe: Recipe,
    dataset: PackedDataset,
    collator: PackCollator,
    out: Path,
    *,
    steps: int,
    sources: Sequence[str] = (),
    **options: Any,
) -> RunTrainer:
    """The trainer of a model that points.

    The model is made ready by this: its vocabulary tables are split (`join_output_rows` makes them whole
    again), what the recipe does not train is frozen, and residual dropout is added.

    Args:
        model: with adapters if the recipe has them, in float32; frozen weights may have another type.
        recipe: of the run.
        dataset: packed rows of this process.
        collator: of its packs.
        out: folder of the run.
        steps: optimiser steps.
        sources: names of the sources of the data, for the log; their numbers if not given.
        **options: further arguments of `RunTrainer`.
    """
    split_output_rows(model)
    freeze(model, recipe)
    add_residual_dropout(model, recipe.residual_dropout)
    if recipe.compile:
        compile_blocks(model)
    args = training_arguments(recipe, out, steps)
    names = sources or [str(number) for number in range(len(dataset.order.sizes))]
    metrics = TrainingMetrics(names, args.device, dataset.limits.max_tokens, dataset.limits.max_crops)
    objective = PointingObjective(model, recipe, metrics)
    return RunTrainer(model, objective, recipe, args, dataset, collator, **options)


def compile_blocks(model: nn.Module) -> None:
    """Compiles the layers of both towers, each for itself; connector and heads see other sizes in every batch
    and stay as they are.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):  # what transformers calls a block
            module.compile()
