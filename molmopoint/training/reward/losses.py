"""What a reward model learns from: scores of the answers to one request, and how good each of them is.

| loss | of one row |
| --- | --- |
| ce | cross-entropy of "which is best", as published; of tied best answers one is drawn beforehand |
| ce_soft | the same with the tied best answers sharing the mass |
| plackett_luce | negative log-likelihood of the whole ranking: rank by rank, each answer against all that are no better |
| pairwise | mean of -log sigmoid(better - worse) over all pairs of different rank |

With two answers and no tie all four are Bradley-Terry, -log sigmoid(better - worse). All are unchanged when a
constant is added to the scores of a row. Ties in `plackett_luce` are grouped as Breslow (1974) does: tied
answers are all held against the same rest, themselves included; the last group has nothing below it and no
term.

Letters: B rows, N answers per row (padded).

Source: arXiv 2604.10966 and its public code for `ce`; the others are ours.

What a run of a reward model reports: loss, accuracy, margin and the range of scores, summed on the device
between two lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from molmopoint.training.metrics import RunningSums

ABSENT = 0
"""Rank of a place without an answer; ranks of answers count from 1."""


def reward_losses(kind: str, scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    """The loss of each row, float32.

    Args:
        kind: a key of `LOSSES`.
        scores: (B, N); whatever stands at absent answers counts for nothing and gets no gradient.
        ranks: (B, N) 1 is best, ties share a rank; 0 where there is no answer. Each row has answers of two or
            more ranks.
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
    tied = ranks == _top(ranks)  # (B, N)
    log_shares = scores.log_softmax(1).masked_fill(ranks == ABSENT, 0.0)
    of_tied = log_shares.masked_fill(~tied, 0.0)
    return -of_tied.sum(1) / tied.sum(1)


def _plackett_luce(scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    present = ranks != ABSENT  # (B, N)
    no_better = ranks[:, None, :] >= ranks[:, :, None]  # (B, answer, held against)
    rest = no_better & present[:, None, :]
    last_rank = ranks.max(1, keepdim=True).values
    has_term = present & (ranks < last_rank)

    # Places without a term see their own row whole, so that no sum is empty.
    seen = rest | ~has_term[:, :, None]
    against = scores[:, None, :].masked_fill(~seen, -torch.inf).logsumexp(2)  # (B, N)
    return (against - scores).masked_fill(~has_term, 0.0).sum(1)


def _pairwise(scores: Tensor, ranks: Tensor, best: Tensor) -> Tensor:
    present = ranks != ABSENT  # (B, N)
    both_present = present[:, :, None] & present[:, None, :]
    is_better = ranks[:, :, None] < ranks[:, None, :]  # (B, better, worse)
    ordered = is_better & both_present

    finite = scores.masked_fill(~present, 0.0)
    leads = finite[:, :, None] - finite[:, None, :]
    losses = -functional.logsigmoid(leads)
    return losses.masked_fill(~ordered, 0.0).sum((1, 2)) / ordered.sum((1, 2))


def _top(ranks: Tensor) -> Tensor:
    """(B, 1) the best rank of each row."""
    return ranks.masked_fill(ranks == ABSENT, torch.iinfo(ranks.dtype).max).min(1, keepdim=True).values


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
    best = ranks == _top(ranks)  # (B, N)
    others = (ranks != ABSENT) & ~best
    scores = scores.float()
    of_best = scores.masked_fill(~best, -torch.inf).max(1).values
    of_others = scores.masked_fill(~others, -torch.inf).max(1).values
    return of_best - of_others


_SUMS = ("loss", "bad", "right", "margin", "lowest", "mean", "highest", "text")
_COUNTS = ("rows", "tokens", "places", "crops")


class RewardMetrics:
    """What a run that learns to judge reports.

    Args:
        device: where the sums live.
    """

    def __init__(self, device: torch.device) -> None:
        self._running = RunningSums(device, dict.fromkeys(_SUMS, 1), _COUNTS)

    def start(self) -> None:
        """Starts a line."""
        self._running.start()

    def count(self, batch: Mapping[str, Any]) -> None:
        """Counts a batch while it is on the host."""
        counts = self._running.counts
        mask = batch["attention_mask"]  # (B, S)
        crops = batch.get("pixel_values")
        counts["rows"] += len(mask)
        counts["tokens"] += float(mask.sum())
        counts["places"] += mask.numel()
        if crops is not None:
            counts["crops"] += len(crops)

    @torch.no_grad()
    def add(
        self,
        scores: Tensor,
        ranks: Tensor,
        losses: Tensor,
        divisor: Tensor,
        text_losses: Tensor | None = None,
    ) -> None:
        """Adds a micro-step.

        Args:
            scores: (B, N).
            ranks: (B, N) 0 where there is no answer.
            losses: (B,).
            divisor: rows of the step, of all processes and micro-steps.
            text_losses: (B,) of the words of an answer, if they are learned.
        """
        sums = self._running.sums
        absent = ranks == ABSENT
        of_scores = losses.sum()
        everything = of_scores
        if text_losses is not None:
            of_words = text_losses.sum()
            everything = of_scores + of_words
            sums["text"] += of_words
        sums["loss"] += of_scores / divisor
        sums["bad"] += (~torch.isfinite(everything)).float()
        sums["right"] += is_right(scores, ranks).float().sum()
        sums["margin"] += margins(scores, ranks).sum()

        sums["lowest"] += scores.masked_fill(absent, torch.inf).min(1).values.sum()
        sums["highest"] += scores.masked_fill(absent, -torch.inf).max(1).values.sum()
        means = scores.masked_fill(absent, 0.0).sum(1) / (~absent).sum(1)  # (B,)
        sums["mean"] += means.sum()

    def line(self, steps: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The figures since the last line, of all processes; starts anew.

        Args:
            steps: made since then.
            reduce: sum over processes.

        Returns:
            "loss" (of the scores), "text_loss" (of the words of an answer, 0 unless they are learned), "bad"
            (micro-steps without a finite loss), "top1_accuracy", "margin" (best answer minus the best of the
            others), "min_reward", "mean_reward" and "max_reward" of a list, "fill/tokens", and rows, tokens,
            crops and steps per second.
        """
        sums, seconds = self._running.close(reduce)
        total = {name: value for name, (value,) in sums.items()}
        rows = max(total["rows"], 1.0)
        line = {
            "loss": total["loss"] / max(steps, 1),
            "bad": total["bad"],
            "text_loss": total["text"] / rows,
            "top1_accuracy": total["right"] / rows,
            "margin": total["margin"] / rows,
            "min_reward": total["lowest"] / rows,
            "mean_reward": total["mean"] / rows,
            "max_reward": total["highest"] / rows,
            "fill/tokens": total["tokens"] / max(total["places"], 1.0),
            "steps_per_s": steps / seconds,
        }
        for name in ("rows", "tokens", "crops"):
            line[f"{name}_per_s"] = total[name] / seconds
        return line
