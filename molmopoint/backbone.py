"""The network below the vocabulary, and how it is loaded, saved and initialised.

Letters: B rows, S tokens per row, P image tokens per row (padded), T image tokens of the call, K slots per
image token, H text width, E pointing width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.molmo2.modeling_molmo2 import Molmo2PreTrainedModel, Molmo2TextModel
from transformers.utils.output_capturing import capture_outputs

from molmopoint.attention import CACHE, IN_STEPS, AttentionMask, flash_in_steps
from molmopoint.config import MolmoPointConfig
from molmopoint.connector import (
    Connector,
    SlotPositions,
    VisionTower,
    VisualFeatures,
    join_tables,
    tapped_features,
)
from molmopoint.decoder import DecoderLayer, run_faster
from molmopoint.errors import CheckpointError
from molmopoint.heads import GroundingHeads, GroundingState, PatchHead, RMSNorm, Stages
from molmopoint.key_map import register_converters, to_released
from molmopoint.load_checks import check_loading_info, verify_source
from molmopoint.mask_blocks import MaskBlocks
from molmopoint.quick_linear import multiply_faster
from molmopoint.rows import PatchHistory, RowLayout, check_image_tokens, lay_out
from molmopoint.saving import save_whole, write_card
from molmopoint.tokens import NO_SELECTION


class MolmoPointPreTrainedModel(Molmo2PreTrainedModel):
    """Loading, saving and initialisation."""

    config: MolmoPointConfig
    config_class = MolmoPointConfig
    # Also the units of sharding, which gather their weights when called: the heads, of which only parts are
    # called, are none.
    _no_split_modules = [DecoderLayer.__name__, "Molmo2VisionEncoderLayer", "Connector"]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loads released or own checkpoints, as in transformers; with None what `config` and `state_dict`
        describe.

        Nothing is unpickled, and no code of a repository runs, whatever `use_safetensors` and
        `trust_remote_code` say.

        Raises:
            CheckpointError: missing, truncated or foreign weight files; tensors missing, left over or of
                another shape.
        """
        register_converters()
        name, state_dict = pretrained_model_name_or_path, kwargs.get("state_dict")
        if name is None and (state_dict is None or kwargs.get("config") is None):
            raise CheckpointError(
                "expected config and state_dict together with None in place of a folder, got one of them or "
                "none"
            )
        if name is not None and state_dict is None and not _holds_adapters(Path(name)):
            verify_source(name, **kwargs)
        kwargs = {
            "ignore_mismatched_sizes": True,
            **kwargs,
            "use_safetensors": True,
            "trust_remote_code": False,
        }
        model, info = cast(
            tuple[Any, dict[str, Any]],
            super().from_pretrained(name, *args, output_loading_info=True, **kwargs),
        )
        check_loading_info(info, str(name))
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves weights under their released names and a released-style config; files appear when all of them
        are written.

        Loaded adapters are saved in the form of PEFT, as in transformers.

        Raises:
            CheckpointError: `molmopoint.load(..., quantize=)` has stored matrices in fewer bits.
        """
        stored_as = getattr(self, "stored_as", None)
        if stored_as is not None:
            raise CheckpointError(
                f"expected weights in full precision to save, got a model stored as {stored_as}; load it "
                "without quantize"
            )
        if getattr(self, "_hf_peft_config_loaded", False):
            return super().save_pretrained(
                save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs
            )
        # A tied output table is written too, as in released files: their tooling does not tie it when
        # reading.
        tensors = to_released(self.state_dict() if state_dict is None else state_dict, self.config)

        def write(folder: str) -> None:
            super(MolmoPointPreTrainedModel, self).save_pretrained(
                folder,
                is_main_process=is_main_process,
                state_dict=tensors,
                **{**kwargs, "save_original_format": False},
            )

        if kwargs.get("push_to_hub") or not is_main_process:
            if is_main_process:
                Path(save_directory).mkdir(parents=True, exist_ok=True)
                write_card(save_directory, self.config)
            return write(str(save_directory))
        save_whole(save_directory, write)
        return write_card(save_directory, self.config)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any
    ) -> nn.Embedding:
        """The input table, which cannot be resized.

        Raises:
            NotImplementedError: another size than the present one; extended ids start right behind the table.
        """
        if new_num_tokens not in (None, self.config.extended_start):
            raise NotImplementedError(
                f"expected the {self.config.extended_start} rows of the config, got {new_num_tokens}: the "
                "ids of places start behind "
                "them; give new tokens the ids of unused additional rows, or build the model with a larger "
                "additional_vocab_size"
            )
        return cast(nn.Embedding, self.get_input_embeddings())

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

    _no_split_modules = [DecoderLayer.__name__]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        run_faster(self)

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """The attention that its config is built with; a flash attention only ever computes steps."""
        if attn_implementation is not None and attn_implementation.endswith(IN_STEPS):
            return attn_implementation  # of a config that another model was built with
        return flash_in_steps(
            super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)
        )

    def get_correct_attn_implementation(
        self, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """The same where the attention is chosen later, by `set_attn_implementation`."""
        return flash_in_steps(super().get_correct_attn_implementation(requested_attention, *args, **kwargs))

    def run_layers(
        self,
        embeddings: Tensor,
        mask: AttentionMask | MaskBlocks,
        position_ids: Tensor,
        past: Cache | None,
        **more: Any,
    ) -> Tensor:
        """Hidden states (B, S, H) before the final norm, under a mask that is used as given; `more` is for
        the layers.
        """
        tables = {"scaled": self.rotary_emb, "unscaled": self.rotary_emb_unscaled}
        rotations = {
            kind: table(embeddings, position_ids=position_ids)
            for kind, table in tables.items()
            if kind in self.rope_types
        }
        hidden = embeddings
        given: dict[str, Any] = {"attention_mask": mask, "position_ids": position_ids, CACHE: past, **more}
        for layer, kind in zip(self.layers, self.rope_types, strict=True):
            hidden = layer(hidden, position_embeddings=rotations[kind], **given)
        return hidden.to(embeddings.device)

    @capture_outputs(tie_last_hidden_states=False)
    def record_layers(
        self, *inputs: Any, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> BaseModelOutput:
        """The same, with what is asked for of each layer; apart from the plain way, whose steps must be
        quick.

        Args:
            *inputs: of `run_layers`.
            output_hidden_states: keep the input of the first layer and the output of each, (B, S, H), in
                `hidden_states`.
            output_attentions: keep the attention weights (B, heads, Q, keys) of each in `attentions`; a
                backend without any says so.

        Returns:
            `last_hidden_state` before the final norm, and what was kept.
        """
        more = {"output_attentions": True} if output_attentions else {}
        return BaseModelOutput(last_hidden_state=self.run_layers(*inputs, **more))


class MolmoPointModel(MolmoPointPreTrainedModel):
    """Everything below the vocabulary. Files are those of whole models, so it is neither saved nor loaded
    alone.
    """

    def __init__(self, config: MolmoPointConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_tower = VisionTower(config.vision_config)
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
        for part in (self.vision_tower.layers, self.connector, self.language_model, self.point_predictor):
            multiply_faster(part)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Builds the model from `config` and `state_dict`, with None in place of a folder.

        Raises:
            CheckpointError: a folder or repository was named.
        """
        if pretrained_model_name_or_path is not None:
            raise CheckpointError(
                "expected MolmoPointForConditionalGeneration to read "
                f"{os.fspath(pretrained_model_name_or_path)!r}, got its part "
                "MolmoPointModel: files hold whole models; load that and take its `model`"
            )
        return super().from_pretrained(None, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Always fails.

        Raises:
            CheckpointError: files hold whole models.
        """
        raise CheckpointError(
            f"expected a whole model to save in {os.fspath(save_directory)!r}, got MolmoPointModel, its "
            "part below the vocabulary; "
            "save the MolmoPointForConditionalGeneration it belongs to"
        )

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
        _check_tables((pixel_values, image_token_pooling), (pixel_values_videos, video_token_pooling))
        layers = self.config.adapter_config.vision_feature_layer
        given = [pixels for pixels in (pixel_values, pixel_values_videos) if pixels is not None]
        parts = [tapped_features(self.vision_tower, pixels, layers) for pixels in given]
        vit_features = parts[0] if len(parts) == 1 else torch.cat(parts)
        first_frame_patch = len(parts[0]) if pixel_values is not None else 0
        pooling = join_tables(image_token_pooling, video_token_pooling, first_frame_patch).to(
            vit_features.device
        )
        return VisualFeatures(
            vit_features=vit_features,
            image_features=self.connector(vit_features, pooling),
            pooling=pooling,
            num_image_rows=0 if image_token_pooling is None else len(image_token_pooling),
            slots=(_columns(image_token_pooling), _columns(video_token_pooling)),
        )

    def no_visual_features(self, device: torch.device) -> VisualFeatures:
        """Stands for a call without pictures.

        In training one blank crop runs through the ViT and none of it is used, so that every weight gets a
        gradient (of zero) and sharded ranks stay in step.
        """
        pooling = torch.zeros(0, 1, dtype=torch.long, device=device)
        if self.training or self.vision_tower.is_sharded:
            patches, values = (
                len(self.vision_tower.positional_embedding),
                self.vision_tower.patch_embedding.in_features,
            )
            return self.get_visual_features(
                torch.zeros(1, patches, values, device=device, dtype=self.dtype), pooling
            )
        return VisualFeatures(
            vit_features=torch.zeros(0, self.config.vit_feature_dim, device=device, dtype=self.dtype),
            image_features=torch.zeros(
                0, self.config.text_config.hidden_size, device=device, dtype=self.dtype
            ),
            pooling=pooling,
            num_image_rows=0,
            slots=(0, 0),
        )

    def begin(
        self, input_ids: Tensor, visual: VisualFeatures, example_ids: Tensor | None, vision: Tensor
    ) -> tuple[RowLayout, GroundingState]:
        """Ties image tokens of the rows to the rows of the pooling table; keys are filled in after the text
        model has run.
        """
        layout = lay_out(input_ids, self.config.grounding, example_ids, vision)
        check_image_tokens(layout, len(visual.pooling))
        holds_clip = ((input_ids == self.config.frame_start_token_id) & vision).any(1)  # (B,)
        has_both = all(visual.slots)
        table_rows = torch.arange(len(layout.rows), device=input_ids.device)  # (T,)
        if has_both:
            table_rows = _clips_behind_pictures(holds_clip[layout.rows], visual)
        slots = torch.tensor(visual.slots, device=input_ids.device)
        own_slots = (
            torch.where(holds_clip, slots[1], slots[0]) if has_both else slots.max().expand(len(holds_clip))
        )  # (B,)
        state = GroundingState(
            patch_keys=visual.image_features.new_zeros(len(input_ids), 0, self.config.patch_embed_dim),
            patch_key_mask=layout.scatter(layout.indexable, False),
            rotary_positions=layout.scatter(layout.rotary_positions, 0),
            example_of_patch=layout.scatter(layout.examples, -1),
            table_rows=layout.scatter(table_rows, 0),
            image_features=visual.image_features,
            pooling=visual.pooling,
            vit_features=visual.vit_features,
            num_patches=layout.num_patches,
            num_slots=torch.where(layout.num_patches > 0, own_slots, 0),
            selected_patch=torch.full_like(layout.num_patches, NO_SELECTION),
            selected_slots=visual.pooling.new_full((len(input_ids), visual.pooling.shape[1]), -1),
        )
        return layout, state

    def embed(
        self,
        input_ids: Tensor,
        selections: Tensor,
        state: GroundingState,
        layout: RowLayout,
        token_rows: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Embeddings (B, S, H) of plain ids, with image features at image tokens and the chosen features at
        grounding tokens.

        Args:
            input_ids: (B, S) plain ids.
            selections: (B, S) what grounding tokens select.
            state: of the same rows.
            layout: of the same rows.
            token_rows: rows (H,) of single tokens, by their ids, in place of those of the input table.
        """
        embeddings = self._embed_tokens(input_ids, token_rows)
        table = state.table_rows[layout.rows, layout.patches] if layout.max_patches else layout.rows  # (T,)
        seen = state.image_features[table]  # (T, H)
        embeddings = embeddings.index_put((layout.rows, layout.columns), seen.to(embeddings), accumulate=True)

        is_patch = (input_ids == self.config.patch_token_id) & (selections >= 0)
        is_subpatch = (input_ids == self.config.subpatch_token_id) & (selections >= 0)
        last_patches = PatchHistory.of(input_ids, selections, self.config.grounding).selection
        return state.add_chosen(
            embeddings, selections, is_patch, is_subpatch, last_patches, self.build_vit_embedding
        )

    def embed_step(
        self, input_ids: Tensor, selections: Tensor, state: GroundingState, stages: Stages
    ) -> Tensor:
        """The same for one new token per row (B, 1, H), whose patch, if any, is the state's `selected_patch`.

        Args:
            input_ids: (B, 1).
            selections: (B, 1).
            state: with the selections of these tokens.
            stages: what comes next: without slots no row was fed a patch, without locations none was fed a
                slot.
        """
        embeddings = self._embed_tokens(input_ids)
        if stages.slots:
            fed = torch.where(input_ids == self.config.patch_token_id, selections, NO_SELECTION)[:, 0]
            rows = torch.arange(len(fed), device=fed.device)
            embeddings = embeddings + state.image_features_of(rows, fed).to(embeddings).unsqueeze(1)
        if stages.locations or self.point_predictor.location is None:
            is_slot = (input_ids == self.config.subpatch_token_id) & (selections >= 0)
            slots = state.selected_slots.gather(1, selections.clamp(min=0, max=state.pooling.shape[1] - 1))
            embeddings = embeddings + self.build_vit_embedding(state.vit_features_of(slots)).to(
                embeddings
            ) * is_slot.unsqueeze(-1)
        return embeddings

    def _embed_tokens(self, input_ids: Tensor, token_rows: Mapping[int, Tensor] | None = None) -> Tensor:
        """Rows (B, S, H) of the input table, in which `<im_low>` shares that of `<im_patch>`."""
        config = self.config
        if config.share_low_res_embedding:
            input_ids = torch.where(
                input_ids == config.image_non_indexable_patch_id, config.image_patch_id, input_ids
            )
        return embed_tokens(self.language_model.embed_tokens, input_ids, token_rows)

    def remember(
        self, hidden: Tensor, layout: RowLayout, state: GroundingState, last_patch: Tensor
    ) -> GroundingState:
        """Fills in the patch keys (B, P, E) from the hidden states (B, S, H) of a prompt."""
        heads = self.point_predictor
        image_tokens = heads.norm(hidden[layout.rows, layout.columns])  # (T, H)
        keys = heads.patch.keys(image_tokens, layout.rotary_positions).to(hidden.device)  # (T, E)
        with_keys = replace(state, patch_keys=layout.scatter(keys, 0.0))
        return with_keys.after(last_patch.clamp(min=NO_SELECTION))


def _clips_behind_pictures(is_of_clip: Tensor, visual: VisualFeatures) -> Tensor:
    """(T,) table row of every image token, row by row, where the table holds pictures first and clips behind
    them.

    Args:
        is_of_clip: (T,) True at image tokens of rows that hold a clip.
        visual: whose table it is.

    Raises:
        ValueError: another number of them than the table has.
    """
    wanted, found = len(visual.pooling) - visual.num_image_rows, int(is_of_clip.sum())
    if found != wanted:
        raise ValueError(
            f"expected {wanted} image tokens in rows with frame tokens, as the table of the clips says, got "
            f"{found}; a row holds pictures "
            "or one clip, and frames stand in frame tokens"
        )
    clips_so_far = is_of_clip.long().cumsum(0)
    pictures_before = torch.arange(len(is_of_clip), device=is_of_clip.device) - clips_so_far
    return torch.where(is_of_clip, visual.num_image_rows + clips_so_far - 1, pictures_before)


def embed_tokens(
    table: nn.Module, input_ids: Tensor, token_rows: Mapping[int, Tensor] | None = None
) -> Tensor:
    """Rows (B, S, H) of token ids (B, S).

    Args:
        table: the input table.
        input_ids: plain ids.
        token_rows: rows (H,) of single tokens, by their ids, in place of those of the table.
    """
    embeddings: Tensor = table(input_ids)
    for token_id, row in (token_rows or {}).items():
        is_token = (input_ids == token_id).unsqueeze(-1)  # (B, S, 1)
        embeddings = torch.where(is_token, row.to(embeddings), embeddings)
    return embeddings


def _holds_adapters(folder: Path) -> bool:
    """Whether this is a local folder of adapters, which names the model they belong to."""
    return (folder / "adapter_config.json").is_file()


def _check_tables(*given: tuple[Tensor | None, Tensor | None]) -> None:
    """Checks (pixels, table) of pictures and of clips before anything is computed with them."""
    for pixels, table in given:
        if (pixels is None) != (table is None):
            raise ValueError(
                "expected pixels and their pooling table together; pass all visual outputs of the processor"
            )
        if pixels is None or table is None or not table.numel():
            continue
        patches = pixels.shape[0] * pixels.shape[1]
        if int(table.max()) >= patches:
            raise ValueError(
                f"expected pooling entries below {patches}, the ViT patches of {pixels.shape[0]} crops, got "
                f"{int(table.max())}; "
                "pass pixels and tables of the same processor call"
            )


def _columns(table: Tensor | None) -> int:
    return 0 if table is None else table.shape[1]
