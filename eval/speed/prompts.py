"""Prompts written by hand, so that no tokenizer is needed.

Letters: B rows, S tokens per row, N crops of the call, G ViT patches per crop, P image tokens, K slots per
    image token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from molmopoint.config import MolmoPointConfig
from molmopoint.eval.speed.models import Subject

WORD = 5
"""Some id of the text vocabulary."""
QUESTION = 24
"""Words after the pictures: a chat frame and a short request."""


def picture(width: int, height: int) -> Image.Image:
    """A picture with coarse structure and fine noise; the same one every time."""
    rng = np.random.default_rng(width * 10_000 + height)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3), dtype=np.int16)
    return Image.fromarray((np.asarray(coarse, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8))


def picture_prompt(subject: Subject, batch: int, width: int, height: int) -> dict[str, Tensor]:
    """Model inputs of B equal rows: a picture and a question.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` (B, S), `pixel_values` (N, G, patch values) and
        `image_token_pooling` (P of all rows, K), on the model's device.
    """
    seen = subject.image_processor([picture(width, height)] * batch, max_crops=subject.max_crops[0], return_tensors="pt")
    ids = picture_ids(subject.model.config, seen["image_grids"][0].tolist()) + [WORD] * QUESTION
    return _inputs(subject, ids, batch) | _on_device(
        subject, {"pixel_values": seen["pixel_values"], "image_token_pooling": seen["image_token_pooling"]}
    )


def picture_ids(config: MolmoPointConfig, grid: list[int]) -> list[int]:
    """Ids of one picture in the released layout, from rows and columns of its global crop, then of its
    canvas.
    """
    low_rows, low_cols, rows, cols = grid
    low = [config.low_res_image_start_token_id] + [config.image_non_indexable_patch_id] * (low_rows * low_cols)
    line = [config.image_patch_id] * cols + [config.image_col_id]
    return [*low, config.image_end_token_id, config.image_start_token_id, *line * rows, config.image_end_token_id]


def clip_prompt(subject: Subject, frames: int, window: int = 3) -> dict[str, Tensor]:
    """Model inputs of one row: a clip of random frames, pooled by windows, and a question.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` (1, S), `pixel_values_videos` (frames, G, patch
        values) float32 and `video_token_pooling` (P, K).
    """
    config = subject.model.config
    vision = config.vision_config
    sides: Any = vision.image_size
    side = sides[0] // vision.patch_size
    if side % window:
        raise ValueError(f"expected a window that divides the {side} ViT patches of a side, got {window}")
    grid = torch.arange(side * side).view(side, side)
    table = grid.unfold(0, window, window).unfold(1, window, window).reshape(-1, window**2)
    pooling = (torch.arange(frames).view(-1, 1, 1) * side**2 + table).flatten(0, 1)
    frame = [WORD, config.frame_start_token_id] + [config.image_patch_id] * len(table) + [config.frame_end_token_id]
    pixels = torch.rand(frames, side**2, 3 * vision.patch_size**2).mul_(2).sub_(1)
    return _inputs(subject, frame * frames + [WORD] * QUESTION, 1) | _on_device(
        subject, {"pixel_values_videos": pixels, "video_token_pooling": pooling}
    )


def _inputs(subject: Subject, ids: list[int], batch: int) -> dict[str, Tensor]:
    rows = torch.tensor([ids] * batch)
    types = torch.isin(rows, torch.tensor(subject.model.config.vision_token_ids)).long()
    return _on_device(subject, {"input_ids": rows, "attention_mask": torch.ones_like(rows), "mm_token_type_ids": types})


def _on_device(subject: Subject, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(subject.model.device) for name, tensor in tensors.items()}
