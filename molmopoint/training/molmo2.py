"""Training transformers' own Molmo2 on packed rows of message trees.

The native network is used as it is (see `molmopoint.molmo2`). What training needs beside it is here: a weighted loss with the
divisor of the whole step. The batches are those of `PackCollator`, and the result has the fields that the trainer reads from a MolmoPoint:

    model = Molmo2ForTraining.from_pretrained("allenai/Molmo2-4B", dtype=torch.float32)
    collator = PackCollator(NO_PATCH_TOKEN, tokenizer.pad_token_id)
    model(**batch, z_loss=1e-4, num_items_in_batch=weights_of_the_step).loss.backward()
    model.save_pretrained(folder)                                    read by Molmo2ForConditionalGeneration

Letters: B rows, S tokens per row, R supervised positions, P image tokens, K slots, N crops and frames, G ViT patches per crop.

Dropout on what the layers of the text model add to their residual stream; native Molmo2 has none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import Cache, Molmo2ForConditionalGeneration
from transformers.models.molmo2.modeling_molmo2 import Molmo2DecoderLayer
from transformers.utils.generic import ModelOutput

from molmopoint.attention import CACHE, either
from molmopoint.losses import TextSupervision, text_loss
from molmopoint.molmo2 import hidden_states, one_grid, save_native


def add_residual_dropout(model: nn.Module, probability: float) -> list[RemovableHandle]:
    """Drops parts of the outputs of attention and MLP of every text layer, while the model is in training mode.

    Recomputed layers (gradient checkpointing) drop the same parts again.

    Args:
        model: with layers of native Molmo2, as MolmoPoint has them; 0 changes nothing.
        probability: of each value.

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
    for layer in model.modules():
        if isinstance(layer, Molmo2DecoderLayer):
            # The last thing before the addition: a norm after the sublayer, where there is one.
            last = (layer.input_layernorm, layer.post_attention_layernorm) if layer.norm_after else (layer.self_attn, layer.mlp)
            handles += [module.register_forward_hook(drop) for module in last]
    return handles


NO_PATCH_TOKEN = -1
"""For `PackCollator`: no token of a Molmo2 selects a place."""


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
    """The native Molmo2, with a training pass for packed rows; without labels it is the native model in everything.

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
            attention_mask: (B, S) 0 at padding; or a mask that is ready for the attention backend, (B, 1, S, S), used as given.
            position_ids: (B, S); they restart with examples and branches, so they are needed where there are any.
            example_ids: (B, S) packed example, -1 for padding; one per row if not given.
            branch_ids: (B, S) branch inside the example, -1 for the shared trunk.
            mm_token_type_ids: (B, S) 1 at vision tokens.
            pixel_values: (N, G, patch values) crops and frames of all rows.
            image_token_pooling: (P of all rows, K) ViT patches of each image token, numbered over the call; -1 for an empty slot.
            image_grids: as from the processor; not needed, since tokens come in the order of the table.
            image_num_crops: accepted from the processor.
            pixel_values_videos: as from the processor; in batches of the collator, frames are crops among the others.
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
            cached = {CACHE: either(cache, past_key_values), "inputs_embeds": inputs_embeds, "use_cache": use_cache}
            return super().forward(attention_mask=attention_mask, logits_to_keep=logits_to_keep, **given, **cached)
        for name in ("input_ids", "position_ids", "mm_token_type_ids"):
            if given[name] is None:
                raise ValueError(f"expected {name} with shift_labels, got None; pass the batch of PackCollator")
        hidden = hidden_states(self, attention_mask=attention_mask, example_ids=example_ids, branch_ids=branch_ids, **given)
        return self._supervise(hidden, TextSupervision.of_labels(shift_labels, loss_weights), z_loss, num_items_in_batch)

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
        divisor = weight_sum.clamp(min=torch.finfo(weight_sum.dtype).tiny) if num_items is None else num_items
        return Molmo2TrainingOutput(torch.stack(list(sums.values())).sum() / divisor, logits, sums, weight_sum)
