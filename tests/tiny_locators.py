"""Tiny Florence-2 and PaliGemma with processors, made from configs."""

from __future__ import annotations

from typing import Any

import torch
from tiny_parts import plain_tokenizer, shake
from tokenizers import AddedToken
from transformers import (
    AutoModelForImageTextToText,
    BartConfig,
    CLIPImageProcessor,
    Florence2Config,
    Florence2Processor,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
)


def _tokenizer(*more: str) -> Any:
    tokenizer: Any = plain_tokenizer()
    names = ("<s>", "</s>", "<pad>", "<image>", *more)
    tokenizer.add_tokens(
        [AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def tiny_florence(width: int = 32, inner: int = 48) -> tuple[Any, Any]:
    """An encoder and a decoder on four stages of a DaViT; the text model is so wide, also between its matrices."""
    tokenizer = _tokenizer(*(f"<loc_{number}>" for number in range(1000)))
    image: Any = CLIPImageProcessor(size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64})
    image.image_seq_length = 5
    processor = Florence2Processor(image, tokenizer)
    text = BartConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=inner, decoder_ffn_dim=inner, max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.eos_token_id, forced_eos_token_id=None,
    )  # fmt: skip
    vision = {
        "depths": [1, 1, 1, 1], "embed_dim": [8, 8, 16, 16], "num_heads": [1, 1, 2, 2], "num_groups": [1, 1, 2, 2],
        "window_size": 2, "projection_dim": width,
    }  # fmt: skip
    tokens = {
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config = Florence2Config(
        text_config=text.to_dict(), vision_config=vision, image_token_id=tokenizer.image_token_id, **tokens
    )
    return _model(config), processor


def tiny_paligemma() -> tuple[Any, Any]:
    """A SigLIP of 2 x 2 patches and a Gemma."""
    tokenizer = _tokenizer()
    image: Any = SiglipImageProcessor(size={"height": 28, "width": 28})
    image.image_seq_length = 4
    processor = PaliGemmaProcessor(image, tokenizer)
    text = GemmaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14,
        vision_use_head=False,
    )  # fmt: skip
    config = PaliGemmaConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict() | {"projection_dim": 32}, image_token_index=tokenizer.image_token_id,
        projection_dim=32, hidden_size=32,
    )  # fmt: skip
    return _model(config), processor


def _model(config: Any) -> Any:
    config.dtype = torch.float32
    torch.manual_seed(0)
    return shake(AutoModelForImageTextToText.from_config(config)).eval()
