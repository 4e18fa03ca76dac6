"""A pointer of toy size: random weights that like to point, and the toy processor."""

from __future__ import annotations

import torch
from tiny import random_model
from toy_processor import toy_processor

from molmopoint.pipeline import Pointer
from molmopoint.tokens import IMAGE_START, RELEASED_TOKENS

STEPS = 32


def toy_pointer(seed: int = 0) -> Pointer:
    processor = toy_processor()
    tokenizer = processor.tokenizer
    text = {
        "vocab_size": tokenizer.convert_tokens_to_ids(IMAGE_START), "additional_vocab_size": len(RELEASED_TOKENS), "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 2048,
    }  # fmt: skip
    model = random_model(seed, text_config=text)
    with torch.no_grad():
        for digit in tokenizer.encode("123", add_special_tokens=False):
            model.lm_head.weight[digit] *= 2
        model.lm_head.weight[model.config.patch_token_id] *= 1.5
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return Pointer(model, processor)
