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
from molmopoint.tokens import NO_SELECTION
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
    """The vectors of the words, and a look at what the patch head computes.

    Args:
        model: whose patch head is watched.
        num_words: W, words that questions and keys can say.
        num_places: places that a point can have in one input.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration, num_words: int, num_places: int) -> None:
        super().__init__()
        head = model.model.point_predictor.patch
        width = model.config.patch_embed_dim
        self.words = nn.Parameter(torch.randn(num_words, width) * width**-0.5)
        self.places = nn.Parameter(torch.randn(num_places, width) * width**-0.5)
        self.query_bias = nn.Parameter(torch.full((num_words,), -2.0))
        self.key_bias = nn.Parameter(torch.full((num_words,), -3.0))
        pair = torch.arange(width) % (width // 2)
        self.register_buffer("still", (pair >= _STILL * width / 2).float(), persistent=False)
        self.seen: dict[str, Any] = {}
        head.query.register_forward_hook(lambda _, __, output: self.seen.update(query=output))
        head.key.register_forward_hook(lambda _, __, output: self.seen.update(key=output))

    def queries(self, counts: Sequence[int]) -> Tensor:
        """(Q, E): what the last pass asked with, without padding; `counts` are the PATCH tokens of each row."""
        return torch.cat([row[:count] for row, count in zip(self.seen["query"], counts, strict=True)]).float()

    def loss_of_pictures(self, asked: Sequence[Sequence[str]], labels: Tensor, chosen: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of a pass over pictures that was just made.

        Args:
            asked: per row, the phrase behind each of its PATCH tokens, in order.
            labels: (rows, GRID * GRID, 4) dense labels of the pictures.
            chosen: selections of all PATCH tokens, row by row.
        """
        queries = self.queries([len(phrases) for phrases in asked])
        named = torch.tensor([words_of(phrase) for phrases in asked for phrase in phrases])
        there = words_at(labels).unsqueeze(1).expand(-1, 2, -1, -1)
        keys = self.seen["key"].float().view(*there.shape[:3], -1)
        tiles = len(self.places)
        own = torch.arange(tiles).repeat(len(asked))
        return self.loss(queries, named, keys, there, (chosen - tiles).clamp(min=NO_SELECTION), keys[:, 1].flatten(0, 1), own)

    def loss(
        self, queries: Tensor, named: Tensor, keys: Tensor, there: Tensor, chosen: Tensor, placed_keys: Tensor, places: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a pass.

        Args:
            queries: (Q, E).
            named: (Q, W) 1 where the question says the word.
            keys: (..., E).
            there: (..., W) 1 where the image token shows what the word means.
            chosen: (Q,) place of the next point, negative at the end of a list.
            placed_keys: (P, E) keys that have places.
            places: (P,) those places.
        """
        still: Any = self.still
        words, vectors = self.words * still, self.places * still
        query_logits = F.linear(queries, words, self.query_bias)
        key_logits = F.linear(keys, words, self.key_bias)
        key_loss = F.binary_cross_entropy_with_logits(key_logits, there.float(), pos_weight=torch.tensor(3.0))
        loss = F.binary_cross_entropy_with_logits(query_logits, named.float()) + 5 * key_loss
        goes_on = chosen >= 0
        next_place = F.linear(queries[goes_on], vectors)
        loss = loss + 0.3 * F.cross_entropy(next_place, chosen[goes_on]) + 0.3 * F.cross_entropy(F.linear(placed_keys, vectors), places)
        right = ((query_logits > 0) == (named > 0)).all(1).float().mean()
        full = there.amax(-1) > 0
        found = ((key_logits > 0) == (there > 0)).all(-1)[full].float().mean()
        placed = (next_place.argmax(-1) == chosen[goes_on]).float().mean()
        return loss, {"query_words": float(right), "key_words": float(found), "query_place": float(placed)}
