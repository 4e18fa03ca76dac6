"""What every request of an engine keeps, in the hooks of vLLM's model runner.

The state of a request follows from its tokens and pictures alone. A request that vLLM puts off to make room
is set up again from both when it comes back, in whatever slot.

Letters: M grounding tokens that a step feeds, S tokens of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from molmopoint.generation.rules import read_prompt
from molmopoint.processing.grounding_answers import TURN_END
from molmopoint.rows import PatchHistory, lay_out, split_extended
from molmopoint.serving.vllm.device_memory import host_buffer
from molmopoint.serving.vllm.picture_input import processor_of
from molmopoint.serving.vllm.picture_memory import PictureMemory
from molmopoint.serving.vllm.point_options import PointOptions
from molmopoint.serving.vllm.point_sampler import PointSampler
from molmopoint.serving.vllm.request_slots import Places, RequestSlots
from molmopoint.tokens import NO_SELECTION

DEFAULT_MEMORY_GB = 4.0
"""Host memory for features of pictures on each worker, unless `additional_config` says otherwise."""

_OF_THE_SLOT = -3
"""In place of a patch: the one that the request chose last."""


@dataclass(eq=False)
class Running:
    """One request on this worker.

    Attributes:
        index: of its slot.
        features: vLLM's descriptions of its pictures.
        positions: (S,) rotary position of every token of the prompt as a key of the patch head.
        grounding: (M,) positions of grounding tokens in the prompt.
        patches: (M,) the patch that each belongs to.
        num_patches: image tokens.
        held: hashes of pictures whose features are held for it; None until they are there.
    """

    index: int
    features: Sequence[Any]
    positions: np.ndarray
    grounding: np.ndarray
    patches: np.ndarray
    num_patches: int
    held: list[str] | None = field(default=None)


class MolmoPointModelState(DefaultModelState):
    """See the module."""

    def __init__(self, vllm_config: Any, model: Any, encoder_cache: Any, device: torch.device) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        config = model.config
        processor = processor_of(self.model_config.model, self.model_config.revision)
        window = processor.image_processor.pooling_size
        self.num_slots = int(window[0]) * int(window[1])
        self.settings = config.grounding
        self.norms_location = config.location_input == "normed"
        self.end_ids = _end_ids(self.model_config, processor.tokenizer)
        self.slots = RequestSlots(self.max_num_reqs, self.settings, self.end_ids, device)
        own = (vllm_config.additional_config or {}).get("molmopoint", {})
        self.memory = PictureMemory(
            float(own.get("picture_memory_gb", DEFAULT_MEMORY_GB)) * 1e9,
            config.text_config.hidden_size,
            config.vit_feature_dim,
            self.num_slots,
            self.dtype,
            device,
            host_buffer(device),
        )
        self.running: dict[str, Running] = {}
        self.block_table: Tensor | None = None
        # The CUDA graphs of the layers read this very tensor.
        self.patch_positions = torch.zeros(self.max_num_tokens, dtype=torch.int64, device=device)

    # Life of a request

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        """Sets up the slot of a request, which may have a part of its answer already."""
        super().add_request(req_index, new_req_data)
        self._forget(new_req_data.req_id)
        params = new_req_data.sampling_params
        options = PointOptions.of(params.extra_args if params is not None else None)
        ids = torch.tensor(new_req_data.prefill_token_ids).unsqueeze(0)  # (1, S)
        features = list(new_req_data.mm_features)
        layout = lay_out(ids, self.settings, vision=_vision(ids, features))
        count = layout.max_patches
        places = Places(
            layout.columns.numpy(),
            layout.indexable.numpy(),
            layout.rotary_positions.numpy(),
            self.num_slots if count else 0,
        )
        num_slots = torch.tensor([places.num_slots])
        plain, selections = split_extended(ids, layout.num_patches, num_slots, self.settings)
        history = PatchHistory.of(plain, selections, self.settings).selection[0]  # (S,)
        end = read_prompt(plain[0].tolist(), selections[0].tolist(), set(self.end_ids), self.settings)
        answered = ids.shape[1] > new_req_data.prompt_len
        if options.open_list and not answered:
            end = replace(end, may_start_with_patch=True)
        chosen = selections[0, new_req_data.prompt_len :]
        is_patch = plain[0, new_req_data.prompt_len :] == self.settings.patch_token_id
        points = int((is_patch & (chosen >= 0)).sum())
        self.slots.begin(req_index, places, options, end, points, int(history[-1]))
        if answered:
            self.slots.resume(req_index)

        positions = np.zeros(ids.shape[1], np.int64)
        positions[places.columns] = places.rotary
        grounding = (selections[0] != NO_SELECTION).nonzero().squeeze(1)
        self.running[new_req_data.req_id] = Running(
            req_index, features, positions, grounding.numpy(), history[grounding].numpy(), count
        )

    def remove_request(self, req_id: str) -> None:
        """Lets go of the pictures of a request that has ended, or was put off."""
        super().remove_request(req_id)
        self._forget(req_id)

    def _forget(self, req_id: str) -> None:
        request = self.running.pop(req_id, None)
        if request is not None:
            for name in request.held or ():
                self.memory.release(name)

    # Pictures

    def execute_mm_encoder(self, scheduled_encoder_inputs: dict[str, list[int]]) -> None:
        """Looks at the pictures of a step, one by one, and keeps what pointing needs of them."""
        names, items = self.encoder_runner.prepare_mm_inputs(scheduled_encoder_inputs)
        for name, item in zip(names, items, strict=True):
            self.encoder_cache.encoder_outputs[name] = self._look(name, item)

    def _look(self, name: str, item: Any) -> Tensor:
        """Embeddings (tokens, H) of a picture, whose features are kept."""
        (embeddings,) = self.encoder_runner.execute_mm_encoder([item])
        (seen,) = self.model.seen
        self.memory.store(name, seen.image_features, seen.vit_features, seen.pooling)
        self.model.seen = []
        return embeddings

    def _hold_pictures(self, input_batch: Any) -> None:
        """Ties the features of pictures to requests whose pictures have all come by in their prompts."""
        ends = input_batch.num_computed_tokens_np + input_batch.num_scheduled_tokens
        for number in np.flatnonzero(input_batch.is_prefilling_np[: input_batch.num_reqs]).tolist():
            request = self.running.get(input_batch.req_ids[number])
            if request is None or request.held is not None or not request.features:
                continue
            last = request.features[-1].mm_position
            if last.offset + last.length <= int(ends[number]):
                self._hold(request)

    def _hold(self, request: Running) -> None:
        rows = []
        request.held = []
        for feature in request.features:
            name = feature.identifier
            if name not in self.memory:
                # Its keys and values, or its embeddings, were in a cache, and its features were dropped.
                self._look(name, (feature.modality, feature.data))
            rows.append(self.memory.hold(name))
            request.held.append(name)
        self.slots.place_pictures(request.index, np.concatenate(rows), self.memory.valid_slots)

    # Inputs of a step

    def prepare_inputs_embeds(
        self, scheduled_encoder_inputs: dict[str, list[int]], input_batch: Any, req_states: Any
    ) -> Tensor:
        """Embeddings of the tokens of a step; grounding tokens get the features of what they chose."""
        embeddings = super().prepare_inputs_embeds(scheduled_encoder_inputs, input_batch, req_states)
        if input_batch.has_prefill:
            self._hold_pictures(input_batch)
        tokens, slots, patches = self._grounding_tokens(input_batch)
        if len(tokens) and self.memory.num_rows:
            stacked = async_tensor_h2d(np.stack([tokens, slots, patches]), device=self.device)  # (3, M)
            self._embed_places(embeddings, input_batch.input_ids, *stacked)
        return embeddings

    def _grounding_tokens(self, input_batch: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens of a step that may choose a place, (M,) each: where in the step, slot, and patch."""
        computed, starts = input_batch.num_computed_tokens_np, input_batch.query_start_loc_np
        is_answer = computed >= input_batch.prefill_len_np
        tokens = [starts[: len(computed)][is_answer].astype(np.int64)]
        slots = [input_batch.idx_mapping_np[is_answer].astype(np.int64)]
        patches = [np.full(len(tokens[0]), _OF_THE_SLOT, np.int64)]
        for number in np.flatnonzero(~is_answer).tolist():
            request = self.running.get(input_batch.req_ids[number])
            if request is None or not len(request.grounding):
                continue
            first = int(computed[number])
            end = first + int(input_batch.num_scheduled_tokens[number])
            here = (request.grounding >= first) & (request.grounding < end)
            tokens.append(request.grounding[here] - first + int(starts[number]))
            slots.append(np.full(len(tokens[-1]), request.index, np.int64))
            patches.append(request.patches[here])
        return np.concatenate(tokens), np.concatenate(slots), np.concatenate(patches)

    def _embed_places(
        self, embeddings: Tensor, input_ids: Tensor, tokens: Tensor, slots: Tensor, patches: Tensor
    ) -> None:
        """Writes the embeddings of grounding tokens.

        Args:
            embeddings: (S, H) of the step; changed in place.
            input_ids: (S,) extended ids.
            tokens: (M,) tokens that may be grounding tokens.
            slots: (M,) their request slots.
            patches: (M,) the patch that a slot is in.
        """
        ids = input_ids[tokens].long()
        plain, selections = self.slots.split(ids, slots)
        patches = torch.where(patches == _OF_THE_SLOT, self.slots.patch[slots], patches)
        is_patch = (plain == self.settings.patch_token_id) & (selections >= 0)
        is_slot = (plain == self.settings.subpatch_token_id) & (selections >= 0)
        rows = self.slots.rows_of(slots, torch.where(is_patch, selections, patches))  # (M,)
        image = self.memory.image_features[rows]  # (M, H)
        vit = self.memory.slot_features[rows, selections.clamp(min=0, max=self.num_slots - 1)]  # (M, F)
        features = torch.where(is_patch.unsqueeze(1), image, self.model.build_vit_embedding(vit))
        is_place = (is_patch | is_slot).unsqueeze(1)
        chosen = self.model.embed_plain(plain) + (features * is_place).to(embeddings)
        is_extended = (ids >= self.settings.extended_start).unsqueeze(1)
        embeddings[tokens] = torch.where(is_extended, chosen, embeddings[tokens])

    def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        """Adds where image tokens stand among the patches; all other keys are never read."""
        inputs = super().prepare_inputs(input_batch, req_states)
        if input_batch.has_prefill:
            positions = np.zeros(input_batch.num_tokens, np.int64)
            computed, starts = input_batch.num_computed_tokens_np, input_batch.query_start_loc_np
            for number in np.flatnonzero(computed < input_batch.prefill_len_np).tolist():
                request = self.running.get(input_batch.req_ids[number])
                if request is None:
                    continue
                first, begin = int(computed[number]), int(starts[number])
                part = request.positions[first : first + int(input_batch.num_scheduled_tokens[number])]
                positions[begin : begin + len(part)] = part
            where = self.patch_positions[: len(positions)]
            where.copy_(async_tensor_h2d(positions, device=self.device))
        return inputs | {"patch_positions": self.patch_positions[: input_batch.num_tokens_after_padding]}

    def prepare_dummy_inputs(self, num_reqs: int, num_tokens: int) -> dict[str, Any]:
        """The same for runs that measure or record."""
        inputs = super().prepare_dummy_inputs(num_reqs, num_tokens)
        return inputs | {"patch_positions": self.patch_positions[:num_tokens]}

    def preprocess_state(
        self, input_batch: Any, block_tables: Any, kv_cache_config: Any, num_computed_tokens: Tensor
    ) -> None:
        """Notes where the keys of patches are."""
        groups = kv_cache_config.kv_cache_groups
        name = self.model.patch_keys.name
        group = next(number for number, one in enumerate(groups) if name in one.layer_names)
        self.block_table = block_tables[group]

    # Choices of a step

    def custom_sampler(self, sampler: Any) -> tuple[Any, Any]:
        """Words are chosen by vLLM's sampler, places by ours around it."""
        return PointSampler(self, sampler), None

    def patch_keys_of(self, req_ids: Sequence[str], slots: Tensor) -> Tensor:
        """(B, P, E) keys of the image tokens of the requests of a step, P the most that one of them has."""
        counts = [self.running[name].num_patches for name in req_ids if name in self.running]
        most = max(counts, default=0)
        if not most or self.block_table is None:
            width = self.settings.patch_embed_dim
            return torch.zeros((len(slots), 0, width), dtype=self.dtype, device=self.device)
        columns = self.slots.columns[slots, :most]
        return self.model.patch_keys.read(self.block_table[: len(slots)], columns)


def _vision(ids: Tensor, features: Sequence[Any]) -> Tensor:
    """(1, S) True at the tokens of pictures; elsewhere such ids were generated, and stand for nothing."""
    vision = torch.zeros_like(ids, dtype=torch.bool)
    for feature in features:
        place = feature.mm_position
        vision[0, place.offset : place.offset + place.length] = True
    return vision


def _end_ids(model_config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer, as `Pointer` has them."""
    stored = model_config.try_get_generation_config().get("eos_token_id")
    stored = tokenizer.eos_token_id if stored is None else stored
    ids = [stored] if isinstance(stored, int) else list(stored)
    turn_end = tokenizer.get_added_vocab().get(TURN_END)
    if turn_end is not None and turn_end not in ids:
        ids.append(turn_end)
    return tuple(ids)
