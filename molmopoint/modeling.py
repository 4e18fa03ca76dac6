"""MolmoPoint as one network: ViT, connector, text model, pointing heads. Wiring only.

    pixels -> ViT -> tapped features -> connector -> image tokens -+
    ids ------------------------------> embeddings ----------------+-> text model -> text logits
                                                                           |
                     tapped features -> patch, subpatch, location heads <--+-> selection logits

Letters: B rows, S tokens per row, P image tokens per row (padded), T image tokens of the call, K slots per
image token, R positions with a text loss, H text width, V + A vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.utils.generic import ModelOutput, can_return_tuple

from molmopoint.attention import (
    AttentionMask,
    AttentionRule,
    attention_of,
    either,
    step_mask,
    to_cache_length,
)
from molmopoint.backbone import MolmoPointModel, MolmoPointPreTrainedModel
from molmopoint.config import MolmoPointConfig
from molmopoint.connector import VisualFeatures
from molmopoint.decoder import give_room
from molmopoint.errors import InputWarning
from molmopoint.generation import GroundedGenerationMixin
from molmopoint.heads import ALL_STAGES, GroundingState, SelectionLogits, Stages
from molmopoint.losses import Membership, Supervision, mean_loss, select, shifted, text_loss
from molmopoint.mask_blocks import MaskBlocks, text_mask
from molmopoint.quick_linear import multiply_faster
from molmopoint.rows import PatchHistory, RowLayout, check_selections, split_extended
from molmopoint.tokens import NO_SELECTION


@dataclass
class MolmoPointOutput(ModelOutput):
    """What a forward pass returns.

    Attributes:
        loss: (text + patch + subpatch + location [+ z]) / weight_sum, when labels were given.
        logits: (B, S, V + A), or its last `logits_to_keep` positions; with labels (R, V + A), the weighted
            positions in row-major order.
        loss_sums: kind -> unreduced sum of each part; "text" is cross-entropy alone.
        weight_sum: sum of the text weights.
        patch_logits, subpatch_logits, location_logits: with labels one row per supervised selection
            (row-major), None if there is none; in cached steps (B, P + 1), (B, K), (B, L). Float32; the patch
            logits of steps are unscaled and unmasked.
        grounding_state: what the prompt keeps for later steps.
        cache: keys and values of the text model; also readable as `past_key_values`.
        hidden_states: layers + 1 tensors (B, S, H), if asked for: the embeddings and what each layer
            returned, the last one after the final norm; None where only some were asked for.
        attentions: of each layer (B, heads, S, keys), if asked for; empty where the attention backend keeps
            none.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[Tensor | None, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    loss_sums: dict[str, Tensor] | None = None
    weight_sum: Tensor | None = None
    patch_logits: Tensor | None = None
    subpatch_logits: Tensor | None = None
    location_logits: Tensor | None = None
    grounding_state: GroundingState | None = None

    @property
    def past_key_values(self) -> Cache | None:
        """The cache."""
        return self.cache


@dataclass(frozen=True)
class _Read:
    """What the layers of the text model made of their input.

    Attributes:
        hidden: (B, S, H) before the final norm.
        normed: the same after it, where hidden states were asked for; gradients of text logits flow through
            it.
        recorded: `hidden_states` and `attentions` of the output, as far as they were asked for.
    """

    hidden: Tensor
    normed: Tensor | None
    recorded: dict[str, Any]


@dataclass(frozen=True)
class _Tokens:
    """A batch of rows as it was given, one value per token (B, S); see `forward`."""

    input_ids: Tensor
    selection_ids: Tensor | None
    attention_mask: Tensor | None
    position_ids: Tensor | None
    example_ids: Tensor | None
    branch_ids: Tensor | None
    mm_token_type_ids: Tensor | None

    def __post_init__(self) -> None:
        if self.input_ids.ndim != 2 or not self.input_ids.shape[1]:
            raise ValueError(
                "expected input_ids of shape (rows, tokens) with one token or more, got "
                f"{tuple(self.input_ids.shape)}"
            )
        self.check_aligned(**vars(self))
        if self.branch_ids is not None and self.position_ids is None:
            raise ValueError(
                "expected position_ids together with branch_ids, got none; each branch continues the "
                "positions of its trunk"
            )

    def check_aligned(self, **per_token: Tensor | None) -> None:
        """Checks that what else is given per token has the shape of the ids."""
        for name, given in per_token.items():
            if given is not None and given.shape != self.input_ids.shape:
                raise ValueError(
                    f"expected {name} of shape {tuple(self.input_ids.shape)} like the input_ids, got "
                    f"{tuple(given.shape)}"
                )

    def membership(self) -> Membership:
        """Packed example and branch of every token."""
        return Membership.of(self.input_ids, self.attention_mask, self.example_ids, self.branch_ids)


@dataclass(frozen=True)
class _Prompt:
    """What the text model made of a prompt, and the bookkeeping of its rows.

    Attributes:
        read: of the text model.
        input_ids: (B, S) plain ids.
        selection_ids: (B, S) what grounding tokens select.
        layout: where the image tokens are.
        state: what is kept for selections, still without the patch keys.
        membership: packed example and branch of every token.
    """

    read: _Read
    input_ids: Tensor
    selection_ids: Tensor
    layout: RowLayout
    state: GroundingState
    membership: Membership


class MolmoPointForConditionalGeneration(MolmoPointPreTrainedModel, GroundedGenerationMixin):
    """MolmoPoint with its vocabulary: prompts, cached steps and training in one forward pass."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    accepts_loss_kwargs = True

    def __init__(self, config: MolmoPointConfig) -> None:
        super().__init__(config)
        self.model = MolmoPointModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.extended_start, bias=False)
        multiply_faster(self.lm_head)
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Output parameters that are input parameters too, by name: the table, or both parts of it while it
        is trained in two.
        """
        tied = super().get_expanded_tied_weights_keys(all_submodels)
        return tied if all_submodels or not tied else tied_by_parts(self.lm_head)

    def get_visual_features(self, **pixels: Tensor | None) -> VisualFeatures:
        """See `MolmoPointModel.get_visual_features`."""
        return self.model.get_visual_features(**pixels)

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
        pixel_values_videos: Tensor | None = None,
        video_token_pooling: Tensor | None = None,
        video_grids: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        visual_features: VisualFeatures | None = None,
        grounding_state: GroundingState | None = None,
        stages: Stages = ALL_STAGES,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        weight_pointing_losses: bool = False,
        z_loss: float = 0.0,
        num_items_in_batch: Tensor | float | None = None,
        output_hidden_states: bool | Sequence[int] | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        open_list: Tensor | None = None,
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
            mm_token_type_ids: (B, S) 1 at vision tokens; found by id if not given. Without anything to see,
                too, vision tokens are read as text, with an `InputWarning`.
            pixel_values: (crops, G, patch values) of all pictures of the call.
            image_token_pooling: (T_i, K_i) their pooling table, absolute over the call.
            image_grids: accepted from the processor, not needed here.
            image_num_crops: accepted from the processor, not needed here.
            pixel_values_videos: (frames, G, patch values) of all clips.
            video_token_pooling: (T_v, K_v) their pooling table, absolute over the call.
            video_grids: accepted from the processor, not needed here.
            cache: keys and values so far; together with `grounding_state` the call is a cached step of one
                token per row.
            past_key_values: the same under its older name.
            visual_features: instead of pixels, what `get_visual_features` returned.
            grounding_state: what the prompt pass returned.
            stages: in cached steps, which logits to compute; the others are None.
            use_cache: whether a prompt makes a cache.
            logits_to_keep: compute vocabulary logits only for the last positions; 0 = all.
            weight_pointing_losses: weight pointing losses like their text tokens; released models did not.
            z_loss: factor of the squared log normaliser of the text softmax.
            num_items_in_batch: divisor of the loss; the sum of the weights of this batch if not given.
            output_hidden_states: keep the hidden states of all layers, or of those with the given numbers (0:
                the embeddings, -1: those after the final norm).
            output_attentions: keep the attention weights; only eager attention has any.
            return_dict: False: a tuple of the fields that are not None, as in transformers.
            open_list: accepted from the processor, needed by `generate` alone.

        Raises:
            ValueError: arguments that do not belong together or have different shapes.
            GroundingError: a selection that names no place of its row.
        """
        cache = either(cache, past_key_values)
        record = self._to_record(output_hidden_states, output_attentions)
        if grounding_state is not None:
            return self._step(
                input_ids, selection_ids, attention_mask, position_ids, cache, grounding_state, stages, record
            )
        if cache is not None and cache.get_seq_length() > 0:
            raise ValueError(
                "expected the grounding_state of the prompt together with its cache; pass both, as "
                "`generate` does"
            )
        tokens = _Tokens(
            input_ids, selection_ids, attention_mask, position_ids, example_ids, branch_ids, mm_token_type_ids
        )
        tokens.check_aligned(labels=labels, shift_labels=shift_labels, loss_weights=loss_weights)
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config.text_config)
        give_room(cache)

        visual = visual_features or self._see(
            pixel_values, image_token_pooling, pixel_values_videos, video_token_pooling
        )
        prompt = self._read(tokens, visual, cache, record)
        history = PatchHistory.of(prompt.input_ids, prompt.selection_ids, self.config.grounding)
        state = self.model.remember(prompt.read.hidden, prompt.layout, prompt.state, history.selection[:, -1])

        if shift_labels is None and labels is not None:
            shift_labels = shifted(labels)
        if shift_labels is None:
            return self._score(prompt.read, logits_to_keep, cache, state, ALL_STAGES)
        return self._supervise(
            prompt, state, shift_labels, loss_weights, weight_pointing_losses, z_loss, num_items_in_batch
        )

    def hidden_states(
        self,
        input_ids: Tensor,
        selection_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        example_ids: Tensor | None = None,
        branch_ids: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_token_pooling: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_token_pooling: Tensor | None = None,
        visual_features: VisualFeatures | None = None,
        token_rows: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """States (B, S, H) after the final norm; no logits of any kind are computed.

        Args as in `forward`, and `token_rows`: rows (H,) of single tokens, by their ids, in place of those of
        the input table.
        """
        tokens = _Tokens(
            input_ids, selection_ids, attention_mask, position_ids, example_ids, branch_ids, mm_token_type_ids
        )
        visual = visual_features or self._see(
            pixel_values, image_token_pooling, pixel_values_videos, video_token_pooling
        )
        prompt = self._read(tokens, visual, token_rows=token_rows)
        return self.model.language_model.norm(prompt.read.hidden)

    def _to_record(
        self, hidden_states: bool | Sequence[int] | None, attentions: bool | None
    ) -> dict[str, Any]:
        """What the layers keep beside their result; what the call leaves open is up to the config."""
        if hidden_states is None:
            hidden_states = self.config.output_hidden_states
        if attentions is None:
            attentions = self.config.output_attentions
        if not hidden_states and not attentions:
            return {}
        return {"output_hidden_states": hidden_states, "output_attentions": attentions}

    def _run_layers(
        self,
        embeddings: Tensor,
        mask: AttentionMask | MaskBlocks,
        position_ids: Tensor,
        past: Cache | None,
        record: dict[str, Any],
    ) -> _Read:
        """The layers of the text model, and what is recorded of them."""
        text = self.model.language_model
        if not record:
            return _Read(text.run_layers(embeddings, mask, position_ids, past), None, record)
        # All states, for versions of transformers number those that are asked for differently.
        kept = {name: bool(value) for name, value in record.items()}
        inputs = (embeddings, mask, position_ids, past)
        output: Any = text.record_layers(*inputs, return_dict=True, **kept)  # pyright: ignore[reportCallIssue] (of the decorator)
        hidden, normed = output.last_hidden_state, None
        recorded: dict[str, Any] = {}
        if output.attentions is not None:
            recorded["attentions"] = output.attentions
        if output.hidden_states is not None:
            normed = text.norm(hidden)
            recorded["hidden_states"] = _chosen(
                (*output.hidden_states[:-1], normed), record["output_hidden_states"]
            )
        return _Read(hidden, normed, recorded)

    def _see(self, *pixels_and_tables: Tensor | None) -> VisualFeatures | None:
        """Features of pixels and their tables, as `get_visual_features` takes them; None if there is nothing
        to see.
        """
        if all(part is None for part in pixels_and_tables):
            return None
        return self.model.get_visual_features(*pixels_and_tables)

    def _read(
        self,
        tokens: _Tokens,
        visual: VisualFeatures | None,
        past: Cache | None = None,
        record: dict[str, Any] | None = None,
        token_rows: Mapping[int, Tensor] | None = None,
    ) -> _Prompt:
        """Runs the text model over a prompt or a batch of rows.

        Args:
            tokens: of the rows.
            visual: what is seen in them; None for nothing.
            past: an empty cache to fill, or None.
            record: what the layers keep.
            token_rows: as in `hidden_states`.
        """
        input_ids, membership = tokens.input_ids, tokens.membership()
        vision = self._vision_tokens(tokens, is_blind=visual is None)  # (B, S)
        if visual is None:
            visual = self.model.no_visual_features(input_ids.device)
        layout, state = self.model.begin(input_ids, visual.to(input_ids.device), tokens.example_ids, vision)
        input_ids, selection_ids = self._plain(input_ids, tokens.selection_ids, state)
        embeddings = self.model.embed(input_ids, selection_ids, state, layout, token_rows)  # (B, S, H)

        position_ids = tokens.position_ids
        if position_ids is None:
            position_ids = (membership.examples >= 0).long().cumsum(1).sub(1).clamp(min=0)
        rule = AttentionRule(
            examples=to_cache_length(membership.examples, past, -1),
            branches=to_cache_length(membership.branches, past, -1),
            vision=to_cache_length(vision, past, False),
        )
        attention = attention_of(self.model.language_model.config)
        mask = text_mask(rule, input_ids.shape[1], attention, embeddings.dtype)
        read = self._run_layers(embeddings, mask, position_ids, past, record or {})
        return _Prompt(read, input_ids, selection_ids, layout, state, membership)

    def _step(
        self,
        input_ids: Tensor,
        selection_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past: Cache | None,
        state: GroundingState,
        stages: Stages,
        record: dict[str, Any],
    ) -> MolmoPointOutput:
        """One new token per row over a cache."""
        if past is None or input_ids.shape[1] != 1:
            raise ValueError(
                "expected one token per row and the cache that belongs to the grounding_state, got "
                f"{input_ids.shape[1]} tokens "
                f"and {'a' if past is not None else 'no'} cache; feed tokens one by one, or the whole "
                "prompt without a state"
            )
        if selection_ids is None:
            input_ids, selection_ids = split_extended(
                input_ids, state.num_patches, state.num_slots, self.config.grounding
            )
        if position_ids is None:
            num_tokens = (
                past.get_seq_length() + 1 if attention_mask is None else attention_mask.sum(1, keepdim=True)
            )
            position_ids = torch.as_tensor(num_tokens, device=input_ids.device).expand(len(input_ids), 1) - 1
        embeddings, state = self.feed(input_ids, selection_ids, state, stages)  # (B, 1, H)

        mask = attention_mask
        is_ready = mask is not None and mask.ndim != 2
        if not is_ready and (mask is not None or past.is_compileable):
            key_mask = None if mask is None else mask.bool()
            mask = step_mask(key_mask, past, attention_of(self.model.language_model.config), embeddings.dtype)
        read = self._run_layers(embeddings, mask, position_ids, past, record)
        return self._score(read, 0, past, state, stages)

    def feed(
        self, input_ids: Tensor, selection_ids: Tensor, state: GroundingState, stages: Stages
    ) -> tuple[Tensor, GroundingState]:
        """Embeddings (B, 1, H) of one new token per row, and the state with what it selects.

        Args:
            input_ids: (B, 1) plain ids.
            selection_ids: (B, 1).
            state: before these tokens.
            stages: what comes next.
        """
        if stages.slots:  # else no row was fed a patch
            token, selection = input_ids[:, 0], selection_ids[:, 0]
            feeds_patch = (token == self.config.patch_token_id) & (selection != NO_SELECTION)
            state = state.after(
                torch.where(feeds_patch, selection.clamp(min=NO_SELECTION), state.selected_patch)
            )
        return self.model.embed_step(input_ids, selection_ids, state, stages), state

    def score_places(self, hidden: Tensor, state: GroundingState, stages: Stages) -> SelectionLogits:
        """Selection logits of the last tokens, from their hidden states (B, H) before the final norm."""
        norms_location = self.config.location_input == "normed"
        return self.model.point_predictor.step(hidden, state, normed_location=norms_location, stages=stages)

    def _normed(self, read: _Read, *positions: Any) -> Tensor:
        """Hidden states after the final norm at some positions; the recorded ones where there are any."""
        if read.normed is not None:
            return read.normed[positions]
        return self.model.language_model.norm(read.hidden[positions])

    def _score(
        self, read: _Read, logits_to_keep: int, past: Cache | None, state: GroundingState, stages: Stages
    ) -> MolmoPointOutput:
        """Text logits of the last positions (0 = all), and selection logits of the very last one."""
        chosen = self.score_places(read.hidden[:, -1], state, stages)
        logits = None
        if stages.words:
            last = slice(-logits_to_keep, None)
            logits = self.lm_head(self._normed(read, slice(None), last))  # (B, S or logits_to_keep, V + A)
        return MolmoPointOutput(
            logits=logits,
            cache=past,
            **read.recorded,
            patch_logits=chosen.patch,
            subpatch_logits=chosen.subpatch,
            location_logits=chosen.location,
            grounding_state=state,
        )

    def _supervise(
        self,
        prompt: _Prompt,
        state: GroundingState,
        shift_labels: Tensor,
        loss_weights: Tensor | None,
        weight_pointing_losses: bool,
        z_loss: float,
        num_items: Tensor | float | None,
    ) -> MolmoPointOutput:
        """Losses; vocabulary logits only at weighted positions, selection logits only at supervised
        selections.
        """
        settings = self.config.grounding
        hidden = prompt.read.hidden  # (B, S, H)
        labels, _ = split_extended(shift_labels, state.num_patches, state.num_slots, settings)
        supervision = Supervision.of(prompt.input_ids, prompt.selection_ids, labels, loss_weights, settings)

        logits = self.lm_head(self._normed(prompt.read, supervision.rows, supervision.columns)).to(
            hidden.device
        )  # (R, V + A)
        chosen = select(
            self.model.point_predictor, hidden, state, supervision, prompt.membership, loss_weights, settings
        )
        sums = text_loss(logits, supervision, z_loss) | chosen.losses(weight_pointing_losses)
        weight_sum = supervision.weights.sum()
        return MolmoPointOutput(
            loss=mean_loss(sums, weight_sum, num_items),
            logits=logits,
            **prompt.read.recorded,
            loss_sums=sums,
            weight_sum=weight_sum,
            patch_logits=chosen.logits_or_none("patch"),
            subpatch_logits=chosen.logits_or_none("subpatch"),
            location_logits=chosen.logits_or_none("location"),
            grounding_state=state,
        )

    def _plain(
        self, input_ids: Tensor, selection_ids: Tensor | None, state: GroundingState
    ) -> tuple[Tensor, Tensor]:
        """Plain ids and selections, checked before they index anything."""
        settings = self.config.grounding
        if selection_ids is None:
            input_ids, selection_ids = split_extended(input_ids, state.num_patches, state.num_slots, settings)
        check_selections(selection_ids, input_ids, state.num_patches, state.num_slots, settings)
        return input_ids, selection_ids

    def _vision_tokens(self, tokens: _Tokens, is_blind: bool) -> Tensor:
        """(B, S) True at vision tokens, by their types or ids; a call that sees nothing reads them as text,
        and says so.
        """
        if tokens.mm_token_type_ids is not None:
            return tokens.mm_token_type_ids == 1
        ids = torch.tensor(self.config.vision_token_ids, device=tokens.input_ids.device)
        found = torch.isin(tokens.input_ids, ids)
        if not is_blind or not bool(found.any()):
            return found
        warnings.warn(
            "expected pixels or visual_features for the image tokens of input_ids, got none; they are read "
            "as text, and nothing can "
            "be pointed at; pass all that the processor returned",
            InputWarning,
            stacklevel=4,
        )
        return torch.zeros_like(found)


def _chosen(states: tuple[Tensor, ...], wanted: bool | Sequence[int] | None) -> tuple[Tensor | None, ...]:
    """Hidden states with the wanted numbers, negative ones from the end, and None in place of the others; all
    if no numbers are given.
    """
    if not isinstance(wanted, Sequence):
        return states
    chosen: list[Tensor | None] = [None] * len(states)
    for number in wanted:
        if -len(states) <= number < len(states):
            chosen[number] = states[number]
    return tuple(chosen)


def tied_by_parts(lm_head: nn.Module) -> dict[str, str]:
    """The parameters of an output layer, each with that of the input table it is tied to, by name."""
    names = [name for name, _ in lm_head.named_parameters(recurse=False)]
    return {f"lm_head.{name}": f"model.language_model.embed_tokens.{name}" for name in names}
