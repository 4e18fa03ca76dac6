"""The blocks of the native text model, run with fewer kernels.

`run_faster` changes what class the blocks of a `Molmo2TextModel` are of: parameters, names and results stay
those of transformers (in float32 to the last bits), and whoever hooks, shards, quantises or adapts modules
finds the same ones. What is saved, per block and token, is most of the time of a small model on a CPU and
half of the kernels on a GPU:

- a norm is one kernel in place of six;
- the sign of the rotation is part of its table, which all layers share;
- one query per row meets the keys of its group without the detour over the registry of attentions;
- keys and values grow in place (`give_room`), where transformers copies all of them at every token.

Letters: B rows, S tokens of the call, H width, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.molmo2.modeling_molmo2 import (
    Molmo2Attention,
    Molmo2DecoderLayer,
    Molmo2RMSNorm,
    Molmo2RotaryEmbedding,
    Molmo2TextModel,
    eager_attention_forward,
)

from molmopoint.heads.norm import rms_norm
from molmopoint.mask_blocks import MaskBlocks

ROOM = 128
"""Tokens that keys and values can grow by before they are copied."""


def run_faster(text: Molmo2TextModel) -> None:
    """Lets the blocks of a text model run as the classes of this module.

    A class says only how a block runs, and these have no state of their own; to build blocks anew would draw
    random weights twice, which a seed would show.
    """
    faster = {
        Molmo2DecoderLayer: DecoderLayer,
        Molmo2Attention: Attention,
        Molmo2RMSNorm: RMSNorm,
        Molmo2RotaryEmbedding: RotaryEmbedding,
    }
    for module in text.modules():
        if type(module) in faster:
            module.__class__ = faster[type(module)]


class RMSNorm(Molmo2RMSNorm):
    """The native norm as one kernel."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalises (..., H) to (..., H)."""
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)


class RotaryEmbedding(Molmo2RotaryEmbedding):
    """The native angles, with a minus in the first half of the sines: so a rotation needs no negation."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (B, S, D) of positions (B, S), in the dtype of `x`."""
        cos, sin = super().forward(x, position_ids)
        half = sin.shape[-1] // 2
        sin[..., :half].neg_()
        return cos, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (i, i + D/2) of heads.

    Args:
        x: (B, heads, S, D).
        cos: (B, 1, S, D).
        sin: (B, 1, S, D) negative in its first half.
    """
    first, second = x.chunk(2, dim=-1)
    swapped = torch.cat((second, first), dim=-1)
    return torch.addcmul(x * cos, swapped, sin)


class Attention(Molmo2Attention):
    """The native attention, whose steps of one token go straight to SDPA."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | MaskBlocks | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from (B, S, H) to all keys so far.

        Args:
            hidden_states: (B, S, H).
            position_embeddings: cosines and signed sines (B, S, D), see `RotaryEmbedding`.
            attention_mask: as the attention of the config reads it, or the blocks of a long prompt.
            cache: keys and values so far, to which those of the call are added.
            past_key_values: the same under its older name.
            **kwargs: for the attention.

        Returns:
            (B, S, H), and the attention weights of backends that keep some.
        """
        rows, length, _ = hidden_states.shape
        by_head = (rows, length, -1, self.head_dim)
        query, key = self.q_proj(hidden_states), self.k_proj(hidden_states)
        value = self.v_proj(hidden_states).view(by_head).transpose(1, 2)  # (B, key heads, S, D)
        if self.qk_norm_type == "qwen3":
            query, key = self.q_norm(query.view(by_head)), self.k_norm(key.view(by_head))
        else:
            query, key = self.q_norm(query).view(by_head), self.k_norm(key).view(by_head)

        cos, sin = position_embeddings
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (B, 1, S, D)
        query = rotate(query.transpose(1, 2), cos, sin)  # (B, heads, S, D)
        key = rotate(key.transpose(1, 2), cos, sin)  # (B, key heads, S, D)
        past = past_key_values if cache is None else cache
        if past is not None:
            key, value = past.update(key, value, self.layer_idx)

        if isinstance(attention_mask, MaskBlocks):
            attended = attention_mask.attend(query, key, value, self.scaling)  # (B, S, heads, D)
            return self.o_proj(attended.flatten(2)), None
        implementation = self.config._attn_implementation or "eager"
        if length == 1 and implementation == "sdpa" and not self.training:
            attended = self._attend_once(query, key, value, attention_mask)
            return self.o_proj(attended), None
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        attended, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(attended.reshape(rows, length, -1)), weights

    def _attend_once(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(B, 1, H) what one query per row reads: heads that share keys are queries of the same head.

        Args:
            query: (B, heads, 1, D).
            key: (B, key heads, keys, D).
            value: (B, key heads, keys, D).
            mask: (B, 1, 1, keys), or None.
        """
        rows, heads, _, width = query.shape
        grouped = query.view(rows, key.shape[1], -1, width)  # (B, key heads, heads per key head, D)
        attended = functional.scaled_dot_product_attention(
            grouped, key, value, attn_mask=mask, scale=self.scaling
        )
        return attended.reshape(rows, 1, heads * width)


