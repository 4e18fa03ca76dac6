"""MolmoPoint as one network: ViT, connector, text model, pointing heads. Wiring only.

    pixels -> ViT -> tapped features -> connector -> image tokens -+
    ids ------------------------------> embeddings ----------------+-> text model -> text logits
                                                                           |
                     tapped features -> patch, subpatch, location heads <--+-> selection logits

Letters: B rows, S tokens per row, P image tokens per row (padded), T image tokens of the call, K slots per image token, R
positions with a text loss, H text width, V + A vocabulary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import ModelOutput
from transformers.models.molmo2.modeling_molmo2 import Molmo2PreTrainedModel, Molmo2TextModel, Molmo2VisionModel

from molmopoint.attention import AttentionRule, honouring_mask, prompt_mask, step_mask
from molmopoint.config import MolmoPointConfig
from molmopoint.connector import Connector, SlotPositions, VisualFeatures, join_tables, tapped_features
from molmopoint.generation import GroundedGenerationMixin
from molmopoint.heads import GroundingHeads, GroundingState, PatchHead, RMSNorm
from molmopoint.key_map import register_converters
from molmopoint.load_checks import check_loading_info, verify_checkpoint_files
from molmopoint.losses import IGNORED, Membership, Supervision, select, text_loss
from molmopoint.rows import PatchHistory, RowLayout, check_selections, lay_out, split_extended
from molmopoint.saving import released_state, save_whole, write_card
from molmopoint.tokens import NO_SELECTION


@dataclass
class MolmoPointOutput(ModelOutput):
    """What a forward pass returns.

    Attributes:
        loss: (text + patch + subpatch + location [+ z]) / weight_sum, when labels were given.
        logits: (B, S, V + A), or its last `logits_to_keep` positions; with labels (R, V + A), the weighted positions in
            row-major order.
        loss_sums: kind -> unreduced sum of each part; "text" is cross-entropy alone.
        weight_sum: sum of the text weights.
        patch_logits, subpatch_logits, location_logits: with labels one row per supervised selection (row-major); in cached
            steps (B, P + 1), (B, K), (B, L). Float32; the patch logits of steps are unscaled and unmasked.
        grounding_state: what the prompt keeps for later steps.
        past_key_values: the cache.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    loss_sums: dict[str, Tensor] | None = None
    weight_sum: Tensor | None = None
    patch_logits: Tensor | None = None
    subpatch_logits: Tensor | None = None
    location_logits: Tensor | None = None
    grounding_state: GroundingState | None = None


class MolmoPointPreTrainedModel(Molmo2PreTrainedModel):
    """Loading, saving and initialisation."""

    config: MolmoPointConfig
    config_class = MolmoPointConfig
    _no_split_modules = ["Molmo2DecoderLayer", "Molmo2VisionEncoderLayer", "Connector", "GroundingHeads"]

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str] | None, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Loads released or own checkpoints, as in transformers.

        Raises:
            CheckpointError: missing, truncated or foreign weight files; tensors missing, left over or of another shape.
        """
        register_converters()
        state_dict = kwargs.get("state_dict")
        if name is not None and state_dict is None and Path(name).is_dir() and not kwargs.get("subfolder"):
            verify_checkpoint_files(name)
        kwargs = {"use_safetensors": True, "ignore_mismatched_sizes": True, **kwargs}
        model, info = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        check_loading_info(info, str(name))
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Saves weights under their released names and a released-style config; files appear when all of them are written.

        Loaded adapters are saved in the form of PEFT, as in transformers.
        """
        if getattr(self, "_hf_peft_config_loaded", False):
            return super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs)
        tensors = released_state(self.state_dict() if state_dict is None else state_dict, self.config)

        def write(folder: str) -> None:
            super(MolmoPointPreTrainedModel, self).save_pretrained(
                folder, is_main_process=is_main_process, state_dict=tensors, **{**kwargs, "save_original_format": False}
            )

        if kwargs.get("push_to_hub") or not is_main_process:
            return write(str(save_directory))
        save_whole(save_directory, write)
        return write_card(save_directory, self.config)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PatchHead):
            init.zeros_(module.no_more_points)
        elif isinstance(module, SlotPositions):
            init.zeros_(module.bias)
        elif isinstance(module, RMSNorm):
            init.ones_(module.weight)


