"""Reading a pass: which states of an answer are scored, what its words cost, and pictures that were seen before.

Letters: B rows, S tokens, N answers per row (padded), H text width, P image tokens of the call.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from molmopoint.connector import VisualFeatures
from molmopoint.reward.settings import Pooling


def pool_answers(hidden: Tensor, places: Tensor, starts: Tensor | None, pooling: Pooling) -> Tensor:
    """Vectors (B, N, H or 2 H) of the answers; those of answers that are not there are any.

    Args:
        hidden: (B, S, H).
        places: (B, N) token at which each answer is read, the last one of it and the glue behind it.
        starts: (B, N) token at which each answer begins; None will do for "last".
        pooling: of `RewardSettings`.
    """
    if pooling == "last" or starts is None:
        return _at(hidden, places)
    if pooling == "response_mean":
        token = torch.arange(hidden.shape[1], device=hidden.device)
        inside = (token >= starts.unsqueeze(-1)) & (token <= places.unsqueeze(-1))
        weights = inside.float() / inside.sum(-1, keepdim=True).clamp(min=1)
        return weights @ hidden.float()
    first, last = _at(hidden, starts), _at(hidden, places)
    if pooling == "first":
        return first
    if pooling == "first_last_concat":
        return torch.cat([first, last], -1)
    return last + first if pooling == "first_last_add" else last - first


def text_losses_of(
    head: Callable[[Tensor], Tensor], hidden: Tensor, input_ids: Tensor, position_ids: Tensor, first: Tensor, last: Tensor
) -> Tensor:
    """(B,) float32 mean cross-entropy of the tokens from `first` to `last` (B, 1) that follow the one before them in the row.

    In block attention only the first answer stands right behind the prompt; the first tokens of the others are not predicted.

    Args:
        head: output table, from states to logits.
        hidden: (B, S, H).
        input_ids: (B, S).
        position_ids: (B, S).
        first: (B, 1) first token of the words of an answer.
        last: (B, 1) its last token.
    """
    ids, positions = input_ids.to(hidden.device), position_ids.to(hidden.device)
    token = torch.arange(1, ids.shape[1], device=hidden.device)
    wanted = (token >= first) & (token <= last) & (positions[:, 1:] == positions[:, :-1] + 1)
    logits = head(hidden[:, :-1][wanted]).float()
    losses = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    row = torch.arange(len(ids), device=losses.device).unsqueeze(1).expand_as(wanted)[wanted]
    return torch.zeros(len(ids), device=losses.device).index_add(0, row, losses) / wanted.sum(1).clamp(min=1)


def seen_before(image_features: Tensor, width: int) -> VisualFeatures:
    """Features (P, H) of image tokens as the backbone takes them. ViT features, which only selections need, are left out.

    Args:
        image_features: (P, H).
        width: of the ViT features.
    """
    table = torch.full((len(image_features), 1), -1, dtype=torch.long, device=image_features.device)
    return VisualFeatures(image_features.new_zeros(1, width), image_features, table, len(image_features), (1, 0))


def check_places(input_ids: Tensor, positions: Tensor, others: Tensor | None, *, needed: bool, name: str) -> None:
    """Refuses places that do not fit the rows.

    Args:
        input_ids: (B, S).
        positions: (B, N) at which answers are read.
        others: (B, N) other places of the same answers.
        needed: whether there must be others.
        name: of the others, for the message.

    Raises:
        ValueError: positions of another shape or outside the row, or others missing or of another shape.
    """
    if positions.ndim != 2 or len(positions) != len(input_ids):
        raise ValueError(f"expected response_positions (rows, answers) for {len(input_ids)} rows, got {tuple(positions.shape)}")
    if others is None and needed:
        reason = "the words of an answer" if name == "response_words" else "this pooling"
        raise ValueError(f"expected {name} for {reason}, got none; use those of `collate`")
    if others is not None and others.shape != positions.shape:
        raise ValueError(f"expected {name} of shape {tuple(positions.shape)}, got {tuple(others.shape)}")
    if positions.device.type == "cpu" and positions.numel():  # on a GPU the look would wait for it
        low, high, length = int(positions.min()), int(positions.max()), input_ids.shape[1]
        if low < -1 or high >= length:
            raise ValueError(f"expected response_positions in -1..{length - 1}, got {low}..{high}; pass those of the same rows")


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    """States (B, N, H) at places (B, N); those of absent answers are any."""
    return hidden.gather(1, places.clamp(min=0).unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
