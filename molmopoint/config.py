"""Configuration of a MolmoPoint model: what released `config.json` files say, checked and brought into one
form.

In memory the sub-configs are those of transformers' native Molmo2, because its vision tower and text model
read them. On disk the config has the names of the released files, so that released tooling reads what we
save. `MolmoPointConfig` accepts both.

Letters: V vocabulary, A additional vocabulary rows, H text width, E pointing width, F width of the tapped ViT
features, L location cells per ViT patch.

What may surprise: released files declare 27 ViT layers but store 25; layers above the deepest tapped one do
nothing, so they are always trimmed and the tapped layers become absolute.

Sub-configs between the released form on disk and the native form in memory: two tables and the two functions
that apply them.

The native classes understand most released names by themselves; what they do not know is either constant or
written only.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.molmo2.configuration_molmo2 import (
    Molmo2AdapterConfig,
    Molmo2TextConfig,
    Molmo2VisionConfig,
)
from transformers.utils import logging

from molmopoint import tokens
from molmopoint.remote_code import check_kernels

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
    "text_config": {
        "model_type": "molmo2_text",
        "use_qk_norm": True,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
    },
    "vision_config": {"model_type": "molmo2", "float32_attention": True, "residual_dropout": 0.0},
    "adapter_config": {
        "model_type": "molmo_point",
        "float32_attention": True,
        "residual_dropout": 0.0,
        "image_feature_dropout": 0,
    },
}
"""Released fields with the one value this library implements; written for released tooling, checked when
read.
"""


def read_sub_config(
    name: str,
    kind: type[PreTrainedConfig],
    given: PreTrainedConfig | dict[str, Any] | None,
    defaults: dict[str, Any],
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
            raise ValueError(
                f"expected {name}.{constant} {ours}, got {theirs}; only models with query and key norms are "
                "implemented"
            )
        if constant != "model_type" and theirs != ours:
            logger.warning(
                f"{name}.{constant} is {theirs}, but this library always uses {ours}: training may differ "
                "from the original"
            )
    try:
        return kind(**fields)
    except (StrictDataclassError, TypeError) as error:
        raise ValueError(f"{name} cannot be read, correct the named field: {error}") from error


def released_fields(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A sub-config's dict under the released names."""
    renamed = {
        RELEASED_NAMES[name].get(key, key): value for key, value in fields.items()
    } | RELEASED_CONSTANTS[name]
    rope = renamed.pop("rope_parameters", None)
    if rope is not None:
        renamed["rope_theta"] = rope["rope_theta"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        renamed["rope_scaling"] = None if scaling == {"rope_type": "default"} else scaling
    return renamed


UNSET: Any = None
"""Default of fields that get their value from other fields when the config is built."""

ID_FIELDS = {
    "image_start_token_id": tokens.IMAGE_START,
    "image_end_token_id": tokens.IMAGE_END,
    "image_patch_id": tokens.IMAGE_PATCH,
    "image_col_id": tokens.IMAGE_COL,
    "low_res_image_start_token_id": tokens.LOW_RES_START,
    "image_non_indexable_patch_id": tokens.LOW_RES_PATCH,
    "frame_start_token_id": tokens.FRAME_START,
    "frame_end_token_id": tokens.FRAME_END,
    "patch_token_id": tokens.PATCH,
    "subpatch_token_id": tokens.SUBPATCH,
    "location_token_id": tokens.LOCATION,
}
"""Config field of each special token the model must know."""

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "no_more_points_class": (True,),
    "patch_embedding_kind": ("image_feature0",),
    "embed_selected_vit_patch": ("linear",),
    "embed_location": (False,),
    "layer_norm_x": (True,),
    "norm_logits": (True,),
    "token_prediction_rotary": ("one_d", "none"),
    "mask_patches": ("always", "inference"),
    "mask_subpatches": ("inference",),
    "mask_repeats": ("inference", "all"),
    "location_input": ("normed", "hidden"),
}
"""Values the network and the decoder implement; files with any other one describe a model that was never
released.
"""


