"""The text model of a new model: a pretrained LLM of transformers, under the names of the native Molmo2 text
model.

That text model is a decoder with gated MLPs, norms of queries and keys (per head, or over all heads at once),
norms before or behind each sublayer, one base of rotation, and a scaling of the rotation in all layers or
some. LLMs that are something else are refused with the reason.

Letters: H text width, V rows of the vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Olmo2ForCausalLM,
    Olmo3ForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

from molmopoint.checkpoints.part import Part
from molmopoint.errors import CheckpointError
from molmopoint.key_map import RELEASED_ADDITIONAL_ROWS
from molmopoint.load_checks import reading_part
from molmopoint.remote_code import check_kernels, running_no_code

logger = logging.get_logger(__name__)

EMBEDDING, OUTPUT = "model.language_model.embed_tokens.weight", "lm_head.weight"
ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Scalings of the rotation that do not depend on the length of the input."""


@dataclass(frozen=True)
class Family:
    """How an LLM differs from the others.

    Attributes:
        fields: of the text config.
        norms: its name of a norm -> the native one, where they differ.
    """

    fields: dict[str, Any]
    norms: dict[str, str] = field(default_factory=dict)


OLMO = Family(
    {"qk_norm_type": "olmo", "norm_after": True},
    {"post_attention_layernorm": "input_layernorm", "post_feedforward_layernorm": "post_attention_layernorm"},
)
FAMILIES: dict[type[PreTrainedModel], Family] = {
    Qwen3ForCausalLM: Family({"qk_norm_type": "qwen3", "norm_after": False}),
    Olmo2ForCausalLM: OLMO,
    Olmo3ForCausalLM: OLMO,
}


def load_llm(source: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """A pretrained LLM from a folder or repository, from safetensors and without code of the repository.

    Args:
        source: a local folder, or an id on the hub such as "Qwen/Qwen3-8B".
        dtype: of its weights in memory.

    Raises:
        CheckpointError: there is none, its files do not fit each other, or it needs code of its own.
    """
    with reading_part(source, "an LLM"), running_no_code(source):
        check_kernels(PretrainedConfig.get_config_dict(source)[0], source)
        return AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )


def text_part(llm: PreTrainedModel, additional_rows: int = RELEASED_ADDITIONAL_ROWS) -> Part:
    """The config fields and tensors of the text model; its two tables, `EMBEDDING` and `OUTPUT`, still
    without additional rows.

    A model with tied tables has no `OUTPUT`.

    Args:
        llm: Qwen3, OLMo 2 or OLMo 3 with its vocabulary head.
        additional_rows: rows the tables will get.

    Raises:
        CheckpointError: an LLM that the text model cannot represent.
    """
    family = FAMILIES.get(type(llm))
    if family is None:
        known = ", ".join(kind.__name__ for kind in FAMILIES)
        raise CheckpointError(
            f"expected one of {known}, got {type(llm).__name__}{_reason(llm)}; take one of these families"
        )
    config: Any = llm.config
    if config.attention_bias:
        raise CheckpointError(
            "expected an LLM without biases in its attention, got attention_bias=True; the text model has "
            "none behind it"
        )
    if not all(parameter.is_floating_point() for parameter in llm.parameters()) or getattr(
        llm, "is_quantized", False
    ):
        raise CheckpointError(
            "expected an LLM in floating point, got a quantised one; load it without quantisation"
        )
    fields = {name: getattr(config, name) for name in _SAME}
    fields |= {
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "additional_vocab_size": additional_rows,
        "tie_word_embeddings": bool(config.tie_word_embeddings),
    }
    fields |= family.fields | _rotation(config)
    _warn_of_windows(config)
    tensors = {_native_name(name, family): parameter.detach() for name, parameter in llm.named_parameters()}
    return Part(fields, tensors)


_SAME = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "attention_dropout",
)  # fmt: skip


def _native_name(name: str, family: Family) -> str:
    layer = re.fullmatch(r"(model\.layers\.\d+\.)(\w+)(\.weight)", name)
    if layer is not None:
        name = layer[1] + family.norms.get(layer[2], layer[2]) + layer[3]
    return re.sub(r"^model\.", "model.language_model.", name)


def _reason(llm: PreTrainedModel) -> str:
    """Why an LLM of another family cannot be taken, as far as its weights tell."""
    names = [name for name, _ in llm.named_parameters()]
    if any("expert" in name for name in names):
        return ", a mixture of experts, which the text model has no place for"
    if not any("q_norm" in name for name in names):
        return ", which has no norms of queries and keys"
    return ""


def _rotation(config: Any) -> dict[str, Any]:
    """`rope_parameters`, and the layers that are scaled where not all of them are."""
    stated, kinds = config.rope_parameters, getattr(config, "layer_types", None) or []
    by_kind = {kind: dict(stated.get(kind, stated)) for kind in kinds or ["full_attention"]}
    scaled = {kind: rope for kind, rope in by_kind.items() if rope["rope_type"] != "default"}
    rope = next(iter((scaled or by_kind).values()))
    others = [other for kind, other in by_kind.items() if kind not in scaled]
    partial = any(other.get("partial_rotary_factor", 1.0) != 1.0 for other in by_kind.values())
    if (
        rope["rope_type"] not in ROTATIONS
        or partial
        or any(other != rope for other in scaled.values())
        or any(other["rope_theta"] != rope["rope_theta"] for other in others)
    ):
        raise CheckpointError(
            f"expected rotations with one base and one scaling ({', '.join(ROTATIONS)}) of whole heads, got "
            f"{stated}; "
            "the text model has no place for more"
        )
    layers = [layer for layer, kind in enumerate(kinds) if kind in scaled] if scaled and others else None
    return {"rope_parameters": rope, "rope_scaling_layers": layers}


def _warn_of_windows(config: Any) -> None:
    windows = [kind for kind in getattr(config, "layer_types", None) or [] if kind == "sliding_attention"]
    if windows:
        logger.warning(
            f"{len(windows)} of {config.num_hidden_layers} layers of the LLM see the last "
            f"{config.sliding_window} tokens only; here they "
            "see all, because the text model has no windows. Up to that length nothing changes; beyond it "
            "the new model has to be trained"
        )
