"""A SAM 2 of toy size with random weights, for pictures and videos, and points to draw masks around."""

from __future__ import annotations

import numpy as np
import torch
from transformers import (
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)

from molmopoint.points import Points

SIDE = 64


def tiny_sam2(seed: int = 0) -> Sam2VideoModel:
    torch.manual_seed(seed)
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 4, "embed_dim_per_stage": [4, 8, 16, 32],
        "num_attention_heads_per_stage": [1, 1, 2, 4], "blocks_per_stage": [1, 1, 2, 1], "image_size": [SIDE, SIDE],
        "global_attention_blocks": [3], "window_positional_embedding_background_size": [3, 3],
    }  # fmt: skip
    vision = {
        "backbone_config": backbone, "backbone_channel_list": [32, 16, 8, 4], "fpn_hidden_size": 128,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 16, "iou_head_hidden_dim": 16, "num_attention_heads": 2, "num_hidden_layers": 2,
        },
        image_size=SIDE, memory_attention_hidden_size=128, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=16,
        memory_attention_rope_feat_sizes=[4, 4], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=16, memory_fuser_num_layers=1,
    )  # fmt: skip
    return Sam2VideoModel(config).eval()


def tiny_sam2_processor() -> Sam2VideoProcessor:
    size = {"height": SIDE, "width": SIDE}
    return Sam2VideoProcessor(
        Sam2ImageProcessor(size=size, mask_size={"height": SIDE // 4, "width": SIDE // 4}),
        Sam2VideoVideoProcessor(size=size),
    )


def points(*rows: tuple[int, float, float, float]) -> Points:
    """Of (id, picture or seconds, x, y); seconds where any is no whole number in Python."""
    is_video = any(isinstance(row[1], float) for row in rows)
    object_id, group, x, y = np.array(rows, dtype=float).reshape(-1, 4).T
    return Points(object_id, group if is_video else group.astype(np.int64), x, y)
