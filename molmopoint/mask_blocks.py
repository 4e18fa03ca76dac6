"""Attention of a long prompt without a mask of all queries times all keys.

Queries of one example and branch that are all vision tokens, or all text, see the same keys before and behind
them: they are of one *class*. So a prompt is cut into blocks of consecutive queries, and a block keeps one row
of keys for each class in it, and who sees whom inside the block. A picture is one block without any mask of
its size; of a text the largest one is a block wide.

Letters: B rows, Q queries, S keys; of a block n queries, C classes, and K keys that some query of it sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.integrations.sdpa_attention import repeat_kv

from molmopoint.attention import IN_STEPS, AttentionMask, AttentionRule, additive, prompt_mask

LONG_PROMPT = 1024
"""Queries from which on a mask of all of them is larger than what it saves."""


@dataclass(frozen=True)
class BlockSizes:
    """How a prompt is cut.

    Attributes:
        shortest: least queries of one class that are a block by themselves; shorter runs are joined.
        longest: most queries of a block that needs a mask of its own, a row per query.
    """

    shortest: int
    longest: int


ON_PROCESSOR = BlockSizes(shortest=64, longest=512)
ON_DEVICE = BlockSizes(shortest=1024, longest=2048)
"""Elsewhere a call costs more, and a mask less."""


@dataclass(frozen=True)
class QueryBlock:
    """Consecutive queries and what they see.

    Attributes:
        queries: of the row.
        keys: of the row, outside of which nobody sees anything.
        rows: (B, C, K) True at the keys that queries of a class see.
        classes: (B, n) class of each query, or None: `rows` has one class, and it says all.
        inside: (B, n, n) who sees whom inside the block, where classes do not say it.
    """

    queries: slice
    keys: slice
    rows: Tensor
    classes: Tensor | None
    inside: Tensor | None

    def mask(self, dtype: torch.dtype) -> Tensor:
        """(B, 1, n or 1, K) to add to scores."""
        allowed = self.rows  # (B, 1, K)
        if self.classes is not None and self.inside is not None:
            batch = torch.arange(len(self.rows), device=self.rows.device).unsqueeze(1)  # (B, 1)
            allowed = self.rows[batch, self.classes]  # (B, n, K)
            first = self.queries.start - self.keys.start
            allowed[:, :, first : first + self.inside.shape[1]] = self.inside
        return additive(allowed, dtype).unsqueeze(1)

    def to(self, device: Any, **more: Any) -> QueryBlock:
        """The same block on another device."""
        moved = {}
        for name in ("rows", "classes", "inside"):
            part = getattr(self, name)
            moved[name] = None if part is None else part.to(device, **more)
        return replace(self, **moved)


@dataclass(frozen=True)
class MaskBlocks:
    """All blocks of a prompt, in the order of its queries."""

    blocks: tuple[QueryBlock, ...]

    @classmethod
    def of(cls, rule: AttentionRule, num_queries: int) -> MaskBlocks:
        """Cuts the first `num_queries` keys of a rule into blocks."""
        device = rule.examples.device
        sizes = ON_PROCESSOR if device.type == "cpu" else ON_DEVICE
        # Planned on the processor: a device would have to be asked at every block.
        planned = AttentionRule(rule.examples.cpu(), rule.branches.cpu(), rule.vision.cpu())
        codes = _class_codes(planned)[:, :num_queries]  # (B, Q)
        blocks = []
        for start, end in _cut(codes, planned, sizes):
            blocks.append(_block(planned, codes, start, end).to(device))
        return cls(tuple(blocks))

    def to(self, device: Any, **more: Any) -> MaskBlocks:
        """The same on another device, as layers elsewhere want it."""
        return MaskBlocks(tuple(block.to(device, **more) for block in self.blocks))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """What queries read, block by block.

        Args:
            query: (B, heads, Q, D).
            key: (B, key heads, S, D).
            value: (B, key heads, S, D).
            scale: of the scores.

        Returns:
            (B, Q, heads, D).
        """
        rows, heads, length, width = query.shape
        key, value = (repeat_kv(part, heads // part.shape[1]) for part in (key, value))
        attended = query.new_empty(rows, length, heads, width)
        for block in self.blocks:
            of_block = functional.scaled_dot_product_attention(
                query[:, :, block.queries],
                key[:, :, block.keys],
                value[:, :, block.keys],
                attn_mask=block.mask(query.dtype),
                scale=scale,
            )
            attended[:, block.queries] = of_block.transpose(1, 2)
        return attended


def text_mask(
    rule: AttentionRule, num_queries: int, implementation: str, dtype: torch.dtype
) -> AttentionMask | MaskBlocks:
    """The mask of a prompt for the faster blocks of the text model: made once, read by every layer.

    Args:
        rule: of all keys; the queries are the first `num_queries` of them.
        num_queries: Q.
        implementation: attention of the text model.
        dtype: of the hidden states.

    Returns:
        As `prompt_mask`; but where SDPA computes, numbers to add, (B, 1, Q, S), which it would make of booleans
        in every layer; and blocks for a long prompt of which no gradient is wanted.
    """
    is_sdpa = implementation == "sdpa" or implementation.endswith(IN_STEPS)
    if is_sdpa and num_queries >= LONG_PROMPT and not torch.is_grad_enabled():
        return MaskBlocks.of(rule, num_queries)
    mask = prompt_mask(rule, num_queries, implementation, dtype)
    if not is_sdpa or not isinstance(mask, Tensor):
        return mask
    kind = mask.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    return additive(mask, dtype)


def _class_codes(rule: AttentionRule) -> Tensor:
    """(B, S) one number for every mix of example, branch and kind of token."""
    branches = rule.branches + 1
    return ((rule.examples + 1) * (branches.max() + 1) + branches) * 2 + rule.vision.long()


def _cut(codes: Tensor, rule: AttentionRule, sizes: BlockSizes) -> Iterator[tuple[int, int]]:
    """Start and end of every block."""
    changes = (codes[:, 1:] != codes[:, :-1]).any(0).nonzero().flatten() + 1
    bounds = [0, *changes.tolist(), codes.shape[1]]
    pending = 0
    for start, end in itertools.pairwise(bounds):
        if end - start < sizes.shortest:
            continue  # joins its neighbours
        yield from _pieces(pending, start, sizes.longest)
        is_uniform = _sees_all_inside(rule, start)
        yield from _pieces(start, end, end - start if is_uniform else sizes.longest)
        pending = end
    yield from _pieces(pending, codes.shape[1], sizes.longest)


def _pieces(start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    for first in range(start, end, max(longest, 1)):
        yield first, min(first + longest, end)


def _sees_all_inside(rule: AttentionRule, query: int) -> bool:
    """Whether queries of the class that every row has there see each other in both directions."""
    return bool((rule.vision[:, query] & (rule.examples[:, query] >= 0)).all())


def _block(rule: AttentionRule, codes: Tensor, start: int, end: int) -> QueryBlock:
    """One block; `rule` has all keys, `codes` (B, Q) the classes of the queries."""
    keys = torch.arange(rule.examples.shape[1])  # (S,)
    batch = torch.arange(len(codes))[:, None, None]  # (B, 1, 1)
    own = codes[:, start:end]  # (B, n)
    is_one = bool((own == own[:, :1]).all()) and _sees_all_inside(rule, start)
    if is_one:
        seen = rule.allows(batch, torch.tensor(start), keys)  # (B, 1, S)
        visible = seen.any(0).any(0).nonzero().flatten()
        first, last = int(visible[0]), int(visible[-1]) + 1
        return QueryBlock(slice(start, end), slice(first, last), seen[:, :, first:last].clone(), None, None)

    # Any query may stand for its class: what they see differently lies inside the block.
    stands_for = [row.unique(return_inverse=True) for row in own]
    most = max(len(values) for values, _ in stands_for)
    examples = torch.zeros(len(codes), most, dtype=torch.long)  # (B, C)
    classes = torch.stack([inverse for _, inverse in stands_for])  # (B, n)
    examples.scatter_(1, classes, torch.arange(start, end).expand_as(classes))
    examples = torch.where(examples == 0, start, examples)
    seen = rule.allows(batch, examples.unsqueeze(-1), keys)  # (B, C, S)
    queries = keys[start:end]
    inside = rule.allows(batch, queries[:, None], queries)  # (B, n, n)
    seen[:, :, start:end] = inside.any(1, keepdim=True)
    visible = seen.any(0).any(0).nonzero().flatten()
    first, last = min(int(visible[0]), start), max(int(visible[-1]) + 1, end)
    return QueryBlock(slice(start, end), slice(first, last), seen[:, :, first:last].clone(), classes, inside)
