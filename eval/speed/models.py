"""The models that are measured: the embedded one, and random ones of known sizes.

Random weights take as long as trained ones; what they choose is forced (see `molmopoint.eval.speed.answers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from molmopoint.config import MolmoPointConfig
from molmopoint.eval.speed.settings import Setting
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline import load
from molmopoint.processing import MolmoPointImageProcessor


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
    vision: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 64}
    fields: dict[str, Any] = {
        "text_config": {
            "vocab_size": 8192, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 12,
            "num_key_value_heads": 4, "head_dim": 64,
        },
        "vision_config": vision | {"intermediate_size": 1536, "num_hidden_layers": 12},
        "adapter_config": vision | {"intermediate_size": 2048, "text_hidden_size": 768, "vision_feature_layer": [11, 8]},
    }  # fmt: skip
    return MolmoPointConfig(**fields)


def large_config() -> MolmoPointConfig:
    """All sizes of the released 8B model."""
    return MolmoPointConfig()


def toy_config() -> MolmoPointConfig:
    """Released crops and pooling at toy widths: for the memory of long clips, and for tests."""
    vision: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    fields: dict[str, Any] = {
        "text_config": {
            "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16,
        },
        "vision_config": vision | {"intermediate_size": 64, "num_hidden_layers": 2},
        "adapter_config": vision | {"intermediate_size": 64, "text_hidden_size": 64, "vision_feature_layer": [1, 0]},
        "patch_embed_dim": 32,
    }  # fmt: skip
    return MolmoPointConfig(**fields)


RANDOM: dict[str, Callable[[], MolmoPointConfig]] = {"0.1b": small_config, "8b": large_config, "toy": toy_config}
NAMES = ("nano", *RANDOM)


def default_setting(name: str, threads: int) -> Setting:
    """bfloat16 on a GPU for the 8B model, float32 on the CPU for the others."""
    return Setting("cuda", "bfloat16", threads=threads) if name == "8b" else Setting(threads=threads)


def build(name: str, setting: Setting) -> Subject:
    """The named model in the given setting.

    Raises:
        ValueError: there is no such model, or no such device.
    """
    if name not in NAMES:
        raise ValueError(f"expected a model of {', '.join(NAMES)}, got {name!r}")
    if setting.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"expected a GPU for {name} on {setting.device}, found none; choose another model or device=cpu")
    if name == "nano":
        pointer = load("nano", dtype=setting.torch_dtype, device_map=setting.device, attn_implementation=setting.attn)
        processor = pointer.processor.image_processor
        return Subject(name, pointer.model, processor, (int(processor.max_crops),))
    torch.manual_seed(0)
    # Made on the device itself: on the host, 8 billion random numbers take minutes.
    with torch.device(setting.device):
        model = MolmoPointForConditionalGeneration._from_config(RANDOM[name](), dtype=setting.torch_dtype, attn_implementation=setting.attn)
    return Subject(name, model.eval(), MolmoPointImageProcessor(), (8, 24))
