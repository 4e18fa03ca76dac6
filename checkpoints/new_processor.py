"""The processor of a new model: the tokenizer of its LLM with the released tokens, and pixels as its ViT
wants them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from molmopoint.checkpoints.registry import ROOM
from molmopoint.config import MolmoPointConfig
from molmopoint.errors import CheckpointError
from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor
from molmopoint.processing.grounding_answers import TURN_END, TURN_START
from molmopoint.tokens import RELEASED_TOKENS, point_text

POINT_TOKENS = 31_200
"""Places a released tokenizer has names for: the image tokens of 384 frames and a little more."""

END_OF_TEXT = "<|endoftext|>"
"""Padding. Like the tokens around messages it is one of Qwen's and OLMo's; a tokenizer without them gets them
as additional tokens.
"""

CHAT_TEMPLATE = ROOM / "nano" / "chat_template.jinja"
"""The released prompt layout, which the embedded model shares."""


def extend_tokenizer(
    tokenizer: Any, vocabulary: int, additional: int, places: int
) -> PreTrainedTokenizerBase:
    """A copy of an LLM's tokenizer in the released layout: fillers up to V, the additional tokens, then names
    of places.

    Args:
        tokenizer: fast tokenizer of the LLM.
        vocabulary: V, rows of the LLM's tables, often more than its tokenizer has tokens.
        additional: A, rows that are added.
        places: how many `<POINT_n>` it gets.

    Raises:
        CheckpointError: the tokenizer has more tokens than the LLM has rows, has one of the released tokens
            already, or is not a fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"expected a fast tokenizer, got {type(tokenizer).__name__}; load it with AutoTokenizer"
        )
    tokenizer = copy.deepcopy(tokenizer)
    known = tokenizer.get_vocab()
    present = max(known.values()) + 1
    if present > vocabulary or len(known) != present:
        raise CheckpointError(
            f"expected at most {vocabulary} tokens, the rows of the LLM, with ids from 0 on without gaps, "
            f"got {len(known)} with ids up to "
            f"{present - 1}; pass the LLM and the tokenizer that belong together"
        )
    if taken := [token for token in (*RELEASED_TOKENS, point_text(0)) if token in known]:
        raise CheckpointError(
            f"expected a tokenizer of an LLM, got one that has {', '.join(taken)} already; take that of the "
            "base LLM"
        )
    wanted = [
        *RELEASED_TOKENS,
        *(token for token in (END_OF_TEXT, TURN_START, TURN_END) if token not in known),
    ]
    if len(wanted) > additional:
        raise CheckpointError(f"expected at least {len(wanted)} additional rows, got {additional}")
    # The fillers are never written by anyone, so they need no protection; marking them special would only
    # slow the tokenizer down.
    _add(tokenizer, [f"|<EXTRA_TOKENS_{i}>|" for i in range(vocabulary - present)], special=False)
    _add(tokenizer, wanted, special=True)
    _add(tokenizer, [f"<EXTRA_TOKENS_POINT_{i}>" for i in range(additional - len(wanted))], special=False)
    _add(tokenizer, [point_text(i) for i in range(places)], special=False)
    tokenizer.bos_token = tokenizer.eos_token = TURN_END
    tokenizer.pad_token = END_OF_TEXT
    tokenizer.padding_side = "left"
    tokenizer.chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def build_processor(
    tokenizer: Any,
    config: MolmoPointConfig,
    normalisation: tuple[list[float], list[float]],
    places: int,
    image_settings: Mapping[str, Any],
    video_settings: Mapping[str, Any],
) -> MolmoPointProcessor:
    """The processor of a model.

    Args:
        tokenizer: fast tokenizer of its LLM; it is copied.
        config: of the model.
        normalisation: mean and standard deviation of pixel values in [0, 1], per channel.
        places: how many `<POINT_n>` the tokenizer gets.
        image_settings: of `MolmoPointImageProcessor`, beside size, patch size and normalisation.
        video_settings: the same of `MolmoPointVideoProcessor`.

    Raises:
        CheckpointError: as `extend_tokenizer`.
    """
    text = config.text_config
    extended = extend_tokenizer(tokenizer, text.vocab_size, text.additional_vocab_size, places)
    height, width = config.crop_size
    mean, std = normalisation
    seen: dict[str, Any] = {
        "size": {"height": height, "width": width},
        "patch_size": config.vision_config.patch_size,
        "image_mean": mean,
        "image_std": std,
    }
    return MolmoPointProcessor(
        MolmoPointImageProcessor(**{**image_settings, **seen}),
        MolmoPointVideoProcessor(**{**video_settings, **seen}),
        extended,
        chat_template=str(extended.chat_template),  # one template, never a dict of them
        patch_location=config.patch_location,
    )


def _add(tokenizer: Any, names: list[str], special: bool) -> None:
    tokenizer.add_tokens(
        [AddedToken(name, special=special, normalized=False) for name in names], special_tokens=special
    )
