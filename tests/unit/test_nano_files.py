"""The shipped model folder: complete, small, and with a tokenizer that fits its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast

from molmopoint.config import ID_FIELDS, MolmoPointConfig
from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.questions import PLURALS
from molmopoint.tokens import RELEASED_TOKENS, point_text

FOLDER = Path(__file__).resolve().parents[2] / "checkpoints" / "nano"
MAX_BYTES = 20_000_000


@pytest.fixture(scope="module")
def config() -> MolmoPointConfig:
    return MolmoPointConfig.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(FOLDER)


def test_the_folder_is_complete_and_small() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    wanted = {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    }
    wanted |= {
        "chat_template.jinja",
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
    }
    assert wanted <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MAX_BYTES


def test_weights_have_released_names_and_16_bits() -> None:
    with safe_open(FOLDER / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        dtypes = {file.get_slice(name).get_dtype() for name in names}
    assert dtypes <= {"BF16", "F16"}
    assert {
        "model.transformer.wte.embedding",
        "model.vit.positional_embedding",
        "model.point_predictor.x_norm.weight",
    } <= names


def test_special_tokens_stand_where_the_config_says(
    config: MolmoPointConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    first = config.text_config.vocab_size
    assert tokenizer.convert_tokens_to_ids(list(RELEASED_TOKENS)) == list(
        range(first, first + len(RELEASED_TOKENS))
    )
    for field, token in ID_FIELDS.items():
        assert getattr(config, field) == tokenizer.convert_tokens_to_ids(token)
    assert tokenizer.convert_tokens_to_ids(point_text(0)) == config.extended_start
    assert tokenizer.convert_tokens_to_ids(point_text(4095)) == config.extended_start + 4095
    generation = json.loads((FOLDER / "generation_config.json").read_text())
    assert (
        generation["eos_token_id"] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    )


def test_known_words_and_digits_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for word in (*COLOURS, *SHAPES, *PLURALS.values(), "largest", "leftmost", "half"):
        assert len(tokenizer.tokenize(f" {word}")) == 1, word
    assert tokenizer.tokenize("120") == ["1", "2", "0"]


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Zeig mir die 12 Äpfel 🍎\n\tbitte…"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_prompt_layout_is_the_released_one(tokenizer: Any) -> None:
    picture, words = {"type": "image"}, {"type": "text", "text": "Point to the stars"}
    one = tokenizer.apply_chat_template(
        [{"role": "user", "content": [words, picture]}], tokenize=False, add_generation_prompt=True
    )
    assert one == "<|image|><|im_start|>user\nPoint to the stars<|im_end|>\n<|im_start|>assistant\n"
    two = tokenizer.apply_chat_template(
        [{"role": "user", "content": [picture, picture, words]}], tokenize=False
    )
    assert two == "Image 1<|image|>Image 2<|image|><|im_start|>user\nPoint to the stars<|im_end|>\n"
    with pytest.raises(Exception, match="alternation"):
        tokenizer.apply_chat_template([{"role": "assistant", "content": "a"}], tokenize=False)