class MolmoPointTextModel(Molmo2TextModel):
    """The native text model, up to but without its final norm: pointing reads the state before it."""

    def run_layers(self, embeddings: Tensor, mask: Any, position_ids: Tensor, past: Cache | None) -> Tensor:
        """Hidden states (B, S, H) before the final norm, under a mask that is used as given."""
        rotations = {
            "scaled": self.rotary_emb(embeddings, position_ids=position_ids),
            "unscaled": self.rotary_emb_unscaled(embeddings, position_ids=position_ids),
        }
        hidden = embeddings
        for layer, kind in zip(self.layers, self.rope_types, strict=True):
            hidden = layer(
                hidden, attention_mask=mask, position_ids=position_ids, past_key_values=past, position_embeddings=rotations[kind]
            )
        return hidden


class MolmoPointModel(MolmoPointPreTrainedModel):
    """Everything below the vocabulary."""

    def __init__(self, config: MolmoPointConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_tower = Molmo2VisionModel(config.vision_config)
        self.connector = Connector(config)
        self.language_model = MolmoPointTextModel(config.text_config)
        self.build_vit_embedding = nn.Linear(config.vit_feature_dim, width)
        self.point_predictor = GroundingHeads(
            width,
            config.vit_feature_dim,
            config.patch_embed_dim,
            config.num_locations,
            config.token_prediction_rotary_theta if config.token_prediction_rotary == "one_d" else None,
            config.text_config.rms_norm_eps,
        )
        self.post_init()

    def get_visual_features(
        self,
        pixel_values: Tensor | None = None,
        image_token_pooling: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_token_pooling: Tensor | None = None,
    ) -> VisualFeatures:
        """Runs ViT and connector once; the result serves any number of prompts over the same pictures.

        Args:
            pixel_values: (crops, G, patch values) of all pictures of the call.
            image_token_pooling: (T_i, K_i) absolute over the call, -1 for empty slots and unused columns.
            pixel_values_videos: (frames, G, patch values).
            video_token_pooling: (T_v, K_v), absolute over all frames of the call.
        """
        if (pixel_values is None) != (image_token_pooling is None) or (pixel_values_videos is None) != (video_token_pooling is None):
            raise ValueError("expected pixels and their pooling table together; pass all visual outputs of the processor")
        layers = self.config.adapter_config.vision_feature_layer
        parts = [tapped_features(self.vision_tower, p, layers) for p in (pixel_values, pixel_values_videos) if p is not None]
        vit_features = parts[0] if len(parts) == 1 else torch.cat(parts)
        first_frame_patch = len(parts[0]) if pixel_values is not None else 0
        pooling = join_tables(image_token_pooling, video_token_pooling, first_frame_patch).to(vit_features.device)
        return VisualFeatures(
            vit_features=vit_features,
            image_features=self.connector(vit_features, pooling),
            pooling=pooling,
            num_image_rows=0 if image_token_pooling is None else len(image_token_pooling),
            slots=tuple(0 if t is None else t.shape[1] for t in (image_token_pooling, video_token_pooling)),
        )

    def no_visual_features(self) -> VisualFeatures:
        """Stands for a call without pictures. In training one blank crop runs through the ViT and none of it is used, so
        that every weight gets a gradient (of zero) and sharded ranks stay in step."""
        weight = self.build_vit_embedding.weight
        if self.training:
            vision = self.config.vision_config
            crops = weight.new_zeros(1, vision.num_position_embeddings, self.vision_tower.patch_embedding.in_features)
            return self.get_visual_features(crops, torch.zeros(0, 1, dtype=torch.long, device=weight.device))
        return VisualFeatures(
            vit_features=weight.new_zeros(0, self.config.vit_feature_dim),
            image_features=weight.new_zeros(0, self.config.text_config.hidden_size),
            pooling=torch.zeros(0, 1, dtype=torch.long, device=weight.device),
            num_image_rows=0,
            slots=(0, 0),
        )

    def begin(
        self, input_ids: Tensor, visual: VisualFeatures, example_ids: Tensor | None, vision: Tensor
    ) -> tuple[RowLayout, GroundingState]:
        """Ties image tokens of the rows to the rows of the pooling table; keys are filled in after the text model has run."""
        layout = lay_out(input_ids, self.config, example_ids, vision)
        if len(layout.rows) != len(visual.pooling):
            raise ValueError(
                f"expected {len(visual.pooling)} image tokens for the {len(visual.pooling)} rows of the pooling table, got {len(layout.rows)}; "
                "pass the ids and the pictures of the same processor call, truncated nowhere"
            )
        is_clip = ((input_ids == self.config.frame_start_token_id) & vision).any(1)
        of_clip = is_clip[layout.rows].long()
        seen = of_clip.cumsum(0)
        order = torch.arange(len(of_clip), device=seen.device)
        if all(visual.slots):
            order = torch.where(of_clip.bool(), visual.num_image_rows + seen - 1, order - seen)
        slots = torch.tensor(visual.slots, device=seen.device)
        own = torch.where(is_clip, slots[1], slots[0]) if all(visual.slots) else slots.max().expand(len(is_clip))
        state = GroundingState(
            patch_keys=visual.image_features.new_zeros(len(input_ids), 0, self.config.patch_embed_dim),
            patch_key_mask=layout.scatter(layout.indexable, False),
            rotary_positions=layout.scatter(layout.rotary_positions, 0),
            example_of_patch=layout.scatter(layout.examples, -1),
            table_rows=layout.scatter(order, 0),
            image_features=visual.image_features,
            pooling=visual.pooling,
            vit_features=visual.vit_features,
            num_patches=layout.num_patches,
            num_slots=torch.where(layout.num_patches > 0, own, 0),
            selected_patch=torch.full_like(layout.num_patches, NO_SELECTION),
        )
        return layout, state

    def embed(self, input_ids: Tensor, selections: Tensor, state: GroundingState, layout: RowLayout | None) -> Tensor:
        """Embeddings (B, S, H) of plain ids, with image features at image tokens and the chosen features at grounding tokens.

        In cached steps (`layout` None) the patch of a SUBPATCH token is the row's `selected_patch`; in a prompt it is read
        off the row.
        """
        config = self.config
        ids = input_ids
        if config.share_low_res_embedding:
            ids = torch.where(ids == config.image_non_indexable_patch_id, config.image_patch_id, ids)
        embeddings = self.language_model.embed_tokens(ids)
        is_patch = (input_ids == config.patch_token_id) & (selections >= 0)
        is_slot = (input_ids == config.subpatch_token_id) & (selections >= 0)
        if layout is None:
            rows = torch.arange(len(ids), device=ids.device)
            chosen = torch.where(is_patch[:, 0], selections[:, 0], NO_SELECTION)
            added = state.image_features_of(rows, chosen).to(embeddings.dtype)
            slots = state.slots_of(rows, state.selected_patch).gather(1, selections.clamp(min=0, max=state.pooling.shape[1] - 1))[:, 0]
            subpatch = self.build_vit_embedding(state.vit_features_of(slots)).to(embeddings.dtype) * is_slot
            return embeddings + (added + subpatch).unsqueeze(1)
        table = state.table_rows[layout.rows, layout.patches] if layout.max_patches else layout.rows
        embeddings = embeddings.index_put(
            (layout.rows, layout.columns), state.image_features[table].to(embeddings.dtype), accumulate=True
        )
        rows, columns = is_patch.nonzero(as_tuple=True)
        features = state.image_features_of(rows, selections[rows, columns])
        embeddings = embeddings.index_put((rows, columns), features.to(embeddings.dtype), accumulate=True)
        rows, columns = is_slot.nonzero(as_tuple=True)
        patches = PatchHistory.of(input_ids, selections, config).selection[rows, columns]
        slots = state.slots_of(rows, patches).gather(1, selections[rows, columns].unsqueeze(1)).squeeze(1)
        subpatch = self.build_vit_embedding(state.vit_features_of(slots))
        return embeddings.index_put((rows, columns), subpatch.to(embeddings.dtype), accumulate=True)

    def remember(self, hidden: Tensor, layout: RowLayout, state: GroundingState, last_patch: Tensor) -> GroundingState:
        """Fills in the patch keys (B, P, E) from the hidden states (B, S, H) of a prompt."""
        keys = self.point_predictor.patch.keys(
            self.point_predictor.norm(hidden[layout.rows, layout.columns]), layout.rotary_positions
        )
        state = GroundingState(**{**vars(state), "patch_keys": layout.scatter(keys, 0.0)})
        return state.after(last_patch.clamp(min=NO_SELECTION))


class MolmoPointForConditionalGeneration(MolmoPointPreTrainedModel, GroundedGenerationMixin):
    """MolmoPoint with its vocabulary: prompts, cached steps and training in one forward pass."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    accepts_loss_kwargs = True

    def __init__(self, config: MolmoPointConfig) -> None:
        super().__init__(config)
        self.model = MolmoPointModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.extended_start, bias=False)
        self.post_init()

    def get_visual_features(self, **pixels: Tensor | None) -> VisualFeatures:
        """See `MolmoPointModel.get_visual_features`."""
        return self.model.get_visual_features(**pixels)

    def forward(
        self,
        input_ids: Tensor,
        selection_ids: Tensor | None = None,
        labels: Tensor | None = None,
        shift_labels: Tensor | None = None,
        loss_weights: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        example_ids: Tensor | None = None,
        branch_ids: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_token_pooling: Tensor | None = None,
        image_grids: Tensor | None = None,
        image_num_crops: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_token_pooling: Tensor | None = None,
        video_grids: Tensor | None = None,
        past_key_values: Cache | None = None,
        visual_features: VisualFeatures | None = None,
        grounding_state: GroundingState | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        weight_pointing_losses: bool = False,
        z_loss: float = 0.0,
        num_items_in_batch: Tensor | float | None = None,
        return_dict: bool | None = None,
    ) -> MolmoPointOutput:
        """One pass over a prompt, a training batch, or one new token per row.

        Args:
            input_ids: (B, S) plain ids, or extended ids, which are split.
            selection_ids: (B, S) what each grounding token selects; -1 none, -2 no more points.
            labels: (B, S) aligned with `input_ids`, shifted inside; -100 is ignored.
            shift_labels: (B, S) already shifted: the target of position t stands at t.
            loss_weights: (B, S) aligned with `shift_labels`.
            attention_mask: (B, S) 0 at padding; in cached steps (B, all tokens so far).
            position_ids: (B, S); counted from the mask if not given.
            example_ids: (B, S) packed example of each token, -1 for padding.
            branch_ids: (B, S) branch of each token, -1 for the shared trunk.
            mm_token_type_ids: (B, S) 1 at vision tokens; found by id if not given.
            pixel_values, image_token_pooling, pixel_values_videos, video_token_pooling: see `get_visual_features`.
            image_grids, image_num_crops, video_grids: accepted from the processor, not needed here.
            past_key_values: cache; together with `grounding_state` the call is a cached step of one token per row.
            visual_features: instead of pixels, what `get_visual_features` returned.
            grounding_state: what the prompt pass returned.
            use_cache: whether a prompt makes a cache.
            logits_to_keep: compute vocabulary logits only for the last positions; 0 = all.
            weight_pointing_losses: weight pointing losses like their text tokens; released models did not.
            z_loss: factor of the squared log normaliser of the text softmax.
            num_items_in_batch: divisor of the loss; the sum of the weights of this batch if not given.
            return_dict: accepted for the trainer; the result is always an output object.

        Raises:
            ValueError: arguments that do not belong together or have different shapes.
            GroundingError: a selection that names no place of its row.
        """
        if grounding_state is not None:
            return self._step(input_ids, selection_ids, attention_mask, position_ids, past_key_values, grounding_state)
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            raise ValueError("expected the grounding_state of the prompt together with its cache; pass both, as `generate` does")
        if visual_features is None:
            pixels = (pixel_values, image_token_pooling, pixel_values_videos, video_token_pooling)
            given = any(p is not None for p in pixels)
            visual_features = self.model.get_visual_features(*pixels) if given else self.model.no_visual_features()
        vision = mm_token_type_ids == 1 if mm_token_type_ids is not None else self._vision_tokens(input_ids)
        layout, state = self.model.begin(input_ids, visual_features, example_ids, vision)
        input_ids, selection_ids = self._plain(input_ids, selection_ids, state, layout)
        examples = example_ids if example_ids is not None else _single_example(input_ids, attention_mask)
        branches = torch.full_like(input_ids, -1) if branch_ids is None else branch_ids
        if position_ids is None:
            position_ids = (examples >= 0).long().cumsum(1).sub(1).clamp(min=0)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config.text_config)

        embeddings = self.model.embed(input_ids, selection_ids, state, layout)
        text = self.model.language_model
        with honouring_mask(text.config) as backend:
            rule = AttentionRule(_to_cache(examples, past_key_values, -1), _to_cache(branches, past_key_values, -1), _to_cache(vision, past_key_values, False))
            mask = prompt_mask(rule, input_ids.shape[1], backend, embeddings.dtype)
            hidden = text.run_layers(embeddings, mask, position_ids, past_key_values)
        history = PatchHistory.of(input_ids, selection_ids, self.config)
        state = self.model.remember(hidden, layout, state, history.selection[:, -1])
        if labels is not None or shift_labels is not None:
            shift_labels = _shift(labels) if shift_labels is None else shift_labels
            shift_labels, _ = split_extended(shift_labels, state.num_patches, state.num_slots, self.config)
            supervision = Supervision.of(input_ids, selection_ids, shift_labels, loss_weights, self.config)
            membership = Membership(examples, branches)
            return self._supervise(hidden, state, supervision, membership, loss_weights, weight_pointing_losses, z_loss, num_items_in_batch)
        last = self.model.point_predictor.step(hidden[:, -1], state, normed_location=self.config.location_input == "normed")
        logits = self.lm_head(text.norm(hidden[:, -logits_to_keep:]))
        return MolmoPointOutput(
            logits=logits,
            past_key_values=past_key_values,
            patch_logits=last.patch,
            subpatch_logits=last.subpatch,
            location_logits=last.location,
            grounding_state=state,
        )

    def _step(
        self,
        input_ids: Tensor,
        selection_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past: Cache | None,
        state: GroundingState,
    ) -> MolmoPointOutput:
        """One new token per row over a cache."""
        if past is None or input_ids.shape[1] != 1:
            raise ValueError(
                f"expected one token per row and the cache that belongs to the grounding_state, got {input_ids.shape[1]} tokens "
                f"and {'a' if past is not None else 'no'} cache; feed tokens one by one, or the whole prompt without a state"
            )
        if selection_ids is None:
            input_ids, selection_ids = split_extended(input_ids, state.num_patches, state.num_slots, self.config)
        if position_ids is None:
            seen = past.get_seq_length() + 1 if attention_mask is None else attention_mask.sum(1, keepdim=True)
            position_ids = torch.as_tensor(seen, device=input_ids.device).expand(len(input_ids), 1) - 1
        token, selection = input_ids[:, 0], selection_ids[:, 0]
        feeds_patch = (token == self.config.patch_token_id) & (selection != NO_SELECTION)
        state = state.after(torch.where(feeds_patch, selection.clamp(min=NO_SELECTION), state.selected_patch))
        text = self.model.language_model
        embeddings = self.model.embed(input_ids, selection_ids, state, None)
        mask = attention_mask
        if mask is None or mask.ndim == 2:
            key_mask = None if mask is None else mask.bool()
            mask = step_mask(key_mask, past, text.config._attn_implementation or "sdpa", embeddings.dtype)
        hidden = text.run_layers(embeddings, mask, position_ids, past)
        chosen = self.model.point_predictor.step(hidden[:, 0], state, normed_location=self.config.location_input == "normed")
        return MolmoPointOutput(
            logits=self.lm_head(text.norm(hidden)),
            past_key_values=past,
            patch_logits=chosen.patch,
            subpatch_logits=chosen.subpatch,
            location_logits=chosen.location,
            grounding_state=state,
        )

    def _supervise(
        self,
        hidden: Tensor,
        state: GroundingState,
        supervision: Supervision,
        membership: Membership,
        loss_weights: Tensor | None,
        weight_pointing_losses: bool,
        z_loss: float,
        num_items: Tensor | float | None,
    ) -> MolmoPointOutput:
        """Losses; vocabulary logits only at weighted positions, selection logits only at supervised selections."""
        logits = self.lm_head(self.model.language_model.norm(hidden[supervision.rows, supervision.columns]))
        chosen = select(self.model.point_predictor, hidden, state, supervision, membership, loss_weights, self.config)
        sums = text_loss(logits, supervision, z_loss) | chosen.losses(weight_pointing_losses)
        weight_sum = supervision.weights.sum()
        return MolmoPointOutput(
            loss=torch.stack(list(sums.values())).sum() / (weight_sum.clamp(min=torch.finfo(weight_sum.dtype).tiny) if num_items is None else num_items),
            logits=logits,
            loss_sums=sums,
            weight_sum=weight_sum,
            patch_logits=chosen.logits["patch"],
            subpatch_logits=chosen.logits["subpatch"],
            location_logits=chosen.logits.get("location"),
            grounding_state=state,
        )

    def _plain(self, input_ids: Tensor, selection_ids: Tensor | None, state: GroundingState, layout: RowLayout) -> tuple[Tensor, Tensor]:
        """Plain ids and selections, checked before they index anything."""
        if selection_ids is None:
            input_ids, selection_ids = split_extended(input_ids, state.num_patches, state.num_slots, self.config)
        check_selections(selection_ids, input_ids, layout, state.pooling.shape[1], self.config)
        return input_ids, selection_ids

    def _vision_tokens(self, input_ids: Tensor) -> Tensor:
        return torch.isin(input_ids, torch.tensor(self.config.vision_token_ids, device=input_ids.device))


def _single_example(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Example ids (B, S) of rows that hold one example each: 0, and -1 at padding."""
    if attention_mask is None:
        return torch.zeros_like(input_ids)
    if attention_mask.shape != input_ids.shape:
        raise ValueError(f"expected an attention_mask of shape {tuple(input_ids.shape)} with the prompt, got {tuple(attention_mask.shape)}")
    return attention_mask.to(input_ids.dtype) - 1


def _to_cache(values: Tensor, past: Cache | None, fill: int | bool) -> Tensor:
    """Pads (B, S) key properties to the length of a static cache, whose slots behind the prompt are still empty."""
    if past is None or not past.is_compileable:
        return values
    length, _ = past.get_mask_sizes(values.shape[1], 0)
    return nn.functional.pad(values, (0, length - values.shape[1]), value=fill)


def _shift(labels: Tensor) -> Tensor:
    """Labels aligned with the inputs (B, S), moved so that the target of position t stands at t."""
    return nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
