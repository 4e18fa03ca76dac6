"""transformers' own Molmo2 under our masks: packed rows and message trees, pictures of all rows in one flat
list.

The parts of the native network are used as they are, in the order in which its own forward pass uses them;
its text model takes a mask that is ready for the attention backend as given. What comes out are hidden
states, which training turns into losses and a reward model into scores. `Molmo2ForTraining` is the native
network with a weighted loss whose divisor is that of the whole step; its batches are those of `PackCollator`,
and the result has the fields that the trainer reads from a MolmoPoint:

    model = Molmo2ForTraining.from_pretrained("allenai/Molmo2-4B", dtype=torch.float32)
    collator = PackCollator(NO_PATCH_TOKEN, tokenizer.pad_token_id)
    model(**batch, z_loss=1e-4, num_items_in_batch=weights_of_the_step).loss.backward()
    model.save_pretrained(folder)                                    read by Molmo2ForConditionalGeneration

Letters: B rows, S tokens per row, R supervised positions, H text width, P image tokens, K slots, N crops and
frames, G ViT patches per crop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import Cache, Molmo2ForConditionalGeneration
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from molmopoint.attention import (
    CACHE,
    AttentionMask,
    AttentionRule,
    attention_of,
    either,
    flash_in_steps,
    prompt_mask,
)
from molmopoint.backbone import embed_tokens
from molmopoint.losses import TextSupervision, mean_loss, text_loss
from molmopoint.saving import save_whole


def one_grid(pooling: Tensor) -> Tensor:
    """Grid (1, 4) that counts all image tokens of a call as those of one picture: the native forward only
    cuts by it and joins.
    """
    return torch.tensor([[len(pooling), 1, 0, 0]])


def honour_masks(model: Molmo2ForConditionalGeneration) -> None:
    """Keeps flash attention, where it was chosen for the text model, to steps of one token: it would not look
    at our masks.
    """
    config = model.model.language_model.config
    config._attn_implementation = flash_in_steps(attention_of(config))


def hidden_states(
    model: Molmo2ForConditionalGeneration,
    *,
    input_ids: Tensor,
    position_ids: Tensor,
    mm_token_type_ids: Tensor,
    attention_mask: Tensor | None = None,
    example_ids: Tensor | None = None,
    branch_ids: Tensor | None = None,
    pixel_values: Tensor | None = None,
    image_token_pooling: Tensor | None = None,
    pixel_values_videos: Tensor | None = None,
    video_token_pooling: Tensor | None = None,
    token_rows: Mapping[int, Tensor] | None = None,
    **more: Any,
) -> Tensor:
    """States (B, S, H) after the final norm.

    Where the model trains or is sharded, a batch without pictures runs an empty crop that no token looks at:
    every weight gets a gradient, and ranks stay in step.

    Args:
        model: the native one.
        input_ids: (B, S).
        position_ids: (B, S); they restart with examples and branches.
        mm_token_type_ids: (B, S) 1 at vision tokens.
        attention_mask: (B, S) 0 at padding; or a mask that is ready for the attention backend, (B, 1, S, S),
            used as given.
        example_ids: (B, S) packed example, -1 for padding; one per row if not given.
        branch_ids: (B, S) branch inside the example, -1 for the shared trunk.
        pixel_values: (N, G, patch values) crops of all pictures of the call.
        image_token_pooling: (P, K) their pooling table, numbered over the call, -1 for an empty slot.
        pixel_values_videos: (N, G, patch values) frames of all clips of the call, instead of pictures.
        video_token_pooling: (P, K) their pooling table.
        token_rows: rows (H,) of single tokens, by their ids, in place of those of the input table.
        **more: grids and counts of the processor, which are not needed here; other arguments of the native
            text model.

    Raises:
        ValueError: pictures together with clips, or another number of image tokens than rows of the table.
    """
    if pixel_values is not None and pixel_values_videos is not None:
        raise ValueError(
            "expected pictures or clips, got both; in batches of the collator, frames are crops among the "
            "others"
        )
    embeddings = embed_tokens(model.get_input_embeddings(), input_ids, token_rows)  # (B, S, H)
    features = _image_features(model, pixel_values, image_token_pooling)
    if features is None:
        features = _image_features(model, pixel_values_videos, video_token_pooling)
    blank = None
    if features is not None:
        embeddings = _add_at_image_tokens(embeddings, features, input_ids == model.config.image_token_id)
    elif model.training or hasattr(model.lm_head.weight, "device_mesh"):
        blank = _blank_features(model)  # (1, H)

    mask: AttentionMask = attention_mask
    if mask is None or mask.ndim == 2:
        rule = _rule(input_ids, mm_token_type_ids, mask, example_ids, branch_ids)
        mask = prompt_mask(
            rule, input_ids.shape[1], attention_of(model.model.language_model.config), model.dtype
        )
    settings = {name: value for name, value in more.items() if name not in _OF_THE_PROCESSOR}
    output = model.model.language_model(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=position_ids, use_cache=False, **settings
    )
    hidden: Tensor = output.last_hidden_state
    return hidden if blank is None else hidden + 0.0 * blank.sum().to(hidden.dtype)


_OF_THE_PROCESSOR = ("image_grids", "image_num_crops", "video_grids")


def save_native(
    model: Molmo2ForConditionalGeneration,
    directory: str | os.PathLike[str],
    save: Callable[..., None],
    **arguments: Any,
) -> None:
    """Writes a native Molmo2, whole or not at all.

    Weights have the native names, which the native class reads as well as the released ones: transformers
    cannot write the latter, it would cut the two unequal parts of the input table in half.

    Args:
        model: whose config is written, under the name of the native class.
        directory: where to.
        save: `save_pretrained` of the native class, bound to the model.
        **arguments: of it.
    """

    def write(folder: str) -> None:
        save(folder, **{**arguments, "save_original_format": False})
        model.config.architectures = [Molmo2ForConditionalGeneration.__name__]
        model.config.save_pretrained(folder)

    save_whole(directory, write)


class _ImageFeatures(Protocol):
    """What the native network returns of pictures; its annotation is wider."""

    pooler_output: tuple[Tensor, ...]


def _image_features(
    model: Molmo2ForConditionalGeneration, pixels: Tensor | None, pooling: Tensor | None
) -> Tensor | None:
    """Features (P, H) of the image tokens of crops or frames (N, G, patch values), in the order of their
    table (P, K).
    """
    if pixels is None or pooling is None:
        return None
    found = cast(_ImageFeatures, model.model.get_image_features(pixels, pooling, one_grid(pooling)))
    return found.pooler_output[0]


def _add_at_image_tokens(embeddings: Tensor, features: Tensor, is_image: Tensor) -> Tensor:
    """Embeddings (B, S, H) with features (P, H) added where `is_image` (B, S) is true, row by row."""
    rows, columns = is_image.nonzero(as_tuple=True)
    if len(rows) != len(features):
        raise ValueError(
            f"expected {len(features)} image tokens for the {len(features)} rows of the pooling table, got "
            f"{len(rows)}; "
            "pass the ids and the pictures of the same processor call, truncated nowhere"
        )
    seen = embeddings[rows, columns] + features.to(embeddings.device)
    return embeddings.index_put((rows, columns), seen)


def _blank_features(model: Molmo2ForConditionalGeneration) -> Tensor | None:
    """Features (1, H) of an empty crop."""
    tower, device = model.model.vision_tower, model.lm_head.weight.device
    patches, values = len(tower.positional_embedding), tower.patch_embedding.in_features
    pixels = torch.zeros(1, patches, values, device=device, dtype=model.dtype)
    return _image_features(model, pixels, torch.zeros(1, 1, device=device, dtype=torch.long))


def _rule(
    input_ids: Tensor,
    types: Tensor,
    attention_mask: Tensor | None,
    example_ids: Tensor | None,
    branch_ids: Tensor | None,
) -> AttentionRule:
    """Who may look at whom; without example ids every row is one example."""
    if example_ids is None:
        example_ids = (
            torch.zeros_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype) - 1
        )
    branches = torch.full_like(input_ids, -1) if branch_ids is None else branch_ids
    return AttentionRule(example_ids, branches, types == 1)


@dataclass
class Molmo2TrainingOutput(ModelOutput):
    """Result of a training pass.

    Attributes:
        loss: (text + z) / divisor.
        logits: (R, V) at the supervised positions, row by row.
        loss_sums: weighted sums: "text", and "z" if asked for.
        weight_sum: sum of the weights of this batch.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    loss_sums: dict[str, Tensor] | None = None
    weight_sum: Tensor | None = None


