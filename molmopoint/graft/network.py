"""A host with grounding heads as one network: prompts, cached steps and training in one forward pass.

    pixels -> ViT -> features before merging -> merger -> image tokens -+
    ids ----------------------------> embeddings -----------------------+-> text model -> text logits
                                                                                |
                    features before merging -> patch, subpatch, location heads <-+-> selection logits

The core of the host and its output table keep their names, so the words of a graft are those of its host.
Grounding reads the states behind the final norm, which every host hands out; the heads have a norm of their
own.

Letters: B rows, S tokens per row, P image tokens per row (padded), T image tokens of the call, K slots per
image token, R positions with a text loss, H text width, V vocabulary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.utils.generic import can_return_tuple

from molmopoint.attention import (
    AttentionMask,
    AttentionRule,
    attention_of,
    either,
    flash_in_steps,
    prompt_mask,
    to_cache_length,
)
from molmopoint.errors import ProcessingError
from molmopoint.generation import GroundedGenerationMixin
from molmopoint.graft.config import GraftConfig
from molmopoint.graft.hosts import GraftFeatures
from molmopoint.heads import ALL_STAGES, GroundingHeads, GroundingState, PatchHead, RMSNorm, Stages
from molmopoint.load_checks import check_head, check_loading_info, verify_source
from molmopoint.losses import Membership, Supervision, mean_loss, select, shifted, text_loss
from molmopoint.modeling import MolmoPointOutput, tied_by_parts
from molmopoint.rows import (
    PatchHistory,
    RowLayout,
    check_image_tokens,
    check_selections,
    lay_out,
    split_extended,
)
from molmopoint.saving import save_whole
from molmopoint.tokens import NO_SELECTION

NEW_MODULES = ("build_vit_embedding", "point_predictor")
"""What a graft has beside the parts of its host."""


@dataclass(frozen=True)
class GraftState(GroundingState):
    """What a row keeps from its prompt.

    Attributes:
        shift: (B,) is added to positions counted by tokens: pictures take up fewer places than tokens.
    """

    shift: Tensor


@dataclass(frozen=True)
class _Prompt:
    """What the text model made of a prompt, and the bookkeeping of its rows.

    Attributes:
        hidden: (B, S, H) behind the final norm.
        input_ids, selection_ids: (B, S).
        state: what is kept for later steps.
        membership: packed example and branch of every token.
    """

    hidden: Tensor
    input_ids: Tensor
    selection_ids: Tensor
    state: GraftState
    membership: Membership


class GraftForConditionalGeneration(PreTrainedModel, GroundedGenerationMixin):
    """A vision-language model of transformers that points with grounding tokens."""

    config: GraftConfig
    config_class = GraftConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities: Any = ("image", "text")
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: GraftConfig) -> None:
        super().__init__(config)
        host, text = config.host_config, config.text_config
        vit_width = config.host.vit_width(host)
        self.model = AutoModel.from_config(host, trust_remote_code=False)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.build_vit_embedding = nn.Linear(vit_width, text.hidden_size)
        self.point_predictor = GroundingHeads(
            text.hidden_size,
            vit_width,
            config.patch_embed_dim,
            config.num_locations,
            config.rotary_theta,
            getattr(text, "rms_norm_eps", 1e-6),
        )
        self._no_split_modules = list(self.model._no_split_modules or ())
        self.post_init()
        self._honour_masks()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loads a graft that was saved, as in transformers. Nothing is unpickled, and no code of a repository
        runs.

        Raises:
            CheckpointError: missing, truncated or foreign weight files, or half of the heads; tensors missing, left
                over or of another shape.
        """
        if pretrained_model_name_or_path is not None and kwargs.get("state_dict") is None:
            verify_source(pretrained_model_name_or_path, **kwargs)
            title = f"grounding heads ({', '.join(NEW_MODULES)})"
            check_head(pretrained_model_name_or_path, _head_names(), title, **kwargs)
        safe = {"use_safetensors": True, "trust_remote_code": False}
        loaded = super().from_pretrained(
            pretrained_model_name_or_path,
            *args,
            output_loading_info=True,
            **{"ignore_mismatched_sizes": True, **kwargs, **safe},
        )
        model, info = cast(tuple[Any, dict[str, Any]], loaded)
        check_loading_info(info, str(pretrained_model_name_or_path))
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Writes the graft; files appear when all of them are written."""
        save: Any = super().save_pretrained
        save_whole(save_directory, lambda folder: save(folder, *args, **kwargs))
        card = Path(save_directory) / "README.md"
        if not card.exists():
            card.write_text(_CARD.format(host=self.config.host_config.model_type), encoding="utf-8")

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers; a flash attention computes steps of one token only, for it knows no masks."""
        super().set_attn_implementation(*args, **kwargs)
        self._honour_masks()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Output parameters that are input parameters too, by name: the table, or both parts of it while it
        is trained in two.
        """
        tied = super().get_expanded_tied_weights_keys(all_submodels)
        return tied if all_submodels or not tied else tied_by_parts(self.lm_head)

    def get_visual_features(
        self,
        pixel_values: Tensor | None = None,
        image_token_pooling: Tensor | None = None,
        image_grids: Tensor | None = None,
        **_: Any,
    ) -> GraftFeatures:
        """What the host sees of pictures; it serves any number of prompts about them.

        Args:
            pixel_values: of all pictures of the call.
            image_token_pooling: (T, K) ViT patches of each image token, over the call.
            image_grids: (pictures, 4) rows and columns of image tokens of the overview, then of the canvas.

        Raises:
            ValueError: one of them without the others.
            ProcessingError: the host saw another number of image tokens or ViT patches than the table has.
        """
        if pixel_values is None or image_token_pooling is None or image_grids is None:
            raise ValueError(
                "expected pixel_values, image_token_pooling and image_grids together; pass all visual outputs of "
                "the processor"
            )
        seen = self.config.host.see(self.model, pixel_values.to(self.dtype), image_token_pooling, image_grids)
        if len(seen.image_features) != len(seen.pooling):
            raise ProcessingError(
                f"expected {len(seen.pooling)} image tokens, the rows of the pooling table, got "
                f"{len(seen.image_features)} from the host; pass pixels and tables of the same processor call"
            )
        if int(seen.pooling.max()) >= len(seen.vit_features):
            raise ProcessingError(
                f"expected pooling entries below {len(seen.vit_features)}, the ViT patches that the host saw, got "
                f"{int(seen.pooling.max())}; pass pixels and tables of the same processor call"
            )
        return seen

    def no_visual_features(self, device: torch.device) -> GraftFeatures:
        """Stands for a call without pictures.

        In training the smallest picture runs through the host and none of it is used, so that every weight
        gets a gradient (of zero) and sharded ranks stay in step.
        """
        config = self.config
        pooling = torch.zeros(0, config.num_slots, dtype=torch.long, device=device)
        vit = torch.zeros(0, self.build_vit_embedding.in_features, device=device, dtype=self.dtype)
        features = torch.zeros(0, config.text_config.hidden_size, device=device, dtype=self.dtype)
        grids = torch.zeros(0, 4, dtype=torch.long, device=device)
        if self.training or hasattr(self.lm_head.weight, "device_mesh"):
            pixels, one = config.host.blank(self.model, config.host_config)
            table = torch.arange(config.num_slots, device=device).unsqueeze(0)
            seen = config.host.see(self.model, pixels, table, one)
            vit, features = seen.vit_features[:0], seen.image_features[:0]
            return replace(
                seen,
                vit_features=vit,
                image_features=features,
                pooling=pooling,
                num_image_rows=0,
                deep=tuple(part[:0] for part in seen.deep),
                grids=grids,
            )
        return GraftFeatures(vit, features, pooling, 0, (config.num_slots, 0), (), grids)

    @can_return_tuple
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
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        visual_features: GraftFeatures | None = None,
        grounding_state: GraftState | None = None,
        stages: Stages = ALL_STAGES,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        weight_pointing_losses: bool = False,
        z_loss: float = 0.0,
        num_items_in_batch: Tensor | float | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        open_list: Tensor | None = None,
    ) -> MolmoPointOutput:
        """One pass over a prompt, a training batch, or one new token per row.

        Arguments and output are those of `MolmoPointForConditionalGeneration.forward`. `position_ids` (B, S)
        are counted by tokens, as `generate` and training rows do: the host's own positions are made of them.
        `image_grids` (pictures, 4) are as `get_visual_features` takes them.

        Raises:
            ValueError: arguments that do not belong together.
            GroundingError: a selection that names no place of its row.
            ProcessingError: several examples or branches in a row of a host that cannot keep them apart.
        """
        cache = either(cache, past_key_values)
        if output_hidden_states or output_attentions:
            raise ValueError(
                "expected neither output_hidden_states nor output_attentions of a graft, got one of them; ask its "
                "host, model.model.language_model"
            )
        if grounding_state is not None:
            return self._step(
                input_ids, selection_ids, attention_mask, position_ids, cache, grounding_state, stages
            )
        if cache is not None and cache.get_seq_length() > 0:
            raise ValueError(
                "expected the grounding_state of the prompt together with its cache; pass both, as "
                "`generate` does"
            )
        if branch_ids is not None and position_ids is None:
            raise ValueError(
                "expected position_ids together with branch_ids, got none; each branch continues the "
                "positions of its trunk"
            )
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config.text_config)
        visual = visual_features
        if visual is None and pixel_values is not None:
            visual = self.get_visual_features(pixel_values, image_token_pooling, image_grids)
        membership = Membership.of(input_ids, attention_mask, example_ids, branch_ids)
        prompt = self._read(
            input_ids,
            selection_ids,
            attention_mask,
            position_ids,
            mm_token_type_ids,
            membership,
            visual,
            cache,
        )
        if shift_labels is None and labels is not None:
            shift_labels = shifted(labels)
        if shift_labels is None:
            return self._score(prompt.hidden, logits_to_keep, cache, prompt.state, ALL_STAGES)
        return self._supervise(
            prompt, shift_labels, loss_weights, weight_pointing_losses, z_loss, num_items_in_batch
        )

    def _read(
        self,
        input_ids: Tensor,
        selection_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        types: Tensor | None,
        membership: Membership,
        visual: GraftFeatures | None,
        cache: Cache | None,
    ) -> _Prompt:
        """Runs the text model over a prompt or a batch of rows."""
        settings, host = self.config.grounding, self.config.host
        if visual is None:
            visual = self.no_visual_features(input_ids.device)
        vision = None if types is None else types == 1
        layout = lay_out(input_ids, settings, membership.examples, vision)
        check_image_tokens(layout, len(visual.pooling))
        state = self._begin(input_ids, layout, visual)
        if selection_ids is None:
            input_ids, selection_ids = split_extended(input_ids, state.num_patches, state.num_slots, settings)
        check_selections(selection_ids, input_ids, state.num_patches, state.num_slots, settings)
        embeddings = self._embed(input_ids, selection_ids, state, layout)  # (B, S, H)

        if position_ids is None:
            position_ids = (membership.examples >= 0).long().cumsum(1).sub(1).clamp(min=0)
        positions = host.positions(position_ids, membership.examples, layout, visual.grids)
        mask = self._prompt_mask(attention_mask, membership, embeddings, cache)
        hidden = host.run(
            self.model,
            embeddings,
            mask,
            positions,
            cache,
            deep=visual.deep,
            places=layout.image_tokens,
        )
        heads = self.point_predictor
        history = PatchHistory.of(input_ids, selection_ids, settings)
        image_tokens = heads.norm(hidden[layout.rows, layout.columns])  # (T, H)
        keys = heads.patch.keys(image_tokens, layout.rotary_positions)  # (T, E)
        state = replace(
            state, patch_keys=layout.scatter(keys, 0.0), shift=host.shift(position_ids, positions)
        )
        last_patch = history.selection[:, -1].clamp(min=NO_SELECTION)
        kept = cast(GraftState, state.after(last_patch))
        return _Prompt(hidden, input_ids, selection_ids, kept, membership)

    def _prompt_mask(
        self,
        attention_mask: Tensor | None,
        membership: Membership,
        embeddings: Tensor,
        cache: Cache | None,
    ) -> AttentionMask:
        """Hosts look causally at pictures too.

        Raises:
            ProcessingError: several examples or branches in a row of a host that cannot keep them apart.
        """
        attention = attention_of(self.model.language_model.config)
        if not self.config.host.packs:
            if bool((membership.examples > 0).any()) or bool((membership.branches > 0).any()):
                raise ProcessingError(
                    f"expected one example without branches per row for a {self.config.host.title} host, whose "
                    "linear attention cannot keep tokens of a row apart, got several; set data.pool = 1"
                )
            return attention_mask
        nowhere = torch.zeros_like(membership.examples, dtype=torch.bool)
        rule = AttentionRule(
            examples=to_cache_length(membership.examples, cache, -1),
            branches=to_cache_length(membership.branches, cache, -1),
            vision=to_cache_length(nowhere, cache, False),
        )
        return prompt_mask(rule, embeddings.shape[1], attention, embeddings.dtype)

    def _begin(self, input_ids: Tensor, layout: RowLayout, visual: GraftFeatures) -> GraftState:
        """Ties image tokens of the rows to the rows of the pooling table; keys come when the text model has
        run.
        """
        order = torch.arange(len(layout.rows), device=input_ids.device)  # (T,)
        num_slots = torch.full_like(layout.num_patches, self.config.num_slots)
        nothing = torch.full_like(layout.num_patches, NO_SELECTION)  # (B,)
        return GraftState(
            patch_keys=visual.image_features.new_zeros(len(input_ids), 0, self.config.patch_embed_dim),
            patch_key_mask=layout.scatter(layout.indexable, False),
            rotary_positions=layout.scatter(layout.rotary_positions, 0),
            example_of_patch=layout.scatter(layout.examples, -1),
            table_rows=layout.scatter(order, 0),
            image_features=visual.image_features,
            pooling=visual.pooling,
            vit_features=visual.vit_features,
            num_patches=layout.num_patches,
            num_slots=torch.where(layout.num_patches > 0, num_slots, 0),
            selected_patch=nothing,
            selected_slots=visual.pooling.new_full((len(input_ids), visual.pooling.shape[1]), -1),
            shift=torch.zeros_like(nothing),
        )

    def _embed(self, input_ids: Tensor, selections: Tensor, state: GraftState, layout: RowLayout) -> Tensor:
        """Embeddings (B, S, H) of plain ids; image features stand in place of image tokens, and what was
        chosen is added at grounding tokens.
        """
        settings = self.config.grounding
        embeddings: Tensor = self.get_input_embeddings()(input_ids)
        table = state.table_rows[layout.rows, layout.patches] if layout.max_patches else layout.rows  # (T,)
        seen = state.image_features[table].to(embeddings)  # (T, H)
        embeddings = embeddings.index_put((layout.rows, layout.columns), seen)

        is_patch = (input_ids == settings.patch_token_id) & (selections >= 0)
        is_subpatch = (input_ids == settings.subpatch_token_id) & (selections >= 0)
        last_patches = PatchHistory.of(input_ids, selections, settings).selection
        return state.add_chosen(
            embeddings, selections, is_patch, is_subpatch, last_patches, self.build_vit_embedding
        )

    def _embed_step(self, input_ids: Tensor, selections: Tensor, state: GraftState, stages: Stages) -> Tensor:
        """The same for one new token per row (B, 1, H)."""
        settings = self.config.grounding
        embeddings: Tensor = self.get_input_embeddings()(input_ids)
        if stages.slots:
            fed = torch.where(input_ids == settings.patch_token_id, selections, NO_SELECTION)[:, 0]
            rows = torch.arange(len(fed), device=fed.device)
            embeddings = embeddings + state.image_features_of(rows, fed).to(embeddings).unsqueeze(1)
        if stages.locations or self.point_predictor.location is None:
            is_slot = (input_ids == settings.subpatch_token_id) & (selections >= 0)
            last = state.pooling.shape[1] - 1
            slots = state.selected_slots.gather(1, selections.clamp(min=0, max=last))  # (B, 1)
            chosen = self.build_vit_embedding(state.vit_features_of(slots))  # (B, 1, H)
            embeddings = embeddings + chosen.to(embeddings) * is_slot.unsqueeze(-1)
        return embeddings

    def _step(
        self,
        input_ids: Tensor,
        selection_ids: Tensor | None,
        attention_mask: AttentionMask,
        position_ids: Tensor | None,
        cache: Cache | None,
        state: GraftState,
        stages: Stages,
    ) -> MolmoPointOutput:
        """One new token per row over a cache."""
        if cache is None or input_ids.shape[1] != 1:
            raise ValueError(
                "expected one token per row and the cache that belongs to the grounding_state, got "
                f"{input_ids.shape[1]} tokens and {'a' if cache is not None else 'no'} cache; feed tokens one by "
                "one, or the whole prompt without a state"
            )
        settings, host = self.config.grounding, self.config.host
        if selection_ids is None:
            input_ids, selection_ids = split_extended(input_ids, state.num_patches, state.num_slots, settings)
        if position_ids is None:
            position_ids = torch.full_like(input_ids, cache.get_seq_length())
        if stages.slots:  # else no row was fed a patch
            token, selection = input_ids[:, 0], selection_ids[:, 0]
            feeds_patch = (token == settings.patch_token_id) & (selection != NO_SELECTION)
            fed = torch.where(feeds_patch, selection.clamp(min=NO_SELECTION), state.selected_patch)
            state = cast(GraftState, state.after(fed))
        embeddings = self._embed_step(input_ids, selection_ids, state, stages)  # (B, 1, H)
        positions = host.step_positions(position_ids + state.shift.unsqueeze(1))
        hidden = host.run(self.model, embeddings, attention_mask, positions, cache)
        return self._score(hidden, 0, cache, state, stages)

    def _score(
        self, hidden: Tensor, logits_to_keep: int, cache: Cache | None, state: GraftState, stages: Stages
    ) -> MolmoPointOutput:
        """Text logits of the last positions (0 = all), and selection logits of the very last one."""
        chosen = self.point_predictor.step(
            hidden[:, -1],
            state,
            normed_location=self.config.location_input == "normed",
            stages=stages,
        )
        logits = None
        if stages.words:
            logits = self.lm_head(hidden[:, slice(-logits_to_keep, None)])  # (B, S or logits_to_keep, V)
        return MolmoPointOutput(
            logits=logits,
            cache=cache,
            patch_logits=chosen.patch,
            subpatch_logits=chosen.subpatch,
            location_logits=chosen.location,
            grounding_state=state,
        )

    def _supervise(
        self,
        prompt: _Prompt,
        shift_labels: Tensor,
        loss_weights: Tensor | None,
        weight_pointing_losses: bool,
        z_loss: float,
        num_items: Tensor | float | None,
    ) -> MolmoPointOutput:
        """Losses; vocabulary logits only at weighted positions, selection logits only at supervised
        selections.
        """
        settings, state, hidden = self.config.grounding, prompt.state, prompt.hidden
        labels, _ = split_extended(shift_labels, state.num_patches, state.num_slots, settings)
        supervision = Supervision.of(prompt.input_ids, prompt.selection_ids, labels, loss_weights, settings)
        logits = self.lm_head(hidden[supervision.rows, supervision.columns])  # (R, V)
        chosen = select(
            self.point_predictor, hidden, state, supervision, prompt.membership, loss_weights, settings
        )
        sums = text_loss(logits, supervision, z_loss) | chosen.losses(weight_pointing_losses)
        weight_sum = supervision.weights.sum()
        return MolmoPointOutput(
            loss=mean_loss(sums, weight_sum, num_items),
            logits=logits,
            loss_sums=sums,
            weight_sum=weight_sum,
            patch_logits=chosen.logits_or_none("patch"),
            subpatch_logits=chosen.logits_or_none("subpatch"),
            location_logits=chosen.logits_or_none("location"),
            grounding_state=state,
        )

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeats rows for `num_return_sequences`; pictures are seen once and shared."""
        if expand_size > 1 and model_kwargs.get("pixel_values") is not None:
            names = ("pixel_values", "image_token_pooling", "image_grids")
            pixels = {name: model_kwargs.pop(name, None) for name in names}
            model_kwargs["visual_features"] = self.get_visual_features(**pixels)
        return super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )

    def _honour_masks(self) -> None:
        """Keeps flash attention, where it was chosen for the text model, to steps of one token."""
        text = self.model.language_model.config
        text._attn_implementation = flash_in_steps(attention_of(text))

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PatchHead):
            init.zeros_(module.no_more_points)
        elif isinstance(module, RMSNorm):
            init.ones_(module.weight)


