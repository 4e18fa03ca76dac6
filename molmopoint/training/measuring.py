"""How many tokens and crops the training examples of a data set have, by making them as training does; no
weights are needed.

And how many steps a number of passes over the data takes, before anything is packed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.backends import Backend
from molmopoint.data.records import Record
from molmopoint.errors import ProcessingError
from molmopoint.training.packed_dataset import BROKEN, size_of_row
from molmopoint.training.packing import ExampleSize
from molmopoint.training.prepare import ExamplePreparer
from molmopoint.training.recipe import Recipe
from molmopoint.training.rules import FormattingRules
from molmopoint.training.sampling import Draw
from molmopoint.training.sources import GroupSource
from molmopoint.training.trees import group_records, training_row

_BARS = "▁▂▃▄▅▆▇█"
_BINS = 24

_SAMPLE = 128
"""Examples that are made to learn how large they are."""

_FILLED = 0.95
"""Part of a row that packing fills."""


@dataclass
class ExampleSizes:
    """Sizes of examples, each the rows on one visual input.

    Attributes:
        examples: in the data.
        tokens: of each measured example.
        crops: crops and frames of each measured example.
        broken: row and reason of each example that could not be made.
    """

    examples: int = 0
    tokens: list[int] = field(default_factory=list)
    crops: list[int] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def summary(self, max_tokens: int, max_crops: int) -> dict[str, Any]:
        """JSON values: how tokens and crops are spread, and how many examples are larger than a packed row."""
        over = sum(
            tokens > max_tokens or crops > max_crops
            for tokens, crops in zip(self.tokens, self.crops, strict=True)
        )
        return {
            "examples": self.examples,
            "measured": len(self.tokens),
            "tokens": spread(self.tokens),
            "crops": spread(self.crops),
            "limits": {"max_tokens": max_tokens, "max_crops": max_crops},
            "over_limits": over,
        }


def measure_examples(
    records: Sequence[Record],
    folder: Path,
    backend: Backend,
    rules: FormattingRules,
    *,
    at_most: int = 200,
    seed: int = 0,
) -> ExampleSizes:
    """Tokens and crops of the examples that training would make.

    Args:
        records: checked rows.
        folder: where relative paths begin.
        backend: of the model, whose processor cuts the pictures.
        rules: of formatting.
        at_most: examples to make; of more, so many are drawn.
        seed: of that draw, and of styles and templates.

    Raises:
        ProcessingError: an expression has more points than the rules allow.
    """
    source = GroupSource("data", group_records(records, rules.max_points), folder)
    sizes = ExampleSizes(examples=len(source))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(source))[:at_most]).tolist()
    for index in chosen:
        try:
            example = source.example(index)
            row = training_row(backend, example, rng, rules)
        except BROKEN as error:
            sizes.broken.append((source.groups[index][0].row, str(error)))
            continue
        size = size_of_row(row)
        sizes.tokens.append(size.tokens)
        sizes.crops.append(size.crops)
    return sizes


def count_steps(recipe: Recipe, prepare: ExamplePreparer, share: float, num_ranks: int = 1) -> int:
    """Optimiser steps of a run: those of the recipe, or what its epochs over the first source come to.

    Args:
        recipe: of the run.
        prepare: makes the examples; up to 128 are made to measure them.
        share: part of the draws that the first source gets.
        num_ranks: processes that train together.

    Raises:
        ProcessingError: not one of the measured examples can be made.
    """
    if recipe.steps is not None:
        return recipe.steps
    total = len(prepare.sources[0])
    sizes = _sample_sizes(prepare, total)
    mean_tokens = float(np.mean([size.tokens for size in sizes]))
    mean_crops = float(np.mean([size.crops for size in sizes]))
    part_of_row = max(mean_tokens / recipe.data.max_tokens, mean_crops / recipe.data.max_crops)
    rows_per_epoch = total / share * part_of_row / _FILLED
    rows_per_step = recipe.data.rows * recipe.accumulation * num_ranks
    return max(1, math.ceil((recipe.epochs or 1.0) * rows_per_epoch / rows_per_step))


def _sample_sizes(prepare: ExamplePreparer, total: int) -> list[ExampleSize]:
    """Sizes of examples spread evenly over the first source."""
    chosen = np.linspace(0, total - 1, min(total, _SAMPLE)).round().astype(int)
    sizes, reason = [], ""
    for index in np.unique(chosen).tolist():
        try:
            row = prepare(Draw(index, 0, index, 0))
        except BROKEN as error:
            reason = str(error)
        else:
            sizes.append(size_of_row(row))
    if not sizes:
        raise ProcessingError(
            f"expected examples that can be prepared, got only broken ones ({reason}); run `molmopoint data "
            "check`"
        )
    return sizes


def spread(values: Sequence[int]) -> dict[str, float] | None:
    """Least, middle, 95th of a hundred and largest value; None without values."""
    if not values:
        return None
    low, middle, high, top = np.percentile(values, [0, 50, 95, 100]).tolist()
    return {"min": low, "median": middle, "p95": high, "max": top}


def histogram_line(values: Sequence[int]) -> str:
    """A line of bars from the least to the largest value; where there is something, a bar is never empty.

    >>> histogram_line([1, 1, 1, 25])
    '█                      ▃'
    """
    counts, _ = np.histogram(values, bins=_BINS)
    return "".join(
        _BARS[max(1, round(7 * count / counts.max()))] if count else " " for count in counts.tolist()
    )
