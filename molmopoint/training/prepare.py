"""From a draw to a training row: pictures are read and cut, requests and answers drawn and written.

Crops that are equal are looked at once.

A picture no larger than a crop has one tile, and it is the same as its overview; sets of pictures may repeat
one. The ViT need not see a crop twice: image tokens of both may pool the patches of one.

Letters: N crops, G ViT patches per crop, P image tokens, K slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch

from molmopoint.backends import Backend
from molmopoint.geometry import EMPTY_SLOT
from molmopoint.processing.rows import Row
from molmopoint.training.recipe import Data
from molmopoint.training.rules import FINETUNING_WEIGHTS, PLAIN_WEIGHTS, FormattingRules, published_rules
from molmopoint.training.sampling import Draw
from molmopoint.training.sources import Example, Source
from molmopoint.training.trees import training_row


def share_equal_crops(row: Row) -> Row:
    """A row with the same loss and gradients whose crops all differ.

    Args:
        row: one example, with pixel_values (N, G, patch values) and pooling (P, K) that counts over its own
            crops.
    """
    if row.pixel_values is None or row.pooling is None or len(row.pixel_values) < 2:
        return row
    if row.grids is not None:  # a host makes something else of a crop at another place
        return row
    digests = [
        hashlib.blake2b(crop.contiguous().view(torch.uint8).numpy().data).digest()
        for crop in row.pixel_values
    ]
    first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    kept = sorted(first.values())
    if len(kept) == len(digests):
        return row
    place = {crop: number for number, crop in enumerate(kept)}
    moved = torch.tensor([place[first[digest]] for digest in digests])
    num_patches = row.pixel_values.shape[1]
    crops, patches = row.pooling.clamp(min=0) // num_patches, row.pooling % num_patches
    pooling = torch.where(row.pooling >= 0, moved[crops] * num_patches + patches, EMPTY_SLOT)
    return replace(row, pixel_values=row.pixel_values[kept], pooling=pooling)


def one_question(example: Example, number: int) -> Example:
    """An example with one of its records: of models that cannot keep the branches of a row apart, every draw
    shows another question about the same pictures.
    """
    masks = None if example.masks is None else (example.masks[number],)
    return replace(example, records=(example.records[number],), masks=masks)


class ExamplePreparer:
    """Makes the example of a draw; depends on the draw alone, and is sent to loader workers.

    Args:
        sources: in the order of the draws' `source`.
        backend: of the model, without its weights.
        rules: of formatting.
        max_length: tokens of a row; branches that do not fit are left out.
    """

    def __init__(
        self, sources: Sequence[Source], backend: Backend, rules: FormattingRules, max_length: int
    ) -> None:
        self.sources = tuple(sources)
        self.backend = backend
        self.rules = rules
        self.max_length = max_length

    def __call__(self, draw: Draw) -> Row:
        """The training row of a draw.

        Raises:
            ProcessingError: a picture is missing or broken, or a point lies outside of it.
        """
        example = self.sources[draw.source].example(draw.index, draw.epoch)
        generator = draw.generator()
        if not self.backend.packs_rows:
            example = one_question(example, int(generator.integers(len(example.records))))
        row = training_row(self.backend, example, generator, self.rules, max_length=self.max_length)
        return share_equal_crops(row)


def rules_of(data: Data) -> FormattingRules:
    """Formatting as the recipe wants it."""
    weights = PLAIN_WEIGHTS if data.weights == "plain" else FINETUNING_WEIGHTS
    rules = FormattingRules(weights=weights) if data.stage is None else published_rules(data.stage)
    # A plain dict can be sent to workers.
    return replace(rules, weights=dict(rules.weights), max_points=data.max_points)
