"""A push over the plateau: queries and keys of the patch head learn to speak the same words.

Which patch is asked for is a product of two things that have to be learned together: a query that knows the words of the
question and a key that knows what stands there. Left alone, both stay at chance for long, because neither gets a signal
while the other is random. So early in the stage each of them is also compared with one vector per word, the same for
both: a query should be close to the words of its question, a key to the words of the objects whose points lie in its
image token. Points come in order, so the same is done for places: a query should be close to the place of the next
point, a key to its own. The vectors are thrown away, and the loss fades out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.questions import PLURALS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from nano.settings import GRID

_WINDOW = 2
_STILL = 0.4
"""Pairs of a rotated vector before this part of its width turn too much with the position to carry a word."""


@cache
def words_of(label: str) -> tuple[float, ...]:
    """One number per colour and shape: 1 if the phrase names it."""
    words = set(label.split())
    shapes = (float(shape in words or PLURALS[shape] in words) for shape in SHAPES)
    return (*(float(colour in words) for colour in COLOURS), *shapes)


def words_at(labels: Tensor) -> Tensor:
    """(N, image tokens of a crop, words): what is pointed at inside each image token; `labels` as in `dense_labels`."""
    labels = labels.long()
    is_point = (labels[..., 3:] >= 0).float()
    colours = F.one_hot((labels[..., 0] - 1).clamp(min=0), len(COLOURS)).float()
    shapes = F.one_hot((labels[..., 1] - 1).clamp(min=0), len(SHAPES)).float()
    at_patch = torch.cat([colours, shapes], dim=-1) * is_point
    side = GRID // _WINDOW
    return at_patch.view(-1, side, _WINDOW, side, _WINDOW, at_patch.shape[-1]).amax(dim=(2, 4)).flatten(1, 2)


class Alignment(nn.Module):
    """The vectors of the words, and a look at what the patch head computes."""

    def __init__(self, model: MolmoPointForConditionalGeneration) -> None:
        super().__init__()
        head = model.model.point_predictor.patch
        width = model.config.patch_embed_dim
        self.words = nn.Parameter(torch.randn(len(COLOURS) + len(SHAPES), width) * width**-0.5)
        self.places = nn.Parameter(torch.randn((GRID // _WINDOW) ** 2, width) * width**-0.5)
        self.query_bias = nn.Parameter(torch.full((len(self.words),), -2.0))
        self.key_bias = nn.Parameter(torch.full((len(self.words),), -3.0))
        pair = torch.arange(width) % (width // 2)
        self.register_buffer("still", (pair >= _STILL * width / 2).float(), persistent=False)
        self.seen: dict[str, Any] = {}
        head.query.register_forward_hook(lambda _, __, output: self.seen.update(query=output))
        head.key.register_forward_hook(lambda _, __, output: self.seen.update(key=output))

    def loss(self, asked: Sequence[Sequence[str]], labels: Tensor, chosen: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of the pass that was just made.

        Args:
            asked: per row, the phrase behind each of its PATCH tokens, in order.
            labels: (rows, GRID * GRID, 4) dense labels of the pictures.
            chosen: selections of all PATCH tokens, row by row.
        """
        still: Any = self.still
        words, places = self.words * still, self.places * still
        queries = torch.cat([row[: len(phrases)] for row, phrases in zip(self.seen["query"], asked, strict=True)])
        named = torch.tensor([words_of(phrase) for phrases in asked for phrase in phrases])
        query_logits = F.linear(queries.float(), words, self.query_bias)
        keys = self.seen["key"].unflatten(0, (len(asked), 2, -1)).float()
        there = words_at(labels).unsqueeze(1).expand(-1, 2, -1, -1)
        key_logits = F.linear(keys, words, self.key_bias)
        key_loss = F.binary_cross_entropy_with_logits(key_logits, there, pos_weight=torch.tensor(3.0))
        loss = F.binary_cross_entropy_with_logits(query_logits, named) + 5 * key_loss
        goes_on = chosen >= 0
        next_place = F.linear(queries[goes_on].float(), places)
        own_place = F.linear(keys[:, 1], places)
        here = torch.arange(len(places)).repeat(len(asked))
        wanted = chosen[goes_on] - len(places)
        loss = loss + 0.3 * F.cross_entropy(next_place, wanted) + 0.3 * F.cross_entropy(own_place.flatten(0, 1), here)
        right = ((query_logits > 0) == (named > 0)).all(1).float().mean()
        full = there.amax(-1) > 0
        found = ((key_logits > 0) == (there > 0)).all(-1)[full].float().mean()
        placed = (next_place.argmax(-1) == wanted).float().mean()
        return loss, {"query_words": float(right), "key_words": float(found), "query_place": float(placed)}
