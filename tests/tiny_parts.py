"""Small random parts for new models: ViTs of timm, LLMs of transformers, and a tokenizer that knows nothing
of points.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

ROWS = 320
"""Rows of the LLMs' tables, more than the tokenizer has tokens, as Qwen's."""
IMAGE_SETTINGS = {"overlap_margins": [1, 1], "max_crops": 4}
VIDEO_SETTINGS = {"num_frames": 8}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "rope_theta": 500000.0}


def shake(model: nn.Module, seed: int = 0) -> Any:
    """The model with every parameter, norms and biases included, away from where it is usually born."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def tiny_vit(**changes: Any) -> Any:
    """A ViT built like those of SigLIP: no class token, a pooling head, tanh GELU."""
    fields = {
        "img_size": 70,
        "patch_size": 14,
        "embed_dim": 32,
        "depth": 4,
        "num_heads": 2,
        "act_layer": "gelu_tanh",
        "num_classes": 0,
    }
    settings = fields | {"class_token": False, "global_pool": "map"} | changes
    torch.manual_seed(0)
    vit: Any = timm.create_model("vit_so400m_patch14_siglip_378.v2_webli", pretrained=False, **settings)
    vit.pretrained_cfg = {**vit.pretrained_cfg, "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.5, 0.2)}
    return shake(vit)


def tiny_llm(family: str = "qwen3", **changes: Any) -> Any:
    """An LLM of two or more layers."""
    config, model = {
        "qwen3": (Qwen3Config, Qwen3ForCausalLM), "olmo2": (Olmo2Config, Olmo2ForCausalLM), "olmo3": (Olmo3Config, Olmo3ForCausalLM),
    }[family]  # fmt: skip
    fields = {
        "vocab_size": ROWS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "pad_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    if family == "qwen3":
        fields |= {"head_dim": 16}
    torch.manual_seed(1)
    return shake(model(config(**(fields | changes))), 1)


def plain_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the special tokens of chats."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(t, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
