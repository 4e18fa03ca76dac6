"""What is measured: the embedded model and random ones of known sizes, and prompts for them.

Random weights take as long as trained ones; what they choose is forced (see `forced_answers.py`). Prompts are
written by hand, so that no tokenizer is needed.

Letters: B rows, S tokens per row, N crops of the call, G ViT patches per crop, P image tokens, K slots per
image token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from molmopoint.compiled import CompiledSteps
from molmopoint.config import MolmoPointConfig
from molmopoint.eval.speed.timing import Setting
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline import load
from molmopoint.processing import MolmoPointImageProcessor

WORD = 5
"""Some id of the text vocabulary."""
QUESTION = 24
"""Words after the pictures: a chat frame and a short request."""


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and the processor that makes its crops.

    Attributes:
        name: on the command line.
        model: in evaluation mode, on its device.
        image_processor: of released geometry for random models.
        max_crops: limits at which preprocessing is timed; the first one holds for all other phases.
    """

    name: str
    model: MolmoPointForConditionalGeneration
    image_processor: MolmoPointImageProcessor
    max_crops: tuple[int, ...]

    @property
    def num_parameters(self) -> int:
        """Of the whole model."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def small_config() -> MolmoPointConfig:
    """0.1 B parameters at released crop geometry; the vocabulary is shrunk from 151 936 to 8 192 words."""
    text: dict[str, Any] = {
        "vocab_size": 8192,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
    }
    attention: dict[str, Any] = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 64,
    }
    vision = {**attention, "intermediate_size": 1536, "num_hidden_layers": 12}
    adapter = {
        **attention,
        "intermediate_size": 2048,
        "text_hidden_size": 768,
        "vision_feature_layer": [11, 8],
    }
    fields: dict[str, Any] = {"text_config": text, "vision_config": vision, "adapter_config": adapter}
    return MolmoPointConfig(**fields)


def large_config() -> MolmoPointConfig:
    """All sizes of the released 8B model."""
    return MolmoPointConfig()


def medium_config() -> MolmoPointConfig:
    """All sizes of the released 4B model: the 8B with the text model of Qwen3-4B."""
    text: dict[str, Any] = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
    fields: dict[str, Any] = {"text_config": text, "adapter_config": {"text_hidden_size": 2560}}
    return MolmoPointConfig(**fields)


def toy_config() -> MolmoPointConfig:
    """Released crops and pooling at toy widths: for the memory of long clips, and for tests."""
    text: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    attention: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    vision = {**attention, "intermediate_size": 64, "num_hidden_layers": 2}
    adapter = {**attention, "intermediate_size": 64, "text_hidden_size": 64, "vision_feature_layer": [1, 0]}
    fields: dict[str, Any] = {"text_config": text, "vision_config": vision, "adapter_config": adapter}
    return MolmoPointConfig(**fields, patch_embed_dim=32)


RANDOM: dict[str, Callable[[], MolmoPointConfig]] = {
    "0.1b": small_config,
    "4b": medium_config,
    "8b": large_config,
    "toy": toy_config,
}
NAMES = ("nano", *RANDOM)


def default_setting(name: str, threads: int) -> Setting:
    """bfloat16 on a GPU for the 8B model, float32 on the CPU for the others."""
    if name == "8b":
        return Setting("cuda", "bfloat16", threads=threads)
    return Setting(threads=threads)


def build(name: str, setting: Setting) -> Subject:
    """The named model in the given setting.

    Raises:
        ValueError: there is no such model, or no such device.
    """
    if name not in NAMES:
        raise ValueError(f"expected a model of {', '.join(NAMES)}, got {name!r}")
    if setting.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"expected a GPU for {name} on {setting.device}, found none; choose another model or device=cpu"
        )
    if name == "nano":
        pointer = load(
            "nano",
            dtype=setting.torch_dtype,
            device_map=setting.device,
            attn_implementation=setting.attn,
            compile=setting.cache == "compiled",
        )
        processor = pointer.processor.image_processor
        return Subject(name, pointer.model, processor, (int(processor.max_crops),))
    torch.manual_seed(0)
    # Made on the device itself: on the host, 8 billion random numbers take minutes.
    with torch.device(setting.device):
        model = MolmoPointForConditionalGeneration._from_config(
            RANDOM[name](), dtype=setting.torch_dtype, attn_implementation=setting.attn
        )
    if setting.cache == "compiled":
        model.compiled_steps = CompiledSteps(model)
    return Subject(name, model.eval(), MolmoPointImageProcessor(), (8, 24))


def picture(width: int, height: int) -> Image.Image:
    """A picture with coarse structure and fine noise; the same one every time."""
    rng = np.random.default_rng(width * 10_000 + height)
    colours = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    coarse = Image.fromarray(colours).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3), dtype=np.int16)
    values = np.asarray(coarse, dtype=np.int16) + noise
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def picture_prompt(subject: Subject, batch: int, width: int, height: int) -> dict[str, Tensor]:
    """Model inputs of B equal rows: a picture and a question.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` (B, S), `pixel_values` (N, G, patch values) and
        `image_token_pooling` (P of all rows, K), on the model's device.
    """
    pictures = [picture(width, height)] * batch
    seen = subject.image_processor(pictures, max_crops=subject.max_crops[0], return_tensors="pt")
    ids = picture_ids(subject.model.config, seen["image_grids"][0].tolist()) + [WORD] * QUESTION
    inputs = _text_inputs(subject, ids, batch)
    inputs["pixel_values"] = seen["pixel_values"]
    inputs["image_token_pooling"] = seen["image_token_pooling"]
    return _on_device(subject, inputs)


def picture_ids(config: MolmoPointConfig, grid: list[int]) -> list[int]:
    """Ids of one picture in the released layout, from rows and columns of its global crop, then of its
    canvas.
    """
    low_rows, low_cols, rows, cols = grid
    low = [config.image_non_indexable_patch_id] * (low_rows * low_cols)
    line = [config.image_patch_id] * cols + [config.image_col_id]
    return [
        config.low_res_image_start_token_id,
        *low,
        config.image_end_token_id,
        config.image_start_token_id,
        *line * rows,
        config.image_end_token_id,
    ]


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
    pooling = frame_pooling(frames, side, window)
    image_tokens = len(pooling) // frames
    frame = [
        WORD,
        config.frame_start_token_id,
        *[config.image_patch_id] * image_tokens,
        config.frame_end_token_id,
    ]
    pixels = torch.rand(frames, side**2, 3 * vision.patch_size**2).mul_(2).sub_(1)  # between -1 and 1
    inputs = _text_inputs(subject, frame * frames + [WORD] * QUESTION, 1)
    inputs["pixel_values_videos"] = pixels
    inputs["video_token_pooling"] = pooling
    return _on_device(subject, inputs)


def frame_pooling(frames: int, side: int, window: int) -> Tensor:
    """(P, K) ViT patches of the image tokens of some frames, from windows of `window` by `window` patches.

    Args:
        frames: of the clip.
        side: ViT patches of a side of a frame; what no whole window covers is left out.
        window: patches of a side of a window.
    """
    used = side - side % window
    grid = torch.arange(side**2).view(side, side)[:used, :used]
    windows = grid.unfold(0, window, window).unfold(1, window, window)  # (rows, columns, window, window)
    of_frame = windows.reshape(-1, window**2)
    first = torch.arange(frames).view(-1, 1, 1) * side**2  # of each frame
    return (first + of_frame).flatten(0, 1)


def _text_inputs(subject: Subject, ids: list[int], batch: int) -> dict[str, Tensor]:
    rows = torch.tensor([ids] * batch)  # (B, S)
    is_vision = torch.isin(rows, torch.tensor(subject.model.config.vision_token_ids))
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows), "mm_token_type_ids": is_vision.long()}


def _on_device(subject: Subject, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(subject.model.device) for name, tensor in tensors.items()}
