"""transformers' own Molmo2 under our masks: packed rows and message trees, pictures of all rows in one flat list.

The native network is used as it is; it takes a mask that is ready for the attention backend as given. Below the vocabulary it
answers with hidden states, which training turns into losses and a reward model into scores.

Letters: B rows, S tokens per row, H text width, P image tokens, K slots, N crops and frames, G ViT patches per crop.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from transformers import Molmo2ForConditionalGeneration

from molmopoint.attention import AttentionRule, honouring_mask, prompt_mask, recomputes_activations
from molmopoint.saving import save_whole

MODEL_TYPE = "molmo2"


def is_molmo2(config: Any) -> bool:
    """Whether a config (object or the fields of a config.json) is that of a Molmo2, which answers with text coordinates."""
    found = config.get("model_type") if isinstance(config, dict) else getattr(config, "model_type", None)
    return found == MODEL_TYPE


def one_grid(pooling: Tensor) -> Tensor:
    """Grid (1, 4) that counts all image tokens of a call as those of one picture: the native forward only cuts by it and joins."""
    return torch.tensor([[len(pooling), 1, 0, 0]])


def hidden_states(
    model: Molmo2ForConditionalGeneration,
    *,
    input_ids: Tensor,
    position_ids: Tensor,
    mm_token_type_ids: Tensor,
    attention_mask: Tensor | None = None,
    example_ids: Tensor | None = None,
    branch_ids: Tensor | None = None,
    **visual: Any,
) -> Tensor:
    """States (B, S, H) after the final norm.

    Where the model trains or is sharded, a batch without pictures runs an empty crop that no token looks at: every weight gets a
    gradient, and ranks stay in step.

    Args:
        model: the native one.
        input_ids: (B, S).
        position_ids: (B, S); they restart with examples and branches.
        mm_token_type_ids: (B, S) 1 at vision tokens.
        attention_mask: (B, S) 0 at padding; or a mask that is ready for the attention backend, (B, 1, S, S), used as given.
        example_ids: (B, S) packed example, -1 for padding; one per row if not given.
        branch_ids: (B, S) branch inside the example, -1 for the shared trunk.
        **visual: pixels and tables as the native forward takes them.
    """
    seen = visual.get("pixel_values") is not None or visual.get("pixel_values_videos") is not None
    in_step = model.training or hasattr(model.lm_head.weight, "device_mesh")
    blank = _blank_features(model) if in_step and not seen else None
    text: Any = model.model.language_model
    with honouring_mask(text.config, recomputed=recomputes_activations(model)) as backend:
        if attention_mask is not None and attention_mask.ndim == 4:
            mask: Any = attention_mask
        else:
            rule = _rule(input_ids, mm_token_type_ids, attention_mask, example_ids, branch_ids)
            mask = prompt_mask(rule, input_ids.shape[1], backend, model.dtype)
        output = model.model(
            input_ids=input_ids,  # pyright: ignore[reportArgumentType] (annotated as a LongTensor)
            attention_mask=mask,
            position_ids=position_ids,  # pyright: ignore[reportArgumentType]
            mm_token_type_ids=mm_token_type_ids,  # pyright: ignore[reportArgumentType]
            use_cache=False,
            **visual,
        )
    hidden: Any = output.last_hidden_state
    return hidden if blank is None else hidden + 0.0 * blank.sum().to(hidden.dtype)


def save_native(model: Any, directory: str | os.PathLike[str], save: Any, **arguments: Any) -> None:
    """Writes a native Molmo2, whole or not at all.

    Weights have the native names, which the native class reads as well as the released ones: transformers cannot write the latter,
    it would cut the two unequal parts of the input table in half.

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


def _blank_features(model: Molmo2ForConditionalGeneration) -> Tensor:
    """Features (1, H) of an empty crop."""
    vision: Any = model.config.vision_config
    device = model.lm_head.weight.device
    pixels = torch.zeros(1, vision.num_position_embeddings, vision.num_channels * vision.patch_size**2, device=device, dtype=model.dtype)
    pooling = torch.zeros(1, 1, device=device, dtype=torch.long)
    inner: Any = model.model
    return inner.get_image_features(pixels, pooling, one_grid(pooling)).pooler_output[0]


def _rule(
    input_ids: Tensor, types: Tensor, attention_mask: Tensor | None, example_ids: Tensor | None, branch_ids: Tensor | None
) -> AttentionRule:
    """Who may look at whom; without example ids every row is one example."""
    if example_ids is None:
        example_ids = torch.zeros_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype) - 1
    branches = torch.full_like(input_ids, -1) if branch_ids is None else branch_ids
    return AttentionRule(example_ids, branches, types == 1)
