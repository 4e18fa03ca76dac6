"""Training of pointing on packed rows.

    trainer = PointingTrainer(model, recipe, dataset, collator, Path("run"), steps=1000, score=held_out)
    trainer.train()                 goes on from run/checkpoint-000900 by itself, if it is there
    trainer.load_best()             the weights of the best score, else the newest ones
    join_output_rows(model)         the model as it was made, ready to be saved

What callers need to know, beside what `run_trainer` says:

- The model comes with its adapters, if any, and in float32 (frozen weights may have another type). The trainer splits its
  vocabulary tables, freezes what the recipe says, and adds residual dropout.
- A model takes the batch of `PackCollator` with `num_items_in_batch`, `z_loss` and `weight_pointing_losses`, and returns an output
  with `loss`, `loss_sums` (kind -> sum), `weight_sum` and `logits` (R, V) of the supervised tokens in row-major order, as
  MolmoPoint does. Batches without pictures or points give gradients (of zero) to what they do not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.models.molmo2.modeling_molmo2 import Molmo2DecoderLayer, Molmo2VisionEncoderLayer

from molmopoint.training.metrics import StepFlops, TrainingMetrics, weight_of
from molmopoint.training.molmo2 import add_residual_dropout
from molmopoint.training.optimiser import freeze
from molmopoint.training.packed_dataset import SOURCE_IDS, PackCollator, PackedDataset
from molmopoint.training.recipe import Recipe
from molmopoint.training.run_trainer import RunTrainer
from molmopoint.training.vocabulary_rows import split_output_rows


def compile_blocks(model: nn.Module) -> None:
    """Compiles the layers of both towers, each for itself; connector and heads see other sizes in every batch and stay as they are."""
    for module in model.modules():
        if isinstance(module, Molmo2DecoderLayer | Molmo2VisionEncoderLayer):
            module.compile()


class PointingTrainer(RunTrainer):
    """Trains a MolmoPoint or Molmo2 model on packed rows; see the module for what callers need to know.

    Args:
        model: with adapters if the recipe has them.
        recipe: of the run.
        dataset: rows of this process.
        collator: of its packs.
        out: folder of the run.
        steps: optimiser steps.
        sources: names of the sources of the data, for the log; their numbers if not given.
        more: further arguments of `RunTrainer`.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        dataset: PackedDataset,
        collator: PackCollator,
        out: Path,
        *,
        steps: int,
        sources: Sequence[str] = (),
        **more: Any,
    ) -> None:
        split_output_rows(model)
        freeze(model, recipe)
        add_residual_dropout(model, recipe.residual_dropout)
        if recipe.compile:
            compile_blocks(model)
        super().__init__(model, recipe, dataset, collator, out, steps=steps, **more)
        names = tuple(sources) or tuple(map(str, range(len(dataset.order.sizes))))
        self.metrics: TrainingMetrics = TrainingMetrics(names, self.args.device, dataset.limits.max_tokens, dataset.limits.max_crops)
        self._step_flops = StepFlops(model)

    def weight_of(self, batch: Mapping[str, Any]) -> Tensor:
        """Sum of the loss weights of its tokens."""
        return weight_of(batch)

    def count(self, batch: Mapping[str, Any]) -> None:
        """Tokens, crops and operations of a micro-batch."""
        flops = self._step_flops(batch)
        self.current_flos += flops
        self.metrics.count(batch, flops)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """The part of a micro-batch in the loss of the step, times the processes whose gradients are averaged."""
        source_ids = inputs.pop(SOURCE_IDS)
        divisor = num_items_in_batch if num_items_in_batch is not None else weight_of(inputs)
        weighted = self.recipe.weight_pointing_losses
        output = model(**inputs, num_items_in_batch=divisor, z_loss=self.recipe.z_loss, weight_pointing_losses=weighted)
        self.metrics.add(output, divisor)
        self.watch(output.loss)
        if self.in_detail:
            self.metrics.add_details(output, inputs, source_ids, self.model.config, weighted=weighted)
        loss = output.loss * self.args.world_size
        return (loss, output) if return_outputs else loss
