"""New models from pretrained parts: a ViT of timm, an LLM of transformers, and new weights for what lies
between and behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from molmopoint.checkpoints.llm_text import load_llm, text_part
from molmopoint.checkpoints.new_processor import POINT_TOKENS, build_processor
from molmopoint.checkpoints.new_weights import complete
from molmopoint.checkpoints.timm_vision import load_vit, pixel_normalisation, vision_part
from molmopoint.config import MolmoPointConfig
from molmopoint.errors import CheckpointError
from molmopoint.load_checks import reading_part
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing import MolmoPointProcessor
from molmopoint.remote_code import running_no_code

TAPPED_LAYERS = (-3, -9)
"""Tapped blocks of released models, counted from the end of the ViT."""


def assemble(
    vision: str | Path | nn.Module,
    text: str | Path | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    vision_layers: Sequence[int] = TAPPED_LAYERS,
    crop_size: int | None = None,
    patch_embed_dim: int = 512,
    location_grid: int = 3,
    point_tokens: int = POINT_TOKENS,
    image_settings: Mapping[str, Any] | None = None,
    video_settings: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    out: str | Path | None = None,
) -> tuple[MolmoPointForConditionalGeneration, MolmoPointProcessor]:
    """A new MolmoPoint that sees like its ViT and talks like its LLM, and has still to learn to look and to
    point.

    Args:
        vision: plain ViT of timm: a folder, an id on the hub ("timm/vit_so400m_patch14_siglip_378.v2_webli"),
            or the model itself.
        text: Qwen3, OLMo 2 or OLMo 3: a folder, an id on the hub ("Qwen/Qwen3-8B"), or the model itself.
        tokenizer: of the LLM; needed where `text` is a model, else read from where the LLM is.
        vision_layers: blocks of the ViT whose outputs are concatenated; negative ones count from the end.
            Later blocks are dropped.
        crop_size: side of a crop in pixels; None for the grid the ViT was trained on. Positions are resized
            to another one.
        patch_embed_dim: E, width of patch and subpatch queries and keys.
        location_grid: location cells along a side of a ViT patch; 0 for points without a location.
        point_tokens: places the tokenizer has names for: image tokens of the longest input, slots and cells
            together.
        image_settings: of `MolmoPointImageProcessor`, such as `max_crops`, `overlap_margins`, `pooling_size`.
        video_settings: of `MolmoPointVideoProcessor`, such as `num_frames`, `pooling_size`.
        dtype: of the weights; released models were trained from float32.
        seed: of the new weights.
        out: folder to save both into, ready for `molmopoint.load`.

    Returns:
        Model, in evaluation mode on the CPU, and processor. Models that were passed in are copied, not
        changed.

    Raises:
        CheckpointError: a ViT, LLM or tokenizer that a MolmoPoint cannot be made of, or that needs code of
            its own; the message says why.
        ValueError: sizes that do not fit each other.
    """
    if isinstance(text, PreTrainedModel) and tokenizer is None:
        raise CheckpointError(
            "expected the tokenizer of the LLM beside the LLM itself, got none; pass "
            "tokenizer=AutoTokenizer..."
        )
    if tokenizer is None:
        with reading_part(str(text), "a tokenizer"), running_no_code(str(text)):
            tokenizer = AutoTokenizer.from_pretrained(text, trust_remote_code=False)
    vit = vision if isinstance(vision, nn.Module) else load_vit(vision)
    seen = vision_part(vit, vision_layers, crop_size)
    normalisation = pixel_normalisation(vit)
    llm = text if isinstance(text, PreTrainedModel) else load_llm(text, dtype)
    spoken = text_part(llm)

    # The pooling attention is as wide as that of the ViT: a few ViTs have heads that are narrower than their
    # layers.
    adapter = {
        "vision_feature_layer": list(vision_layers),
        "hidden_size": seen.fields["num_attention_heads"] * seen.fields["head_dim"],
    }
    fields = {
        "text_config": spoken.fields,
        "vision_config": seen.fields,
        "adapter_config": adapter,
        "patch_embed_dim": patch_embed_dim,
        "patch_location": f"{location_grid}x{location_grid}" if location_grid else None,
        "dtype": dtype,
    }
    config = MolmoPointConfig.from_dict(fields)
    processor = build_processor(
        tokenizer, config, normalisation, point_tokens, image_settings or {}, video_settings or {}
    )
    parts = {**seen.tensors, **spoken.tensors}
    if vit is vision or llm is text:
        parts = {name: tensor.clone() for name, tensor in parts.items()}
    weights = complete(parts, config, seed, dtype)
    model = MolmoPointForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype
    )
    extended = processor.tokenizer
    ids = {name: getattr(extended, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config.update(**ids)
    if out is not None:
        model.save_pretrained(out)
        processor.save_pretrained(out)
    return model, processor
