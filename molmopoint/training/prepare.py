"""From a draw to a training row: pictures are read and cut, requests and answers drawn and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from molmopoint.processing.rows import Row
from molmopoint.training.equal_crops import share_equal_crops
from molmopoint.training.families import Family
from molmopoint.training.recipe import Data
from molmopoint.training.rules import FINETUNING_WEIGHTS, PLAIN_WEIGHTS, FormattingRules, published_rules
from molmopoint.training.sampling import Draw
from molmopoint.training.sources import Source
from molmopoint.training.trees import format_tree


class ExamplePreparer:
    """Makes the example of a draw; depends on the draw alone, and is sent to loader workers.

    Args:
        sources: in the order of the draws' `source`.
        family: of the model.
        rules: of formatting.
        max_length: tokens of a row; branches that do not fit are left out.
    """

    def __init__(self, sources: Sequence[Source], family: Family, rules: FormattingRules, max_length: int) -> None:
        self.sources = tuple(sources)
        self.family = family
        self.rules = rules
        self.max_length = max_length

    def __call__(self, draw: Draw) -> Row:
        """The training row of a draw.

        Raises:
            ProcessingError: a picture is missing or broken, or a point lies outside of it.
        """
        example = self.sources[draw.source].example(draw.index, draw.epoch)
        seen = self.family.see(example)
        conversations = format_tree(example.records, seen.metadata, draw.generator(), self.rules)
        return share_equal_crops(self.family.row(seen, conversations, self.max_length))


def rules_of(data: Data) -> FormattingRules:
    """Formatting as the recipe wants it."""
    weights = PLAIN_WEIGHTS if data.weights == "plain" else FINETUNING_WEIGHTS
    rules = FormattingRules(weights=weights) if data.stage is None else published_rules(data.stage)
    return replace(rules, weights=dict(rules.weights), max_points=data.max_points)  # a plain dict can be sent to workers
