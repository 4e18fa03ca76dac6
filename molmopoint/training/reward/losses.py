"""What a reward model learns from: scores of the answers to one request, and how good each of them is.

| loss | of one row |
| --- | --- |
| ce | cross-entropy of "which is best", as published; of tied best answers one is drawn beforehand |
| ce_soft | the same with the tied best answers sharing the mass |
| plackett_luce | negative log-likelihood of the whole ranking: rank by rank, each answer against all that are no better |
| pairwise | mean of -log sigmoid(better - worse) over all pairs of different rank |

With two answers and no tie all four are Bradley-Terry, -log sigmoid(better - worse). All are unchanged when a constant is added to the
scores of a row. Ties in `plackett_luce` are grouped as Breslow (1974) does: tied answers are all held against the same rest, themselves
included; the last group has nothing below it and no term.

Letters: B rows, N answers per row (padded).

Source: arXiv 2604.10966 and its public code for `ce`; the others are ours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

ABSENT = 0
"""Rank of a place without an answer; ranks of answers count from 1."""


def reward_losses(kind: str, scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    """The loss of each row, float32.

    Args:
        kind: a key of `LOSSES`.
        scores: (B, N); whatever stands at absent answers counts for nothing and gets no gradient.
        ranks: (B, N) 1 is best, ties share a rank; 0 where there is no answer. Each row has answers of two or more ranks.
        best: (B,) place of the answer that counts as the best one in `ce`.

    Returns:
        (B,).
    """
    present = ranks != ABSENT
    scores = scores.float().masked_fill(~present, -torch.inf)
    return LOSSES[kind](scores, ranks, best)


def _cross_entropy(scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    return functional.cross_entropy(scores, best, reduction="none")


def _soft_cross_entropy(scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    tied = ranks == _top(ranks)
    chosen = _log_softmax(scores, ranks).masked_fill(~tied, 0.0)
    return -chosen.sum(1) / tied.sum(1)


def _plackett_luce(scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    present = ranks != ABSENT
    rest = (ranks[:, None, :] >= ranks[:, :, None]) & present[:, None, :]  # (B, answer, held against)
    chosen = present & (ranks < ranks.max(1, keepdim=True).values)
    # Places without a term see their own row whole, so that no sum is empty.
    against = scores[:, None, :].masked_fill(~(rest | ~chosen[:, :, None]), -torch.inf).logsumexp(2)
    return (against - scores).masked_fill(~chosen, 0.0).sum(1)


def _pairwise(scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    present = ranks != ABSENT
    ordered = (ranks[:, :, None] < ranks[:, None, :]) & present[:, :, None] & present[:, None, :]  # (B, better, worse)
    finite = scores.masked_fill(~present, 0.0)
    losses = -functional.logsigmoid(finite[:, :, None] - finite[:, None, :])
    return losses.masked_fill(~ordered, 0.0).sum((1, 2)) / ordered.sum((1, 2))


def _top(ranks: Tensor) -> Tensor:
    """(B, 1) the best rank of each row."""
    return ranks.masked_fill(ranks == ABSENT, torch.iinfo(ranks.dtype).max).min(1, keepdim=True).values


def _log_softmax(scores: Tensor, ranks: Tensor) -> Tensor:
    return scores.log_softmax(1).masked_fill(ranks == ABSENT, 0.0)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ce": _cross_entropy,
    "ce_soft": _soft_cross_entropy,
    "plackett_luce": _plackett_luce,
    "pairwise": _pairwise,
}


def is_right(scores: Tensor, ranks: Tensor) -> Tensor:
    """(B,) whether the answer with the highest score is one of the best."""
    chosen = scores.masked_fill(ranks == ABSENT, -torch.inf).argmax(1, keepdim=True)
    return ranks.gather(1, chosen).squeeze(1) == _top(ranks).squeeze(1)


def margins(scores: Tensor, ranks: Tensor) -> Tensor:
    """(B,) the highest score of the best answers minus the highest one of the others."""
    best = ranks == _top(ranks)
    others = (ranks != ABSENT) & ~best
    highest = [scores.float().masked_fill(~mask, -torch.inf).max(1).values for mask in (best, others)]
    return highest[0] - highest[1]
