"""Configuration of a graft: the config of its host as it is, and what the grounding heads need.

Letters: V rows of the vocabulary tables, E pointing width, L location cells, K ViT patches behind an image
token.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from molmopoint import tokens
from molmopoint.config import GroundingSettings
from molmopoint.errors import CheckpointError
from molmopoint.graft.hosts import Host, check_host, host_of
from molmopoint.remote_code import check_kernels

MODEL_TYPE = "molmo_point_graft"
"""What config.json of a graft says."""

UNSET: Any = None


class GraftConfig(PreTrainedConfig):
    """Configuration of `GraftForConditionalGeneration`.

    Attributes:
        host_config: of the host, or a dict of it.
        patch_token_id: PATCH; SUBPATCH and LOCATION have the next two ids, and the token of an overview, which
            cannot be chosen, the one behind them. All four are rows of the tables.
        num_slots: K. The host's config has to say the same, or answers would name other places than in
            training.
        patch_embed_dim: E.
        patch_location: "NxN" location cells per ViT patch; None for none.
        rotary_theta: base of the rotary angles of the patch head.
        patch_logit_scale: as in `MolmoPointConfig`.
        location_input: "normed" or "hidden"; what the location head reads.
        mask_patches: "always" masks patches below the previous one of a list in training too.
        initializer_range: standard deviation of new weights.
        tie_word_embeddings: follows the host.

    Raises:
        CheckpointError: a host that cannot have grounding heads, or sizes that do not fit it.
    """

    model_type = MODEL_TYPE
    sub_configs_defaults = {"host_config": SubConfigSpec(AutoConfig, model_type="qwen3_vl")}
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ["cache", "past_key_values", "grounding_state", "loss_sums", "weight_sum"]

    host_config: Any = UNSET
    patch_token_id: int = -1
    num_slots: int = -1
    patch_embed_dim: int = 512
    patch_location: str | None = "3x3"
    rotary_theta: float = 50000.0
    patch_logit_scale: str | float = "dim"
    location_input: str = "normed"
    mask_patches: str = "always"
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Reads the host's config, and checks that both fit each other."""
        self.patch_embed_dim = check_width(self.patch_embed_dim)
        tokens.cells_per_side(self.patch_location)
        self._check_choices()
        self.host_config = _as_config(self.host_config)
        super().__post_init__(**kwargs)
        check_host(self.host_config)
        found = self.host.slots(self.host_config)
        if self.num_slots not in (-1, found):
            raise CheckpointError(
                f"expected {self.num_slots} ViT patches behind an image token, as these grounding heads were made "
                f"for, got a host with {found}; take the config.json that belongs to the weights"
            )
        self.num_slots = found
        vocabulary = self.text_config.vocab_size
        if not 0 <= self.patch_token_id <= vocabulary - NEW_ROWS:
            raise CheckpointError(
                f"expected patch_token_id in 0..{vocabulary - NEW_ROWS}, with room for {NEW_ROWS} rows in the "
                f"{vocabulary} of the tables, got {self.patch_token_id}; make a graft with molmopoint graft"
            )
        self.tie_word_embeddings = bool(self.host_config.tie_word_embeddings)

    def _check_choices(self) -> None:
        """Refuses values that no graft has.

        Raises:
            CheckpointError: as said.
        """
        choices = {
            "location_input": ("normed", "hidden"),
            "mask_patches": ("always", "inference"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise CheckpointError(
                    f"expected {name} of a graft among {', '.join(known)}, got {getattr(self, name)!r:.80}; correct it "
                    "in config.json"
                )
        if self.rotary_theta is not None and not _is_positive(self.rotary_theta):
            raise CheckpointError(
                f"expected rotary_theta as a positive number, or none, got {self.rotary_theta!r:.80}; correct it in "
                "config.json"
            )
        scale = self.patch_logit_scale
        if scale not in ("keys", "dim") and not _is_positive(scale):
            raise CheckpointError(
                f"expected patch_logit_scale 'keys', 'dim' or a positive number, got {scale!r:.80}; correct it in "
                "config.json"
            )

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What config.json says.

        Raises:
            CheckpointError: it chooses an attention kernel of another repository.
        """
        fields, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        check_kernels(fields, pretrained_model_name_or_path)
        return fields, unused

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """That of the host's text model."""
        return self.host_config.get_text_config(decoder=True)

    @property
    def host(self) -> Host:
        """How this family of hosts is used."""
        return host_of(self.host_config.model_type)

    @property
    def text_config(self) -> Any:
        """Of the host's text model."""
        return self.get_text_config()

    @property
    def vision_config(self) -> Any:
        """Of the host's ViT."""
        return self.host_config.vision_config

    @property
    def new_rows(self) -> range:
        """Rows of the vocabulary tables that the graft brought; all others are those of the host."""
        return range(self.patch_token_id, self.patch_token_id + NEW_ROWS)

    @property
    def location_grid(self) -> int:
        """Location cells per side of a ViT patch; 0 without a location head."""
        return tokens.cells_per_side(self.patch_location)

    @property
    def num_locations(self) -> int:
        """L."""
        return self.location_grid**2

    @property
    def extended_start(self) -> int:
        """First id of the extended vocabulary, V."""
        return self.text_config.vocab_size

    @property
    def overview_token_id(self) -> int:
        """Token of image tokens that cannot be chosen."""
        return self.patch_token_id + 3

    @property
    def grounding(self) -> GroundingSettings:
        """What rows, losses and decoding rules read, as this config is now."""
        return GroundingSettings(
            image_patch_id=self.host_config.image_token_id,
            image_non_indexable_patch_id=self.overview_token_id,
            frame_start_token_id=-1,
            patch_token_id=self.patch_token_id,
            subpatch_token_id=self.patch_token_id + 1,
            location_token_id=self.patch_token_id + 2,
            extended_start=self.extended_start,
            num_locations=self.num_locations,
            patch_embed_dim=self.patch_embed_dim,
            patch_logit_scale=self.patch_logit_scale,
            masks_patches=self.mask_patches == "always",
            norms_location=self.location_input == "normed",
        )


NEW_TOKENS = (tokens.PATCH, tokens.SUBPATCH, tokens.LOCATION, tokens.LOW_RES_PATCH)
"""Tokens of a graft in the order of their ids."""

NEW_ROWS = len(NEW_TOKENS)


WIDEST = 65_536
"""Most numbers in which a place is chosen; wider ones fill the memory before anything is read."""


def check_width(width: Any) -> int:
    """E, as a whole number.

    Raises:
        CheckpointError: it is none, is odd, or is out of range.
    """
    is_whole = isinstance(width, Integral) and not isinstance(width, bool)
    number = int(width) if is_whole else 0
    if not 2 <= number <= WIDEST or number % 2:
        raise CheckpointError(
            f"expected an even patch_embed_dim in 2..{WIDEST}, because it is rotated in pairs, got {width!r:.80}; "
            "choose one such as 512"
        )
    return number


def _is_positive(value: Any) -> bool:
    """Whether it is a finite number above 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


def _as_config(given: Any) -> Any:
    """The config of a host, from a dict where it was read from a file.

    Raises:
        CheckpointError: there is none, or it is that of a model without the interface.
    """
    if isinstance(given, PreTrainedConfig):
        return given
    if not isinstance(given, dict) or "model_type" not in given:
        raise CheckpointError(
            f"expected the config of a host with its model_type as host_config, got {given!r:.80}; make a graft "
            "with molmopoint graft"
        )
    fields = dict(given)
    model_type = fields.pop("model_type")
    host_of(model_type)
    return AutoConfig.for_model(model_type, **fields)
