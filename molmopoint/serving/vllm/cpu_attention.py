"""Attention on a processor in which image tokens see each other, in plain torch over vLLM's paged cache.

vLLM's own attention on processors is causal everywhere. On GPUs its backends join the tokens of a picture
themselves. This one is for tests and for small models.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend


def use_block_attention() -> None:
    """Puts this backend in the place of vLLM's, in the process that is about to build the network."""
    register_backend(AttentionBackendEnum.CPU_ATTN, f"{__name__}.BlockAttentionBackend")


@dataclass
class BlockMetadata(CPUAttentionMetadata):
    """What a step says of its rows.

    Attributes:
        pictures: by row, the (first, last) tokens of pictures.
    """

    pictures: dict[int, list[tuple[int, int]]] | None = None


class BlockAttentionBackend(CPUAttentionBackend):
    """See the module."""

    @classmethod
    def supports_mm_prefix(cls) -> bool:
        """Yes."""
        return True

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        """All of them."""
        return []

    @staticmethod
    def get_impl_cls() -> type[CPUAttentionBackendImpl]:
        """What computes."""
        return BlockAttention

    @staticmethod
    def get_builder_cls() -> type[CPUAttentionMetadataBuilder]:
        """What describes a step."""
        return BlockMetadataBuilder


class BlockMetadataBuilder(CPUAttentionMetadataBuilder):
    """Describes a step."""

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> BlockMetadata:
        """What a step says of its rows."""
        step = common_attn_metadata
        return BlockMetadata(
            num_actual_tokens=step.num_actual_tokens,
            max_query_len=step.max_query_len,
            query_start_loc=step.query_start_loc,
            max_seq_len=step.max_seq_len,
            seq_lens=step.seq_lens,
            block_table=step.block_table_tensor,
            slot_mapping=step.slot_mapping,
            scheduler_metadata=None,
            pictures=step.mm_req_doc_ranges,
        )


class BlockAttention(CPUAttentionBackendImpl):
    """Rows one by one."""

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Stores keys and values (tokens, heads, width) side by side at their slots."""
        size, width = kv_cache.shape[2], self.head_size
        keep = slot_mapping >= 0
        slots = slot_mapping[keep].long()
        for first, part in ((0, key), (width, value)):
            stored = part[: len(keep)][keep].view(-1, self.num_kv_heads, width)
            kv_cache[slots // size, :, slots % size, first : first + width] = stored.to(kv_cache.dtype)

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: BlockMetadata | None,
        output: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Writes the attention of all rows into `output` (tokens, heads * width)."""
        if attn_metadata is None:
            return output
        starts, lengths = attn_metadata.query_start_loc.tolist(), attn_metadata.seq_lens.tolist()
        pictures = attn_metadata.pictures or {}
        for row, (begin, end) in enumerate(pairwise(starts)):
            if begin == end:
                continue
            total = lengths[row]
            mask = _mask(total, end - begin, pictures.get(row) or [])
            keys, values = self._cached(kv_cache, attn_metadata.block_table[row], total)
            queries = query[begin:end].view(end - begin, -1, self.head_size).transpose(0, 1)
            seen = functional.scaled_dot_product_attention(
                queries[None], keys[None], values[None], attn_mask=mask, scale=self.scale
            )[0]
            output[begin:end] = seen.transpose(0, 1).reshape(end - begin, *output.shape[1:])
        return output

    def _cached(self, kv_cache: Tensor, blocks: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Keys and values (heads, total, width) of a row, repeated for the queries that share them."""
        size = kv_cache.shape[2]
        here = kv_cache[blocks[: -(-total // size)].long()]  # (blocks, heads, size, 2 * width)
        both = here.transpose(0, 1).reshape(self.num_kv_heads, -1, 2 * self.head_size)[:, :total]
        both = both.repeat_interleave(self.num_queries_per_kv, 0)
        keys, values = both.split(self.head_size, -1)
        return keys, values


def _mask(total: int, queries: int, pictures: list[tuple[int, int]]) -> Tensor:
    """(queries, total) True where the last `queries` tokens of a row look: back, and all over their picture."""
    places = torch.arange(total)
    group = torch.full((total,), -1)
    for number, (first, last) in enumerate(pictures):
        group[first : min(last + 1, total)] = number
    own = places[total - queries :]
    is_before = places <= own.unsqueeze(1)
    is_same = (group[own].unsqueeze(1) == group) & (group >= 0)
    return is_before | is_same