@dataclass(frozen=True)
class GroundingSettings:
    """What rows, losses and decoding rules read of a config. Another network that grounds fills it from a
    config of its own.

    Attributes:
        image_patch_id: token of the image tokens that may be chosen.
        image_non_indexable_patch_id: token of those that may not, of a global crop.
        frame_start_token_id: token before the image tokens of a frame.
        patch_token_id: token that selects a patch.
        subpatch_token_id: token that selects a subpatch.
        location_token_id: token that selects a location.
        extended_start: first id of the extended vocabulary, V + A.
        num_locations: L, cells per ViT patch; 0 without a location head.
        patch_embed_dim: E.
        patch_logit_scale: "keys", "dim", or the factor itself.
        masks_patches: whether patches below the previous one of a list are masked in training too.
        norms_location: whether the location head reads the normed state.
    """

    image_patch_id: int
    image_non_indexable_patch_id: int
    frame_start_token_id: int
    patch_token_id: int
    subpatch_token_id: int
    location_token_id: int
    extended_start: int
    num_locations: int
    patch_embed_dim: int
    patch_logit_scale: str | float
    masks_patches: bool
    norms_location: bool


class MolmoPointAdapterConfig(Molmo2AdapterConfig):
    """Connector: the native Molmo2 adapter and what MolmoPoint adds.

    Attributes:
        vision_feature_layer: tapped ViT layers in the order their outputs are concatenated; released files
            call them `vit_layers`.
        pooling_attention_mask: whether empty slots are left out of the softmax; they are zero vectors in any
            case.
        positional_embeddings: number of slots with a learned bias added before pooling, None for no bias.
        attention_pooling_out_layer: whether the pooling attention ends with an output projection.
    """

    model_type = "molmo_point_adapter"

    vision_feature_layer: list[int] = UNSET
    pooling_attention_mask: bool = True
    positional_embeddings: int | None = None
    attention_pooling_out_layer: bool = False


