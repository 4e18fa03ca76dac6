"""Tiny vision-language models of transformers with processors, made from configs: hosts for grafts."""

from __future__ import annotations

from typing import Any

import torch
from tiny_parts import plain_tokenizer, shake
from tokenizers import AddedToken
from transformers import (
    AutoModelForImageTextToText,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

ROWS = 300
"""Rows of the tables; the tokenizer has fewer tokens, as Qwen's."""

TEMPLATE = """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}\
{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Laid out as that of Qwen2.5-VL, written for these tests."""

_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_INTERN = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
INTERN_TEMPLATE = TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")


def host_tokenizer(kind: str = "qwen2_5_vl") -> Any:
    """Bytes, and the special tokens of chats and pictures."""
    tokenizer: Any = plain_tokenizer()
    if kind == "internvl":
        added = [AddedToken(name, special=True, normalized=False) for name in _INTERN.values()]
        tokenizer.add_tokens(added, special_tokens=True)
        backend = tokenizer.backend_tokenizer
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=_INTERN)
    tokenizer.add_tokens(
        [AddedToken(name, special=True, normalized=False) for name in _VISION], special_tokens=True
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = INTERN_TEMPLATE if kind == "internvl" else TEMPLATE
    return tokenizer


def tiny_host(kind: str, tokenizer: Any = None, **text_changes: Any) -> tuple[Any, Any]:
    """Model and processor of a host; weights are far enough from zero that choices differ."""
    tokenizer = host_tokenizer(kind) if tokenizer is None else tokenizer
    ids = dict(zip(("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
                   tokenizer.convert_tokens_to_ids(list(_VISION)), strict=True))  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    text = {
        "vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_parameters": rope,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    } | text_changes  # fmt: skip
    vision = {"depth": 3, "num_heads": 2, "spatial_merge_size": 2, "temporal_patch_size": 2}
    wide = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
    tied = bool(text.pop("tie_word_embeddings", False))
    more = {**ids, "tie_word_embeddings": tied}
    if kind == "qwen2_vl":
        seen = {**vision, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "patch_size": 14}
        config: Any = Qwen2VLConfig(text_config=text, vision_config=seen, **more)
    elif kind == "qwen2_5_vl":
        seen = {**vision, **wide, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=seen, **more)
    elif kind == "qwen3_vl":
        rope["mrope_interleaved"] = True
        seen = {
            **vision,
            **wide,
            "patch_size": 16,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
        }
        config = Qwen3VLConfig(text_config={**text, "head_dim": 16}, vision_config=seen, **more)
    elif kind == "qwen3_vl_moe":
        rope["mrope_interleaved"] = True
        seen = {
            **vision,
            **wide,
            "patch_size": 16,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
        }
        experts = {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "decoder_sparse_step": 1,
        }
        config = Qwen3VLMoeConfig(text_config={**text, **experts}, vision_config=seen, **more)
    elif kind == "qwen3_5":
        own = {
            "rope_type": "default",
            "mrope_section": [1, 1, 0],
            "mrope_interleaved": True,
            "rope_theta": 1e6,
            "partial_rotary_factor": 0.25,
        }
        linear = {
            "head_dim": 16,
            "num_hidden_layers": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "rope_parameters": own,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        }
        seen = {**vision, **wide, "patch_size": 16, "num_position_embeddings": 256}
        config = Qwen3_5Config(text_config={**text, **linear, **text_changes}, vision_config=seen, **more)
    elif kind == "internvl":
        text.pop("rope_parameters")
        seen = {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        }
        image_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        config = InternVLConfig(
            text_config={"model_type": "qwen2", **text},
            vision_config=seen,
            image_token_id=image_token_id,
            downsample_ratio=0.5,
            image_seq_length=4,
            tie_word_embeddings=tied,
        )
    else:
        raise ValueError(kind)
    config.dtype = torch.float32
    torch.manual_seed(0)
    model = shake(AutoModelForImageTextToText.from_config(config))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, host_processor(kind, tokenizer)


def host_processor(kind: str, tokenizer: Any) -> Any:
    """The native processor of a host."""
    if kind == "internvl":
        tiles = GotOcr2ImageProcessor(size={"height": 56, "width": 56}, max_patches=6)
        return InternVLProcessor(
            tiles, tokenizer, InternVLVideoProcessor(), image_seq_length=4, chat_template=INTERN_TEMPLATE
        )
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    is_second = kind in ("qwen2_vl", "qwen2_5_vl")
    image = Qwen2VLImageProcessor(patch_size=14 if is_second else 16, size=size)
    kinds: dict[str, Any] = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}
    video = Qwen2VLVideoProcessor() if is_second else Qwen3VLVideoProcessor()
    return kinds.get(kind, Qwen3VLProcessor)(image, tokenizer, video, chat_template=TEMPLATE)
