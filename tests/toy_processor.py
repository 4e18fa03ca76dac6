"""A processor of toy size, made on the fly: byte-level tokenizer with a few merges, crops of 5 by 5 ViT
patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor
from molmopoint.tokens import RELEASED_TOKENS, point_text

SIZE = {"height": 70, "width": 70}
POINT_NAMES = 600
TEMPLATE = (
    "{% set vision = namespace(count=0) %}{% for m in messages %}{% if m['content'] is not string %}{% for "
    "c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|image|>{% elif c['type'] == 'video' %}<|video|>{% endif %}{% endfor "
    "%}{% endif %}{% endfor %}"
    "{% for m in messages %}"
    "{% if m['role'] not in ('user', 'assistant') %}{{ raise_exception('only user and assistant speak') "
    "}}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in "
    "m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


LINE_ENDS = [("Ċ", "Ċ"), ("ĊĊ", "Ċ"), (".", "ĊĊ"), ("?", "ĊĊ"), ("Ġ", "Ċ")]
"""Merges of line ends with each other and with what is before them; as many as the others, so that ids stay."""

_QWEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def toy_tokenizer(
    special: Sequence[str] = RELEASED_TOKENS, points: int = POINT_NAMES, *, line_ends: bool = False
) -> PreTrainedTokenizerFast:
    """With these special tokens behind the base vocabulary, and names for so many places; maybe with merged
    line ends, as released.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = LINE_ENDS if line_ends else [("i", "m"), ("<", "|"), ("<|", "im"), ("t", "h"), ("th", "e")]
    vocab = {piece: i for i, piece in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    bytes_of_all = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not line_ends)
    words = pre_tokenizers.Split(Regex(_QWEN), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_of_all]) if line_ends else bytes_of_all
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(t, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special)]
    )
    backend.add_tokens([AddedToken(point_text(n), normalized=False) for n in range(points)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_end|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )


def toy_processor(**settings: Any) -> MolmoPointProcessor:
    image = MolmoPointImageProcessor(size=SIZE, overlap_margins=[1, 1], max_crops=4)
    video = MolmoPointVideoProcessor(size=SIZE, num_frames=8)
    return MolmoPointProcessor(image, video, toy_tokenizer(), chat_template=TEMPLATE, **settings)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8."""
    return np.random.default_rng([height, width, seed]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(height, width, seed))


def frames(count: int, height: int = 80, width: int = 120) -> np.ndarray:
    """(count, height, width, 3) uint8."""
    return np.stack([noise(height, width, seed) for seed in range(count)])