class DecoderLayer(Molmo2DecoderLayer):
    """The native block around the attention above."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | MaskBlocks | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        **kwargs: Any,
    ) -> Tensor:
        """(B, S, H) to (B, S, H); arguments as in `Attention.forward`, and those that transformers hands on."""
        past = past_key_values if cache is None else cache
        residual = hidden_states
        hidden = hidden_states if self.norm_after else self.input_layernorm(hidden_states)
        hidden, _ = self.self_attn(hidden, position_embeddings, attention_mask, past, **kwargs)
        if self.norm_after:
            hidden = self.input_layernorm(hidden)
        residual = residual + hidden

        hidden = residual if self.norm_after else self.post_attention_layernorm(residual)
        hidden = self.mlp(hidden)
        if self.norm_after:
            hidden = self.post_attention_layernorm(hidden)
        return residual + hidden


class GrowingLayer(DynamicLayer):
    """Keys and values of a layer as the front of buffers with room behind them, so that a token is written,
    and the others are not copied.

    `keys` and `values` are what they are in `DynamicLayer`, and may be replaced as there.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffers: tuple[Tensor, Tensor] | None = None  # (B, key heads, tokens and room, D) each
        self._front: Tensor | None = None
        """The keys as they were shown last: others have not been made from the buffers."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds keys and values (B, key heads, S, D) of new tokens; returns those of all tokens."""
        if key_states.requires_grad:
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        buffers = self._buffers
        if buffers is None or self._front is not self.keys or not _can_take(buffers[0], end):
            buffers = self._make_room(key_states, value_states, end)
        for buffer, new in zip(buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self._buffers = buffers
        self.keys, self.values = (buffer[:, :, :end] for buffer in buffers)
        self._front = self.keys
        return self.keys, self.values

    def reserve(self, end: int) -> tuple[Tensor, Tensor]:
        """Buffers (B, key heads, `end` or more, D) with the keys and values so far, for whoever writes the next
        ones into them; `show` tells the layer.
        """
        assert self.keys is not None and self.values is not None, "of a layer that has some"
        buffers = self._buffers
        if buffers is None or self._front is not self.keys or not _can_take(buffers[0], end):
            buffers = self._buffers = self._make_room(self.keys, self.values, end)
        return buffers

    def show(self, end: int) -> None:
        """Makes the first `end` tokens of the buffers the keys and values so far."""
        if self._buffers is not None and end != self.get_seq_length():
            self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
            self._front = self.keys

    def _make_room(self, key_states: Tensor, value_states: Tensor, end: int) -> tuple[Tensor, Tensor]:
        """Buffers for `end` tokens and more, with the tokens so far."""
        made = []
        for new, old in ((key_states, self.keys), (value_states, self.values)):
            assert old is not None  # an initialised layer has both
            rows, heads, _, width = new.shape
            buffer = new.new_empty(rows, heads, end + ROOM, width)
            if old.numel():
                buffer[:, :, : old.shape[-2]] = old
            made.append(buffer)
        return made[0], made[1]


def give_room(cache: Cache | None) -> None:
    """Lets the layers of an empty cache grow in place; caches of other kinds, or in use, stay as they are."""
    if type(cache) is not DynamicCache:
        return
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and not layer.is_initialized:
            cache.layers[index] = GrowingLayer()


def _can_take(buffer: Tensor, end: int) -> bool:
    """Whether `end` tokens can be written there; what was made in inference mode is read-only outside."""
    is_writable = torch.is_inference_mode_enabled() or not buffer.is_inference()
    return is_writable and buffer.shape[-2] >= end