class Molmo2ForTraining(Molmo2ForConditionalGeneration):
    """The native Molmo2, with a training pass for packed rows; without labels it is the native model in
    everything.

    Names of weights are the native ones, and so is what `save_pretrained` writes.
    """

    accepts_loss_kwargs = True

    def forward(  # type: ignore[override]  # a training pass has its own output
        self,
        input_ids: Tensor | None = None,
        shift_labels: Tensor | None = None,
        loss_weights: Tensor | None = None,
        attention_mask: Any | None = None,
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
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        selection_ids: Tensor | None = None,
        z_loss: float = 0.0,
        num_items_in_batch: Tensor | float | None = None,
        weight_pointing_losses: bool = False,
        **native: Any,
    ) -> Any:
        """With `shift_labels` a training pass, else the native forward.

        Args:
            input_ids: (B, S).
            shift_labels: (B, S) target of each position, -100 where there is none.
            loss_weights: (B, S) weight of that target; without them each one counts once.
            attention_mask: (B, S) 0 at padding; or a mask that is ready for the attention backend, (B, 1, S,
                S), used as given.
            position_ids: (B, S); they restart with examples and branches, so they are needed where there are
                any.
            example_ids: (B, S) packed example, -1 for padding; one per row if not given.
            branch_ids: (B, S) branch inside the example, -1 for the shared trunk.
            mm_token_type_ids: (B, S) 1 at vision tokens.
            pixel_values: (N, G, patch values) crops and frames of all rows.
            image_token_pooling: (P of all rows, K) ViT patches of each image token, numbered over the call;
                -1 for an empty slot.
            image_grids: as from the processor; not needed, since tokens come in the order of the table.
            image_num_crops: accepted from the processor.
            pixel_values_videos: as from the processor; in batches of the collator, frames are crops among the
                others.
            video_token_pooling: belongs to them.
            video_grids: belongs to them.
            cache: of the native forward, without labels only.
            past_key_values: the same under its older name.
            inputs_embeds: the same.
            use_cache: the same.
            logits_to_keep: the same.
            selection_ids: accepted from the collator, nothing is selected here.
            z_loss: factor of the squared log normaliser.
            num_items_in_batch: divisor of the loss; the sum of the weights of this batch if not given.
            weight_pointing_losses: accepted from the trainer, there are none here.
            **native: other arguments of the native forward.

        Raises:
            ValueError: labels or branches without what belongs to them.
        """
        if pixel_values is not None and image_grids is None and image_token_pooling is not None:
            image_grids = one_grid(image_token_pooling)
        given = {
            "input_ids": input_ids, "position_ids": position_ids, "mm_token_type_ids": mm_token_type_ids, "pixel_values": pixel_values,
            "image_token_pooling": image_token_pooling, "image_grids": image_grids, "pixel_values_videos": pixel_values_videos,
            "video_token_pooling": video_token_pooling, "video_grids": video_grids, **native,
        }  # fmt: skip
        if shift_labels is None:
            cached = {
                CACHE: either(cache, past_key_values),
                "inputs_embeds": inputs_embeds,
                "use_cache": use_cache,
            }
            return super().forward(
                attention_mask=attention_mask, logits_to_keep=logits_to_keep, **given, **cached
            )
        for name in ("input_ids", "position_ids", "mm_token_type_ids"):
            if given[name] is None:
                raise ValueError(
                    f"expected {name} with shift_labels, got None; pass the batch of PackCollator"
                )
        hidden = hidden_states(
            self, attention_mask=attention_mask, example_ids=example_ids, branch_ids=branch_ids, **given
        )
        return self._supervise(
            hidden, TextSupervision.of_labels(shift_labels, loss_weights), z_loss, num_items_in_batch
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Writes a native Molmo2 with native names, whole or not at all."""
        save: Any = super().save_pretrained
        save_native(self, save_directory, lambda folder, **given: save(folder, *args, **given), **kwargs)

    def _supervise(
        self, hidden: Tensor, supervision: TextSupervision, z_loss: float, num_items: Tensor | float | None
    ) -> Molmo2TrainingOutput:
        """Losses of states (B, S, H) after the final norm; logits only where a target counts."""
        logits = self.lm_head(hidden[supervision.rows, supervision.columns]).to(hidden.device)
        sums = text_loss(logits, supervision, z_loss)
        weight_sum = supervision.weights.sum()
        return Molmo2TrainingOutput(mean_loss(sums, weight_sum, num_items), logits, sums, weight_sum)


def add_residual_dropout(model: nn.Module, probability: float) -> list[RemovableHandle]:
    """Drops parts of the outputs of attention and MLP of every text layer, while the model is in training
    mode.

    Recomputed layers (gradient checkpointing) drop the same parts again.

    Args:
        model: whose text model has blocks of transformers with `self_attn` (or `linear_attn`) and `mlp`, as
            Molmo2, MolmoPoint and grafts have them.
        probability: of each value; 0 changes nothing.

    Returns:
        Handles that undo it, by their `remove`.
    """
    if probability <= 0:
        return []

    def drop(module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (functional.dropout(output[0], probability), *output[1:])
        return functional.dropout(output, probability)

    handles = []
    for name, layer in model.named_modules():
        if not isinstance(layer, GradientCheckpointingLayer) or "language_model" not in name.split("."):
            continue
        block: Any = layer
        # The last thing before the addition: a norm after the sublayer, where there is one.
        if getattr(block, "norm_after", False):
            last = (block.input_layernorm, block.post_attention_layernorm)
        else:
            attention = block.self_attn if hasattr(block, "self_attn") else block.linear_attn
            last = (attention, block.mlp)
        handles += [module.register_forward_hook(drop) for module in last]
    return handles
