"""Who may look at whom.

Letters: B rows, Q queries, S keys.

A query sees a key iff both belong to the same example, the key lies in the trunk or in the query's branch, and the key is not
later or both are vision tokens. The mask is always made here and handed on, so that no backend guesses packing from
positions that restart.

What transformers calls the cache of keys and values: `past_key_values` up to 5.23, `cache` from 5.24 on.

Our own forward passes take either name; calls into transformers use the one it knows: `layer(hidden, **{CACHE: cache})`.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.molmo2.modeling_molmo2 import Molmo2TextModel

CACHE: Final = "cache" if "cache" in inspect.signature(Molmo2TextModel.forward).parameters else "past_key_values"


def either(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache, whichever of its two names it was passed under; the older one is told to be deprecated where it is.

    Raises:
        ValueError: two different caches.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ValueError("expected one cache, got two; `cache` and `past_key_values` are names of the same argument")
    if past_key_values is not None and CACHE == "cache":
        tell_deprecated()
    return past_key_values if cache is None else cache


@functools.cache
def tell_deprecated() -> None:
    """Says that the older name goes away: once, and past filters, because after its removal calls with it fail."""
    message = FutureWarning("`past_key_values` is deprecated and will be removed in transformers 5.40; pass the cache as `cache`")
    warnings.showwarning(message, FutureWarning, __file__, inspect.currentframe().f_lineno)  # type: ignore[union-attr]


FLASH_PREFIX = "flash_attention"

QUERIES_PER_PASS = 2048
"""Rows of a mask that are made at a time: of a long clip, each intermediate result would take a gigabyte."""


@dataclass(frozen=True)
class AttentionRule:
    """The predicate, as one integer per property of a key. Queries are the first Q keys; a static cache has empty ones behind.

    Attributes:
        examples: (B, S) packed example, -1 for padding.
        branches: (B, S) branch inside the example, -1 for the shared trunk.
        vision: (B, S) True at vision tokens.
    """

    examples: Tensor
    branches: Tensor
    vision: Tensor

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether queries see keys; indices that broadcast together. Padding sees itself, so that no softmax is empty."""
        query_example, key_branch = self.examples[row, query], self.branches[row, key]
        same = (query_example == self.examples[row, key]) & (query_example >= 0)
        branch = (key_branch < 0) | (key_branch == self.branches[row, query])
        order = (key <= query) | (self.vision[row, query] & self.vision[row, key])
        return (same & branch & order) | (key == query)


def prompt_mask(rule: AttentionRule, num_queries: int, implementation: str, dtype: torch.dtype) -> Any:
    """The mask of a pass over many tokens, in the form the attention backend reads.

    Args:
        rule: of all keys; the queries are the first `num_queries` of them.
        num_queries: Q.
        implementation: "sdpa", "eager" or "flex_attention".
        dtype: of the hidden states; eager masks are additive.

    Returns:
        (B, 1, Q, S) boolean (True = may look), additive for eager, or a block mask for flex.
    """
    rows, keys = rule.examples.shape
    device = rule.examples.device
    if implementation == "flex_attention":
        return create_block_mask(
            lambda b, h, q, k: rule.allows(b, q, k), rows, None, num_queries, keys, device=device, _compile=device.type == "cuda"
        )
    key = torch.arange(keys, device=device)
    row = torch.arange(rows, device=device)[:, None, None]
    allowed = torch.empty(rows, 1, num_queries, keys, dtype=torch.bool, device=device)
    for start in range(0, num_queries, QUERIES_PER_PASS):
        queries = slice(start, min(start + QUERIES_PER_PASS, num_queries))
        allowed[:, 0, queries] = rule.allows(row, key[queries, None], key[None, :])
    return additive(allowed, dtype) if implementation == "eager" else allowed


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean mask as numbers to add to attention scores."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def step_mask(key_mask: Tensor | None, past: Cache, implementation: str, dtype: torch.dtype) -> Any:
    """The mask of one new token per row over a cache: every real token so far.

    Args:
        key_mask: (B, >= keys) True at real tokens, or None when no row is padded.
        past: the cache; a static one holds slots that are not filled yet.
        implementation: attention backend.
        dtype: of the hidden states.

    Returns:
        None where every key is seen, a (B, keys) mask for flash attention, else (B, 1, 1, keys).
    """
    length, start = past.get_mask_sizes(1, 0)
    filled = None
    if past.is_compileable:
        seen = past.get_query_offset(0)
        device = seen.device if isinstance(seen, Tensor) else (key_mask.device if key_mask is not None else None)
        filled = (torch.arange(length, device=device) + start <= seen).unsqueeze(0)
    if key_mask is not None:
        keys = key_mask[:, start : start + length]
        if keys.shape[1] < length:
            keys = torch.nn.functional.pad(keys, (0, length - keys.shape[1]), value=False)
        filled = keys if filled is None else filled & keys
    if filled is None:
        return None
    if implementation.startswith(FLASH_PREFIX):
        return filled
    filled = filled[:, None, None, :]
    if implementation == "flex_attention":
        return create_block_mask(lambda b, h, q, k: filled[b, 0, 0, k], len(filled), None, 1, length, device=filled.device, _compile=False)
    return additive(filled, dtype) if implementation == "eager" else filled


def recomputes_activations(model: nn.Module) -> bool:
    """Whether some layer of a model in training computes its activations a second time instead of keeping them.

    transformers calls this property by different names in its versions; the flag on the layers is the same in all.
    """
    return model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@contextmanager
def honouring_mask(config: PreTrainedConfig, recomputed: bool = False) -> Iterator[str]:
    """Backend for passes with a block mask: flash attention would silently look causally, so SDPA stands in for it.

    Args:
        config: of the text model, which reads the backend from it.
        recomputed: whether layers run again in the backward pass, after this block: then SDPA stays.
    """
    wanted = config._attn_implementation or "sdpa"
    config._attn_implementation = "sdpa" if wanted.startswith(FLASH_PREFIX) else wanted
    try:
        yield config._attn_implementation
    finally:
        if not recomputed:
            config._attn_implementation = wanted