class MolmoPointConfig(PreTrainedConfig):
    """Configuration of `MolmoPointForConditionalGeneration`.

    It is mutable: `location_input`, `patch_logit_scale` and the masks are read at every call. Without
    arguments it describes the 8B model, but with `patch_logit_scale="dim"`, as every new model.

    Attributes:
        text_config: decoder, or a dict of it. Its `tie_word_embeddings` decides whether the tables are
            shared.
        vision_config: ViT, or a dict of it; released files call it `vit_config`.
        adapter_config: connector, or a dict of it. Sizes it shares with the other two default to theirs.
        image_start_token_id: id of `<im_start>`; -1 or null: V. Every other unset id follows in the released
            order.
        patch_embed_dim: E, width of patch and subpatch queries and keys.
        patch_location: "NxN" location cells per ViT patch, or None for points without a location.
        no_more_points_class: whether a learned key ends a list.
        token_prediction_rotary: "one_d" rotates patch queries and keys, "none" does not.
        token_prediction_rotary_theta: base of its angles; None: that of the decoder.
        layer_norm_x: whether the pointing heads have a norm of their own.
        norm_logits: whether patch and subpatch logits are scaled.
        mask_patches: "always": patches below the previous one of the list are masked in training too;
            "inference": not there.
        mask_subpatches: "inference": slots are masked in decoding only.
        mask_repeats: a place is never chosen twice; in decoding only, whichever of the two released words
            says so.
        patch_embedding_kind: what a chosen patch adds to its token; "image_feature0": the connector output.
        embed_selected_vit_patch: what a chosen slot adds to its token; "linear": its projected ViT features.
        embed_location: whether a chosen location adds to its token.
        use_frame_special_tokens: whether frames are enclosed in `<frame_start>` and `<frame_end>`.
        location_input: what the location head reads: "normed" states as in training, or "hidden" states
            before the norm, as the decoding of the reference does.
        share_low_res_embedding: whether `<im_low>` is embedded with the row of `<im_patch>`, as in training.
        patch_logit_scale: "keys": 1 / sqrt(image tokens of the query's own example + 1); "dim": 1 / sqrt(E);
            a float is the factor itself. None: "keys" if the ViT came as `vit_config`, the released form,
            which always states this field when we write it; else, for new models, "dim".
        max_turns: most questions of a conversation that the model was trained on; None where there is no such
            limit.
        tie_word_embeddings: follows `text_config`; released files always say false here.

    Raises:
        ValueError: a combination that no network of this library can have.
    """

    model_type = "molmo_point"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(Molmo2TextConfig),
        "vision_config": SubConfigSpec(Molmo2VisionConfig),
        "adapter_config": SubConfigSpec(MolmoPointAdapterConfig),
    }
    attribute_map = {
        "image_token_id": "image_patch_id",
        "video_token_id": "image_patch_id",
        "image_high_res_id": "image_patch_id",
        "vit_config": "vision_config",
    }
    keys_to_ignore_at_inference = ["cache", "past_key_values", "grounding_state", "loss_sums", "weight_sum"]

    # Annotated as what they are once built; dicts and null are accepted and turned into these.
    text_config: Molmo2TextConfig = UNSET
    vision_config: Molmo2VisionConfig = UNSET
    adapter_config: MolmoPointAdapterConfig = UNSET
    image_start_token_id: int = -1
    image_end_token_id: int = -1
    image_patch_id: int = -1
    image_col_id: int = -1
    low_res_image_start_token_id: int = -1
    image_non_indexable_patch_id: int = -1
    frame_start_token_id: int = -1
    frame_end_token_id: int = -1
    patch_token_id: int = -1
    subpatch_token_id: int = -1
    location_token_id: int = -1
    patch_embed_dim: int = 512
    patch_location: str | None = "3x3"
    no_more_points_class: bool = True
    token_prediction_rotary: str = "one_d"
    token_prediction_rotary_theta: float = 50000.0
    layer_norm_x: bool = True
    norm_logits: bool = True
    mask_patches: str = "always"
    mask_subpatches: str = "inference"
    mask_repeats: str = "inference"
    patch_embedding_kind: str = "image_feature0"
    embed_selected_vit_patch: str = "linear"
    embed_location: bool = False
    use_frame_special_tokens: bool = True
    location_input: str = "normed"
    share_low_res_embedding: bool = True
    patch_logit_scale: str | float = UNSET
    max_turns: int | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Reads the released form, fills what depends on other fields, and checks the whole.

        Raises:
            ValueError: an impossible combination; the message names both values.
        """
        released_vision = kwargs.pop("vit_config", None)
        if released_vision is not None and self.vision_config is not None:
            raise ValueError(
                "expected vit_config (released form) or vision_config (native form), got both; keep one of "
                "them"
            )
        self.vision_config = released_vision if released_vision is not None else self.vision_config
        duplicate = kwargs.pop("image_high_res_id", None)
        # Names the remote code of a released repository, which this class replaces.
        kwargs.pop("auto_map", None)
        self._build_sub_configs()
        super().__post_init__(**kwargs)
        self._fill_token_ids()
        if duplicate not in (None, self.image_patch_id):
            raise ValueError(
                f"expected image_high_res_id to repeat image_patch_id {self.image_patch_id}, got "
                f"{duplicate}; drop it"
            )
        if self.patch_logit_scale is None:
            self.patch_logit_scale = "dim" if released_vision is None else "keys"
        if self.token_prediction_rotary_theta is None:
            rope = cast(dict[str, float], self.text_config.rope_parameters)
            self.token_prediction_rotary_theta = rope["rope_theta"]
        if self.tie_word_embeddings and not self.text_config.tie_word_embeddings:
            raise ValueError(
                "tie_word_embeddings is True but text_config.tie_word_embeddings is False; the latter "
                "decides, so set it there"
            )
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        self.validate()

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What config.json says; refused unless it says that it is ours, because defaults would make an 8B
        model of it.

        Raises:
            ValueError: the file is of another model type, or of none.
            CheckpointError: it chooses an attention kernel of another repository.
        """
        fields, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        found = fields.get("model_type") if isinstance(fields, dict) else None
        if found != cls.model_type:
            raise ValueError(
                f"expected a config file with model_type {cls.model_type!r}, got {found!r}; pass a "
                "MolmoPoint model"
            )
        check_kernels(fields, pretrained_model_name_or_path)
        return fields, unused

    @property
    def location_grid(self) -> int:
        """Location cells per side of a ViT patch; 0 without a location head."""
        return tokens.cells_per_side(self.patch_location)

    @property
    def num_locations(self) -> int:
        """L, location cells per ViT patch."""
        return self.location_grid**2

    @property
    def extended_start(self) -> int:
        """First id of the extended vocabulary, V + A."""
        return self.text_config.vocab_size + self.text_config.additional_vocab_size

    @property
    def grounding(self) -> GroundingSettings:
        """What rows, losses and decoding rules read, as this config is now; it may be changed between two
        calls.
        """
        return GroundingSettings(
            image_patch_id=self.image_patch_id,
            image_non_indexable_patch_id=self.image_non_indexable_patch_id,
            frame_start_token_id=self.frame_start_token_id,
            patch_token_id=self.patch_token_id,
            subpatch_token_id=self.subpatch_token_id,
            location_token_id=self.location_token_id,
            extended_start=self.extended_start,
            num_locations=self.num_locations,
            patch_embed_dim=self.patch_embed_dim,
            patch_logit_scale=self.patch_logit_scale,
            masks_patches=self.mask_patches == "always",
            norms_location=self.location_input == "normed",
        )

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids of the tokens of type 1, which see each other in both directions."""
        ids = {token: getattr(self, field) for field, token in ID_FIELDS.items()}
        return tuple(ids[token] for token in tokens.VISION_TOKENS)

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of a crop in pixels."""
        height, width = cast(Sequence[int], self.vision_config.image_size)
        return height, width

    @property
    def vit_feature_dim(self) -> int:
        """F, ViT width times the number of tapped layers."""
        return self.vision_config.hidden_size * len(self.adapter_config.vision_feature_layer)

    def validate(self) -> None:
        """Checks the values as they are now; called when built and when saved.

        Raises:
            ValueError: an impossible combination; the message names both values.
        """
        super().validate()  # pyright: ignore[reportAttributeAccessIssue] (made by a decorator of the base class)
        check_fields(self)
        check_sizes(self)

    def to_dict(self) -> dict[str, Any]:
        """All fields under the released names, for `config.json`; `MolmoPointConfig(**that)` is an equal
        config.
        """
        output = super().to_dict()
        for name in self.sub_configs_defaults:
            output[name] = released_fields(name, output[name])
        rope_layers = output["text_config"].get("rope_scaling_layers")
        if rope_layers == list(range(output["text_config"]["num_hidden_layers"])):
            output["text_config"]["rope_scaling_layers"] = None  # "all of them" in released files
        output["vit_config"] = output.pop("vision_config")
        output["image_high_res_id"] = self.image_patch_id
        output["tie_word_embeddings"] = False
        return output

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict` without the fields every transformers config has at their defaults; this is what is
        saved.
        """
        common = PreTrainedConfig().to_dict()
        common.pop("transformers_version")

        def differing(fields: dict[str, Any]) -> dict[str, Any]:
            return {
                k: v
                for k, v in fields.items()
                if k != "_name_or_path" and (k not in common or v != common[k])
            }

        output = differing(self.to_dict())
        return output | {
            name: differing(output[name]) for name in ("text_config", "vit_config", "adapter_config")
        }

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same model; where they were read from does not count."""
        return isinstance(other, MolmoPointConfig) and self.to_diff_dict() == other.to_diff_dict()

    def _build_sub_configs(self) -> None:
        """Turns dicts into sub-configs of our own, trims the ViT, and makes the tapped layers absolute."""
        text = read_sub_config(
            "text_config",
            Molmo2TextConfig,
            self.text_config,
            {"rope_theta": 1e6, "max_position_embeddings": 37376},
        )
        vision = read_sub_config("vision_config", Molmo2VisionConfig, self.vision_config, {})
        shared = {
            "hidden_size": vision.hidden_size,
            "num_attention_heads": vision.num_attention_heads,
            "num_key_value_heads": vision.num_attention_heads,
            "head_dim": vision.head_dim,
            "text_hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
        }
        given: MolmoPointAdapterConfig | dict[str, Any] = self.adapter_config or {}
        if isinstance(given, dict):
            given = shared | given
        adapter = read_sub_config("adapter_config", MolmoPointAdapterConfig, given, {})
        depth, layers = vision.num_hidden_layers, adapter.vision_feature_layer
        if not layers or not all(-depth <= layer < depth for layer in layers):
            raise ValueError(
                f"expected tapped layers (vit_layers) among the {depth} layers of the ViT, got {layers}; "
                "correct one of them"
            )
        adapter.vision_feature_layer = [layer % depth for layer in layers]
        vision.num_hidden_layers = max(adapter.vision_feature_layer) + 1
        self.text_config, self.vision_config, self.adapter_config = text, vision, adapter

    def _fill_token_ids(self) -> None:
        """Ids that are null or -1 follow `<im_start>` in the released order; released files forget one of
        them.
        """
        if self.image_start_token_id in (None, -1):
            self.image_start_token_id = self.text_config.vocab_size
        for field, token in ID_FIELDS.items():
            if getattr(self, field) in (None, -1):
                setattr(self, field, self.image_start_token_id + tokens.RELEASED_TOKENS.index(token))


def _check_turns(turns: object) -> None:
    if turns is not None and (isinstance(turns, bool) or not isinstance(turns, int) or turns < 1):
        raise ValueError(f"expected max_turns to be a whole number of 1 or more, or null, got {turns!r}")


def check_fields(config: MolmoPointConfig) -> None:
    """Checks fields one by one, and the token ids among each other.

    Raises:
        ValueError: a value the network or the decoder does not implement.
    """
    for field, allowed in SUPPORTED.items():
        value = getattr(config, field)
        # `True == 1`, and the released default of token_prediction_rotary is the invalid True: types count.
        if not any(value == option and type(value) is type(option) for option in allowed):
            options = " or ".join(repr(option) for option in allowed)
            raise ValueError(
                f"expected {field} {options}, got {value!r}; other values belong to models that were never "
                "released"
            )
    if config.patch_location is not None and not re.fullmatch(r"([1-9]\d*)x\1", str(config.patch_location)):
        raise ValueError(
            f"expected patch_location 'NxN' such as '3x3', or null, got {config.patch_location!r}; cells "
            "are square"
        )
    for field in ("use_frame_special_tokens", "share_low_res_embedding"):
        if not isinstance(getattr(config, field), bool):
            raise ValueError(f"expected {field} true or false, got {getattr(config, field)!r}")
    _check_turns(config.max_turns)
    scale = config.patch_logit_scale
    is_factor = (
        isinstance(scale, int | float) and not isinstance(scale, bool) and math.isfinite(scale) and scale > 0
    )
    if scale not in ("keys", "dim") and not is_factor:
        raise ValueError(f"expected patch_logit_scale 'keys', 'dim' or a positive number, got {scale!r}")
    ids = {field: getattr(config, field) for field in ID_FIELDS}
    for field, token_id in ids.items():
        if not isinstance(token_id, int) or not 0 <= token_id < config.extended_start:
            raise ValueError(
                f"expected {field} in 0..{config.extended_start - 1} (text_config.vocab_size "
                f"{config.text_config.vocab_size} + "
                f"additional_vocab_size {config.text_config.additional_vocab_size}), got {token_id}; use "
                "the ids of the tokenizer"
            )
    if len(set(ids.values())) < len(ids):
        raise ValueError(
            f"expected a different id for each special token, got {ids}; use the ids of the tokenizer"
        )


def check_sizes(config: MolmoPointConfig) -> None:
    """Checks that the boxes fit each other.

    Raises:
        ValueError: two sizes that cannot belong to one network.
    """
    text, vision, adapter = config.text_config, config.vision_config, config.adapter_config
    pooling_width = adapter.num_attention_heads * adapter.head_dim
    height, width = config.crop_size
    patches = (height // vision.patch_size) * (width // vision.patch_size)
    equal = [
        (
            "adapter_config.text_hidden_size",
            adapter.text_hidden_size,
            "text_config.hidden_size",
            text.hidden_size,
        ),
        (
            "adapter_config.num_key_value_heads",
            adapter.num_key_value_heads,
            "its num_attention_heads",
            adapter.num_attention_heads,
        ),
        (
            "vision_config.num_position_embeddings",
            vision.num_position_embeddings,
            "the number of ViT patches",
            patches,
        ),
    ]
    if not adapter.attention_pooling_out_layer:
        equal.append(
            (
                "adapter_config.hidden_size",
                adapter.hidden_size,
                "its num_attention_heads * head_dim",
                pooling_width,
            )
        )
    for left, left_value, right, right_value in equal:
        if left_value != right_value:
            raise ValueError(
                f"expected {left} to equal {right}, got {left_value} and {right_value}; correct one of them"
            )
    if text.num_attention_heads % text.num_key_value_heads:
        raise ValueError(
            "expected text_config.num_attention_heads to be a multiple of num_key_value_heads, got "
            f"{text.num_attention_heads} "
            f"and {text.num_key_value_heads}; correct one of them"
        )
    if config.patch_embed_dim < 2 or config.patch_embed_dim % 2:
        raise ValueError(
            "expected an even patch_embed_dim of at least 2, because it is rotated in pairs, got "
            f"{config.patch_embed_dim}"
        )
