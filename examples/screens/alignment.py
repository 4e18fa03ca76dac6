"""A push over the plateau, as the one in `nano.auxiliary`: queries and keys of the patch head learn to speak
the same words.

A query should be close to the words of its question, a key to those of the elements whose points lie in its
image token, both by one vector per word, the same for both. Words are kinds, colours, icons, states, and the
letters and pairs of letters of names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from nano.auxiliary import WordVectors
from torch import Tensor

from molmopoint.modeling import MolmoPointForConditionalGeneration
from screens.labels import GROUPS, SIZE

_KINDS = GROUPS["kind"]


class Alignment(WordVectors):
    """The vectors of the words.

    Args:
        model: whose patch head is watched.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration) -> None:
        super().__init__(model, SIZE, query_bias=-3.0, key_bias=-3.0)

    def loss(
        self, counts: Sequence[int], named: Tensor, tokens: Tensor, there: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of the pass that was just made.

        Args:
            counts: PATCH tokens of each row.
            named: (Q, SIZE) what the question of each PATCH token names, row by row.
            tokens: (T,) image tokens that hold points, counted over the batch.
            there: (T, SIZE) what stands there.
        """
        vectors = self.words * self.still
        queries = self.queries(counts)
        keys = self.seen["key"].float().reshape(-1, vectors.shape[1])
        query_logits = F.linear(queries, vectors, self.query_bias)
        key_logits = F.linear(keys[tokens], vectors, self.key_bias)
        more = torch.tensor(4.0)
        query_loss = (
            F.binary_cross_entropy_with_logits(query_logits, named, pos_weight=more, reduction="none")
            .sum(-1)
            .mean()
        )
        key_loss = (
            F.binary_cross_entropy_with_logits(key_logits, there, pos_weight=more, reduction="none")
            .sum(-1)
            .mean()
        )
        empty = torch.ones(len(keys), dtype=torch.bool)
        empty[tokens] = False
        ground = F.linear(keys[empty], vectors[:_KINDS], self.key_bias[:_KINDS])
        ground_loss = F.softplus(ground).sum(-1).mean()
        seen = {"query_words": _f1(query_logits > 0, named > 0), "key_words": _f1(key_logits > 0, there > 0)}
        return 0.05 * (query_loss + key_loss) + 0.3 * ground_loss, seen


def _f1(said: Tensor, true: Tensor) -> float:
    return float(2 * (said & true).sum() / (said.sum() + true.sum()).clamp(min=1))
