"""A tiny native Molmo2 with random weights, and its processor: crops of 5 by 5 ViT patches, text of bytes."""

from __future__ import annotations

from typing import Any

import torch
from toy_processor import SIZE, TEMPLATE, toy_tokenizer
from transformers import Molmo2Config, Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

from molmopoint.molmo2 import Molmo2ForTraining
from molmopoint.processing import Molmo2PointingProcessor, MolmoPointImageProcessor, MolmoPointVideoProcessor
from molmopoint.tokens import RELEASED_TOKENS

MOLMO2_TOKENS = RELEASED_TOKENS[:11]
"""Without the grounding tokens at their end."""


def molmo2_processor() -> Molmo2Processor:
    image = Molmo2ImageProcessor(size=SIZE, overlap_margins=[1, 1], max_crops=4)
    video = Molmo2VideoProcessor(
        size=SIZE, num_frames=8, do_rescale=True, do_normalize=True, do_convert_rgb=True
    )
    return Molmo2Processor(image, video, toy_tokenizer(MOLMO2_TOKENS, points=0), chat_template=TEMPLATE)


def molmo2_pointing_processor() -> Molmo2PointingProcessor:
    """Ours, with the same settings."""
    image = MolmoPointImageProcessor(size=SIZE, overlap_margins=[1, 1], max_crops=4)
    video = MolmoPointVideoProcessor(size=SIZE, num_frames=8)
    return Molmo2PointingProcessor(
        image, video, toy_tokenizer(MOLMO2_TOKENS, points=0), chat_template=TEMPLATE
    )


def molmo2_config(**overrides: Any) -> Molmo2Config:
    tokenizer = toy_tokenizer(MOLMO2_TOKENS, points=0)
    base = len(tokenizer) - len(MOLMO2_TOKENS)
    ids = dict(zip(("start", "end", "patch", "col", "low"), range(base, base + 5), strict=True))
    fields: dict[str, Any] = {
        "text_config": {
            "vocab_size": base, "additional_vocab_size": 16, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048,
        },
        "vision_config": {
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
            "head_dim": 12, "image_size": [70, 70], "patch_size": 14,
        },
        "adapter_config": {"vision_feature_layer": [2, 1], "hidden_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2,
                           "head_dim": 12, "intermediate_size": 40, "text_hidden_size": 32},
        "image_start_token_id": ids["start"], "image_end_token_id": ids["end"], "image_patch_id": ids["patch"],
        "low_res_image_start_token_id": ids["low"], "frame_start_token_id": base + 7, "frame_end_token_id": base + 8,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    return Molmo2Config(**{**fields, **overrides})


def random_molmo2(seed: int = 0, **overrides: Any) -> Molmo2ForTraining:
    """Weights far enough from zero that what is seen makes a difference."""
    torch.manual_seed(seed)
    model = Molmo2ForTraining(molmo2_config(**overrides)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.7 if "embed" in name else 0.2)
    return model
