"""Sub-configs between the released form on disk and the native form in memory: two tables and the two functions that apply them.

The native classes understand most released names by themselves; what they do not know is either constant or written only.
"""

from __future__ import annotations

import copy
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

RELEASED_NAMES = {
    "text_config": {"attention_bias": "qkv_bias", "rms_norm_eps": "layer_norm_eps"},
    "vision_config": {
        "image_size": "image_default_input_size",
        "patch_size": "image_patch_size",
        "num_position_embeddings": "image_num_pos",
    },
    "adapter_config": {"vision_feature_layer": "vit_layers"},
}
"""Native field -> released field of each sub-config."""

RELEASED_CONSTANTS: dict[str, dict[str, Any]] = {
    "text_config": {"model_type": "molmo2_text", "use_qk_norm": True, "embedding_dropout": 0.0, "residual_dropout": 0.0},
    "vision_config": {"model_type": "molmo2", "float32_attention": True, "residual_dropout": 0.0},
    "adapter_config": {
        "model_type": "molmo_point",
        "float32_attention": True,
        "residual_dropout": 0.0,
        "image_feature_dropout": 0,
    },
}
"""Released fields with the one value this library implements; written for released tooling, checked when read."""


def read_sub_config(
    name: str, kind: type[PreTrainedConfig], given: PreTrainedConfig | dict[str, Any] | None, defaults: dict[str, Any]
) -> Any:
    """A sub-config of the given class from another one, or from a dict in released or native form.

    Args:
        name: field of the sub-config, for messages.
        kind: class of the result.
        given: what the user passed; it is copied, never changed.
        defaults: used when nothing was passed.

    Raises:
        ValueError: a field the class refuses, or a released constant this library does not implement.
    """
    if isinstance(given, kind):
        return copy.deepcopy(given)
    if isinstance(given, PreTrainedConfig):
        given = given.to_dict()
    fields = copy.deepcopy(defaults if given is None else given)
    fields.pop("transformers_version", None)
    for constant, ours in RELEASED_CONSTANTS[name].items():
        theirs = fields.pop(constant, ours)
        if constant == "use_qk_norm" and not theirs:
            raise ValueError(f"expected {name}.{constant} {ours}, got {theirs}; only models with query and key norms are implemented")
        if constant != "model_type" and theirs != ours:
            logger.warning(f"{name}.{constant} is {theirs}, but this library always uses {ours}: training may differ from the original")
    try:
        return kind(**fields)
    except (StrictDataclassError, TypeError) as error:
        raise ValueError(f"{name} cannot be read, correct the named field: {error}") from error


def released_fields(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A sub-config's dict under the released names."""
    renamed = {RELEASED_NAMES[name].get(key, key): value for key, value in fields.items()} | RELEASED_CONSTANTS[name]
    rope = renamed.pop("rope_parameters", None)
    if rope is not None:
        renamed["rope_theta"] = rope["rope_theta"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        renamed["rope_scaling"] = None if scaling == {"rope_type": "default"} else scaling
    return renamed
