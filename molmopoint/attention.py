"""Who may look at whom, and which backend computes it.

Letters: B rows, Q queries, S keys.

A query sees a key iff both belong to the same example, the key lies in the trunk or in the query's branch,
and the key is not later or both are vision tokens. The mask is always made here and handed on, so that no
backend guesses packing from positions that restart.

Flash attention takes no such mask: it would look causally without a word. It is quick in steps of one token,
which see every key that is not padding. So in the config of a text model its name becomes that of an
attention of ours, which lets SDPA compute what has a mask and flash attention the steps (`flash_in_steps`).
This happens where the name is chosen; no pass changes a config, which all threads share.

What transformers calls the cache of keys and values: `past_key_values` up to 5.23, `cache` from 5.24 on.
Our own forward passes take either name; calls into transformers use the one it knows: `layer(hidden,
**{CACHE: cache})`.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.integrations.flash_attention import get_target_dtype
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask, sdpa_mask
from transformers.modeling_flash_attention_utils import _flash_attention_forward
from transformers.models.molmo2.modeling_molmo2 import Molmo2TextModel

CACHE: Final = (
    "cache" if "cache" in inspect.signature(Molmo2TextModel.forward).parameters else "past_key_values"
)

IN_STEPS: Final = ":steps"
"""Behind the name of a flash attention: it computes steps of one token, and SDPA all else."""

QUERIES_PER_PASS = 2048
"""Rows of a mask that are made at a time: of a long clip, each intermediate result would take a gigabyte."""

AttentionMask = Tensor | BlockMask | None
"""What the layers take: (B, 1, Q, S) of booleans or of numbers to add, (B, S) for flash attention, or that of
flex attention.
"""


def either(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache, whichever of its two names it was passed under; the older one is told to be deprecated where
    it is.

    Raises:
        ValueError: two different caches.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ValueError(
            "expected one cache, got two; `cache` and `past_key_values` are names of the same argument"
        )
    if past_key_values is not None and CACHE == "cache":
        tell_deprecated()
    return past_key_values if cache is None else cache


def to_cache_length(values: Tensor, cache: Cache | None, fill: int | bool) -> Tensor:
    """Pads (B, S) key properties to the length of a static cache, whose slots behind the prompt are still
    empty.
    """
    if cache is None or not cache.is_compileable:
        return values
    length, _ = cache.get_mask_sizes(values.shape[1], 0)
    return functional.pad(values, (0, length - values.shape[1]), value=fill)


@functools.cache
def tell_deprecated() -> None:
    """Says that the older name goes away: once, and past filters, because after its removal calls with it
    fail.
    """
    message = FutureWarning(
        "`past_key_values` is deprecated and will be removed in transformers 5.40; pass the cache as `cache`"
    )
    warnings.showwarning(message, FutureWarning, __file__, either.__code__.co_firstlineno)


def attention_of(config: PreTrainedConfig) -> str:
    """Name of the attention that the layers of a text model use."""
    return config._attn_implementation or "sdpa"


def is_flash(implementation: str) -> bool:
    """Whether this is a flash attention, in steps or everywhere."""
    return "flash" in implementation


def flash_in_steps(implementation: str) -> str:
    """The attention for the config of a text model: that of a flash attention which leaves masks to SDPA; any
    other one is as given.

    Args:
        implementation: name that transformers knows, such as "flash_attention_2". It must be available.

    Returns:
        A name that transformers knows from now on, for the layers and for the masks that it makes itself.
    """
    if not is_flash(implementation) or implementation.endswith(IN_STEPS):
        return implementation
    name = implementation + IN_STEPS
    AttentionInterface.register(name, functools.partial(_attend, flash=implementation))
    AttentionMaskInterface.register(name, _native_mask)
    return name


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    flash: str,
    **more: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as the layers call it: SDPA, but flash attention for one query per row that sees all keys
    which are not padding.

    Args:
        module: the layer's attention.
        query: (B, heads, Q, width).
        key: (B, key heads, S, width).
        value: (B, key heads, S, width).
        attention_mask: (B, 1, Q, S), or (B, S) True at keys that are seen, or None.
        dropout: of the attention weights.
        scaling: of the scores.
        flash: name of the flash attention.
        **more: what transformers hands on to any attention.

    Returns:
        (B, Q, heads, width), and no attention weights.
    """
    has_block_mask = attention_mask is not None and attention_mask.ndim == 4
    if has_block_mask or query.shape[2] > 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    # transformers' own wrapper would read the name from the config, where ours stands.
    attended = _flash_attention_forward(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attention_mask,
        query_length=1,
        is_causal=False,  # the only query is the last token
        dropout=dropout,
        softmax_scale=scaling,
        target_dtype=get_target_dtype(query, module),
        attn_implementation=flash,
        **more,
    )
    return attended, None


