"""The choice of a step: vLLM's sampler chooses words, the heads choose places.

The grammar masks the text logits first, so that vLLM's sampler says whether a point comes; then PATCH,
SUBPATCH and LOCATION become the extended id of the place that was drawn. One softmax over words and places
would be another distribution. Nothing here waits for the device.

Where log-probabilities are asked for, those of places stand in the column of the sampled token; with one more
column, a PATCH token also says what "no more points" would have got.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.utils.torch_utils import async_tensor_h2d

from molmopoint.heads import SelectionLogits
from molmopoint.serving.vllm.draws import Sampling
from molmopoint.serving.vllm.request_slots import Chosen
from molmopoint.tokens import NO_SELECTION


class PointSampler:
    """Stands where vLLM's sampler stood; everything but the call itself is that one's.

    Args:
        state: of all requests, a `MolmoPointModelState`.
        words: vLLM's sampler.
    """

    def __init__(self, state: Any, words: Any) -> None:
        self._state = state
        self._words = words

    def __getattr__(self, name: str) -> Any:
        return getattr(self._words, name)

    def __call__(self, logits: Tensor, input_batch: Any) -> Any:
        """Tokens of a step as extended ids.

        Args:
            logits: (B, V) of words.
            input_batch: vLLM's description of the step.
        """
        state = self._state
        slots = input_batch.idx_mapping.long()  # (B,)
        text = logits.float()
        places = self._score(input_batch.req_ids, slots)
        assert places.patch is not None, "all stages are computed"
        patch_scores = state.slots.mask_words(text, slots, places.patch)
        opens_single = state.slots.is_first[slots] & state.slots.is_single[slots]
        output = self._words(text, input_batch)
        tokens = output.sampled_token_ids[:, 0]
        chosen = state.slots.choose(
            tokens,
            slots,
            self._ready(input_batch),
            patch_scores,
            places,
            self._valid_slots(slots),
            self._sampling(input_batch, slots).draw,
        )
        output.sampled_token_ids[:, 0] = chosen.ids.to(tokens.dtype)
        if output.logprobs_tensors is not None:
            self._write_odds(output.logprobs_tensors, tokens, chosen, slots, opens_single)
        return output

    def _score(self, req_ids: list[str], slots: Tensor) -> SelectionLogits:
        """Unmasked logits of all places that rows (B,) could choose next."""
        state = self._state
        heads, hidden = state.model.point_predictor, state.model.sampled_hidden  # (B, H)
        normed = heads.norm(hidden)
        keys = state.patch_keys_of(req_ids, slots)  # (B, P, E)
        positions = state.slots.query_positions(slots)
        patch = heads.patch(normed.unsqueeze(1), positions.unsqueeze(1), keys).squeeze(1)  # (B, P + 1)
        subpatch = heads.subpatch(normed, self._slot_features(slots))  # (B, K)
        location = None
        if heads.location is not None:
            location = heads.location(normed if state.norms_location else hidden)
        return SelectionLogits(patch, subpatch, location)

    def _slot_features(self, slots: Tensor) -> Tensor:
        """(B, K, F) ViT features of the patch that was selected last."""
        memory = self._state.memory
        if not memory.num_rows:
            return memory.slot_features.new_zeros((len(slots), *memory.slot_features.shape[1:])).to(
                slots.device
            )
        rows = self._state.slots.rows_of(slots, self._state.slots.selected[slots])
        return memory.slot_features[rows]

    def _valid_slots(self, slots: Tensor) -> Tensor:
        """(B, K) True where the patch that was selected last has a slot."""
        memory, requests = self._state.memory, self._state.slots
        selected = requests.selected[slots]
        if not memory.num_rows:
            return memory.valid_slots.new_zeros((len(slots), memory.valid_slots.shape[1]))
        return memory.valid_slots[requests.rows_of(slots, selected)] & (selected >= 0).unsqueeze(1)

    def _ready(self, input_batch: Any) -> Tensor:
        """(B,) True where a prompt is complete, so that a token is chosen."""
        ends = input_batch.num_computed_tokens_np + input_batch.num_scheduled_tokens
        return async_tensor_h2d(ends >= input_batch.prefill_len_np, device=self._state.device)

    def _sampling(self, input_batch: Any, slots: Tensor) -> Sampling:
        """How rows draw, by the parameters of their requests."""
        states = self._words.sampling_states
        rows = input_batch.idx_mapping_np

        def unless_unused(parameter: Any, unused: float) -> Tensor | None:
            return parameter.gpu[slots] if np.any(parameter.np[rows] != unused) else None

        return Sampling(
            temperature=states.temperature.gpu[slots],
            seeds=states.seeds.gpu[slots],
            positions=input_batch.positions[input_batch.logits_indices],
            top_k=unless_unused(states.top_k, states.vocab_size),
            top_p=unless_unused(states.top_p, 1.0),
            min_p=unless_unused(states.min_p, 0.0),
        )

    def _write_odds(
        self, logprobs: Any, tokens: Tensor, chosen: Chosen, slots: Tensor, opens_single: Tensor
    ) -> None:
        """Log-probabilities of places in the columns for them."""
        ids, values = logprobs.logprob_token_ids, logprobs.logprobs
        is_place = chosen.selections != NO_SELECTION
        ids[:, 0] = chosen.ids.to(ids.dtype)
        values[:, 0] = torch.where(is_place, chosen.odds.log(), values[:, 0])
        if ids.shape[1] < 2:
            return
        settings = self._state.settings
        says = opens_single | (is_place & (tokens == settings.patch_token_id))
        no_more = settings.extended_start + self._state.slots.num_patches[slots]
        ids[:, 1] = torch.where(says, no_more.to(ids.dtype), ids[:, 1])
        values[:, 1] = torch.where(says, chosen.no_more_odds.log(), values[:, 1])
