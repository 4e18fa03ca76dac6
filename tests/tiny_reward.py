"""Tiny reward models of both families, and processors for them; weights are far enough from zero that order
and looks matter.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from tiny import random_model
from tiny_molmo2 import MOLMO2_TOKENS, random_molmo2
from toy_processor import SIZE, TEMPLATE, toy_tokenizer

from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor
from molmopoint.reward import RewardModel, RewardSettings, add_separator
from molmopoint.tokens import IMAGE_START, RELEASED_TOKENS

Family = Literal["molmopoint", "molmo2"]
FAMILIES: tuple[Family, ...] = ("molmopoint", "molmo2")
FILLERS = ("<EXTRA_TOKENS_POINT_0>", "<EXTRA_TOKENS_POINT_1>")


PUBLISHED = (
    TEMPLATE.replace("<|im_start|>{{", "{{ ' ' if m['role'] == 'assistant' }}<|im_start|>{{")
    .replace("<|im_end|>\n{% endfor %}", "{% if m['role'] == 'user' or not loop.last %}<|im_end|>\n{% endif %}{% endfor %}")
)  # fmt: skip
"""Writes what the published template does: a space before the header of an answer, and no end behind the last
one.
"""


def reward_processor(
    family: Family, *, line_ends: bool = False, template: str = TEMPLATE
) -> MolmoPointProcessor:
    """Crops of 5 by 5 ViT patches, text of bytes; that of a MolmoPoint has fillers, that of a Molmo2 has
    none.
    """
    point = family == "molmopoint"
    tokenizer = toy_tokenizer(
        (*RELEASED_TOKENS, *FILLERS) if point else MOLMO2_TOKENS,
        points=600 if point else 0,
        line_ends=line_ends,
    )
    return MolmoPointProcessor(
        MolmoPointImageProcessor(size=SIZE, overlap_margins=[1, 1], max_crops=4),
        MolmoPointVideoProcessor(size=SIZE, num_frames=8),
        tokenizer,
        chat_template=template,
        use_low_res_token_for_global_crops=point,
        patch_location="3x3" if point else None,
    )


def random_backbone(family: Family, seed: int = 0) -> Any:
    if family == "molmo2":
        return random_molmo2(seed)
    tokenizer = reward_processor(family).tokenizer
    text = {
        "vocab_size": tokenizer.convert_tokens_to_ids(IMAGE_START), "additional_vocab_size": len(RELEASED_TOKENS) + len(FILLERS),
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "max_position_embeddings": 2048,
    }  # fmt: skip
    return random_model(seed, text_config=text)


def random_reward(
    family: Family = "molmopoint", seed: int = 0, **settings: Any
) -> tuple[RewardModel, MolmoPointProcessor]:
    processor = reward_processor(family)
    given = RewardSettings(**{"head_width": 16, **settings})
    model = RewardModel(random_backbone(family, seed), given, add_separator(processor.tokenizer))
    with torch.no_grad():
        for parameter in model.value.parameters():
            parameter.normal_(std=0.5)
    return model.eval(), processor