def _native_mask(*, q_length: int, **more: Any) -> Tensor | None:
    """The mask that a native model, which makes its own ones, needs for `_attend`."""
    make_mask = flash_attention_mask if q_length == 1 else sdpa_mask
    return make_mask(q_length=q_length, **more)


@dataclass(frozen=True)
class AttentionRule:
    """The predicate, as one integer per property of a key. Queries are the first Q keys; a static cache has
    empty ones behind.

    Attributes:
        examples: (B, S) packed example, -1 for padding.
        branches: (B, S) branch inside the example, -1 for the shared trunk.
        vision: (B, S) True at vision tokens.
    """

    examples: Tensor
    branches: Tensor
    vision: Tensor

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether queries see keys; indices that broadcast together. Padding sees itself, so that no softmax
        is empty.
        """
        query_example, key_branch = self.examples[row, query], self.branches[row, key]
        same_example = (query_example == self.examples[row, key]) & (query_example >= 0)
        in_branch = (key_branch < 0) | (key_branch == self.branches[row, query])
        not_later = (key <= query) | (self.vision[row, query] & self.vision[row, key])
        return (same_example & in_branch & not_later) | (key == query)


def prompt_mask(
    rule: AttentionRule, num_queries: int, implementation: str, dtype: torch.dtype
) -> Tensor | BlockMask:
    """The mask of a pass over many tokens, in the form the attention backend reads.

    Args:
        rule: of all keys; the queries are the first `num_queries` of them.
        num_queries: Q.
        implementation: attention of the text model, see `attention_of`.
        dtype: of the hidden states; eager masks are additive.

    Returns:
        (B, 1, Q, S) boolean (True = may look), additive for eager, or a block mask for flex.

    Raises:
        ValueError: a flash attention that would not look at the mask.
    """
    if is_flash(implementation) and not implementation.endswith(IN_STEPS):
        raise ValueError(
            f"expected an attention that honours masks in the text model, got {implementation!r}, which "
            "would look causally; "
            f"choose {flash_in_steps(implementation)!r} for it"
        )
    rows, keys = rule.examples.shape
    device = rule.examples.device
    if implementation == "flex_attention":

        def allows(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return rule.allows(row, query, key)

        return create_block_mask(
            allows, rows, None, num_queries, keys, device=device, _compile=device.type == "cuda"
        )
    key = torch.arange(keys, device=device)  # (S,)
    row = torch.arange(rows, device=device)[:, None, None]  # (B, 1, 1)
    allowed = torch.empty(rows, 1, num_queries, keys, dtype=torch.bool, device=device)  # (B, 1, Q, S)
    for start in range(0, num_queries, QUERIES_PER_PASS):
        queries = slice(start, min(start + QUERIES_PER_PASS, num_queries))
        allowed[:, 0, queries] = rule.allows(row, key[queries, None], key[None, :])
    if implementation == "eager":
        return additive(allowed, dtype)
    return allowed


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean mask as numbers to add to attention scores."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def step_mask(key_mask: Tensor | None, past: Cache, implementation: str, dtype: torch.dtype) -> AttentionMask:
    """The mask of one new token per row over a cache: every real token so far.

    Args:
        key_mask: (B, >= keys) True at real tokens, or None when no row is padded.
        past: the cache; a static one holds slots that are not filled yet.
        implementation: attention of the text model, see `attention_of`.
        dtype: of the hidden states.

    Returns:
        None where every key is seen, a (B, keys) mask for flash attention, else (B, 1, 1, keys).
    """
    length, start = past.get_mask_sizes(1, 0)
    seen: Tensor | None = None  # (B or 1, keys)
    if past.is_compileable:
        newest = past.get_query_offset(0)
        device = None
        if isinstance(newest, Tensor):
            device = newest.device
        elif key_mask is not None:
            device = key_mask.device
        seen = (torch.arange(length, device=device) + start <= newest).unsqueeze(0)
    if key_mask is not None:
        real = key_mask[:, start : start + length]
        if real.shape[1] < length:
            real = functional.pad(real, (0, length - real.shape[1]), value=False)
        seen = real if seen is None else seen & real
    if seen is None or is_flash(implementation):
        return seen
    if implementation == "flex_attention":
        keys = seen

        def allows(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return keys[row, key]

        return create_block_mask(allows, len(keys), None, 1, length, device=keys.device, _compile=False)
    allowed = seen[:, None, None, :]  # (B, 1, 1, keys)
    if implementation == "eager":
        return additive(allowed, dtype)
    return allowed