def draw_new_weights(model: GraftForConditionalGeneration, generator: torch.Generator) -> None:
    """Fills what is new in a graft; the words of the host stay as they are.

    Weights and rows of new tokens come from N(0, std) with the config's `initializer_range`, biases and the
    no-more-points vector are 0, the scale of the norm is 1.

    Args:
        model: with the parts of its host in it.
        generator: on the CPU; the same seed draws the same in every dtype.

    Source: MolmoPoint's training code; output rows of untied tables, which that leaves to chance, are drawn
        like input rows.
    """
    std = model.config.initializer_range
    for name, parameter in model.named_parameters():
        if name.partition(".")[0] not in NEW_MODULES:
            continue
        values = torch.randn(parameter.shape, generator=generator) * std
        if name.endswith((".bias", ".no_more_points")):
            values = torch.zeros(parameter.shape)
        elif name.endswith("norm.weight"):
            values = torch.ones(parameter.shape)
        parameter.data = values.to(model.lm_head.weight)
    rows = model.config.new_rows
    embedding: Any = model.get_input_embeddings()
    for table in (embedding.weight, model.lm_head.weight):
        drawn = torch.randn(len(rows), table.shape[1], generator=generator) * std
        with torch.no_grad():
            table[rows.start : rows.stop] = drawn.to(table)


_CARD = """---
library_name: molmopoint
pipeline_tag: image-text-to-text
tags: [pointing, grounding, molmopoint]
---

# A graft: grounding heads on a {host}

A vision-language model of transformers with grounding tokens of its own. Its new parts have to be trained: as
it leaves `molmopoint graft`, it talks like its host and points at random.

```python
import molmopoint

pointer = molmopoint.load("this folder or repository")
print(pointer.point("picture.jpg", "the red circles").points)
```

Host, data, training, scores, licence and limits: to be filled in by whoever publishes this model.
"""


def _head_names() -> list[str]:
    """Names of the tensors that a graft has beside those of its host, which no width changes."""
    with torch.device("meta"):
        modules = (nn.Linear(8, 8), GroundingHeads(8, 8, 8, 9, 1e4, 1e-6))
    names = []
    for name, module in zip(NEW_MODULES, modules, strict=True):
        names += [f"{name}.{inner}" for inner in module.state_dict()]
    return names
