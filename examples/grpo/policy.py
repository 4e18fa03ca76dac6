"""A tiny vision-language policy of a kind that TRL trains: a random Qwen2.5-VL with the tokenizer of nano."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from molmopoint.checkpoints import registry

SIDE = 112
"""Pixels: larger pictures are made smaller. 16 image tokens of 28 by 28 pixels."""

_END = "<|im_end|>"
_SPECIAL = ("<|im_start|>", _END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ "
    "part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


def new_processor() -> Qwen2_5_VLProcessor:
    """Words as nano knows them, and the special tokens of Qwen."""
    file = Path(registry.resolve("nano")) / "tokenizer.json"
    # TRL pads prompts on the left and leaves the token types to the tokenizer.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token=_END, pad_token="<|endoftext|>", padding_side="left"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
    pixels = {"shortest_edge": 28 * 28, "longest_edge": SIDE * SIDE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        chat_template=_TEMPLATE,
    )


def new_policy(processor: Any, seed: int, width: int = 96) -> Qwen2_5_VLForConditionalGeneration:
    """A random model of about a million weights.

    Args:
        processor: of `new_processor`.
        seed: of the weights.
        width: of both towers.
    """
    ids = dict(zip(_SPECIAL, processor.tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    text = {
        "vocab_size": len(processor.tokenizer), "hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 4, **heads,
        "max_position_embeddings": 1024, "rope_scaling": {"type": "mrope", "mrope_section": [4, 4, 4]}, "tie_word_embeddings": True,
        "pad_token_id": processor.tokenizer.pad_token_id, "eos_token_id": ids[_END], "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "depth": 3, "hidden_size": width, "intermediate_size": 2 * width, "num_heads": 4, "out_hidden_size": width, "patch_size": 14,
        "fullatt_block_indexes": [0, 1, 2], "window_size": SIDE,
    }  # fmt: skip
    tokens = {
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"], "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }  # fmt: skip
    torch.manual_seed(seed)
    policy = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    )
    policy.generation_config.eos_token_id = ids[_END]
    policy.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return policy


def never_said(processor: Any) -> list[int]:
    """Ids that stand for pictures, clips and turns; an answer with one of them could not be read again."""
    return processor.tokenizer.convert_tokens_to_ids([token for token in _SPECIAL if token != _END])
