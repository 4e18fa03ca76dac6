"""Keys of the patch head in vLLM's paged cache: one vector per token, beside its keys and values.

Chunked prompts, prefix hits, preemption and tensor parallelism hold for them as they hold for the rest of
the cache. Of a prompt, only image tokens are ever read; where they are is not known while the layers run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig, get_current_vllm_config
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models.extract_hidden_states import CacheOnlyAttentionBackend, basic_cache
from vllm.v1.kv_cache_interface import KVCacheSpec, MLAAttentionSpec


class PatchKeyCache(nn.Module, AttentionLayerBase):
    """A layer of the cache without attention of its own.

    Args:
        width: E, of a key.
        dtype: of keys.
        name: of the layer, with exactly one number in it.
    """

    def __init__(self, width: int, dtype: torch.dtype, name: str) -> None:
        super().__init__()
        self.width = width
        self.dtype = dtype
        self.name = name
        self.kv_cache = torch.tensor([])  # vLLM puts the real one here: (blocks, 1, block size, E)
        layers = get_current_vllm_config().compilation_config.static_forward_context
        if name in layers:
            raise ValueError(f"expected a layer name of its own, got {name!r} twice")
        layers[name] = self

    def get_attn_backend(self) -> Any:
        """A backend that only stores."""
        return CacheOnlyAttentionBackend

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec:
        """One vector of width E per token."""
        return MLAAttentionSpec(
            block_size=vllm_config.cache_config.block_size,
            num_kv_heads=1,
            head_size=self.width,
            dtype=self.dtype,
        )

    def forward(self, keys: Tensor) -> None:
        """Stores keys (tokens, E) of the tokens of this step."""
        mapping = get_forward_context().slot_mapping
        slots = mapping.get(self.name) if isinstance(mapping, dict) else None
        if slots is None or not self.kv_cache.numel():
            return  # a run without a cache, which measures memory
        count = min(len(slots), len(keys))
        basic_cache(keys[:count].unsqueeze(1).to(self.dtype), self.kv_cache, slots[:count])

    def read(self, block_table: Tensor, columns: Tensor) -> Tensor:
        """Keys (B, P, E) of token positions (B, P) of requests with block numbers (B, blocks)."""
        size = self.kv_cache.shape[2]
        blocks = block_table.gather(1, columns // size)  # (B, P)
        return self.kv_cache[blocks.long(), 0, columns % size]
