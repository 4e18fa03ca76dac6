"""Grafts: grounding heads on other vision-language models. Answers are those of a MolmoPoint; pictures are
seen, and rows written, as the host does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.media import RequestMedia
from molmopoint.backends.molmopoint import MolmoPointBackend, join_features
from molmopoint.backends.requests import RequestBuilder
from molmopoint.connector import VisualFeatures
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.graft.config import MODEL_TYPE, GraftConfig
from molmopoint.graft.hosts import GraftFeatures
from molmopoint.graft.network import GraftForConditionalGeneration
from molmopoint.graft.processor import NO_CLIPS, GraftProcessor


class GraftRequests(RequestBuilder):
    """Makes rows about pictures; clips are refused."""

    def process_video(self, video: Any, options: ClipOptions) -> RequestMedia:
        """Always refuses.

        Raises:
            ProcessingError: grafts see no clips.
        """
        raise ProcessingError(NO_CLIPS)


class GraftBackend(MolmoPointBackend):
    """See `Backend`.

    Raises:
        CheckpointError: model and processor are made for different hosts, or have different tokens.
    """

    model_type = MODEL_TYPE
    title = "graft"
    compiles = False
    processor_class = GraftProcessor
    builder_class = GraftRequests
    takes_clips = False
    judges = False

    def __init__(self, processor: GraftProcessor, model: Any = None, **settings: Any) -> None:
        super().__init__(processor, model, **settings)
        if model is None:
            return
        config = model.config
        if processor.host_type != config.host_config.model_type:
            raise CheckpointError(
                f"expected a processor for a {config.host_config.model_type} host, as the model has, got one for "
                f"{processor.host_type}; load both from the same folder"
            )
        if self.patch_token_id != config.patch_token_id:
            raise CheckpointError(
                f"expected a tokenizer in which PATCH is {config.patch_token_id}, as in the model's config, got "
                f"{self.patch_token_id}; load both from the same folder"
            )

    @property
    def patch_size(self) -> int:
        """Pixels along a side of a ViT patch."""
        processor = cast(GraftProcessor, self.processor)
        if not processor.tile_patches:
            return super().patch_size
        return int(processor.image_processor.size["height"]) // processor.tile_patches

    @property
    def packs_rows(self) -> bool:
        """Whether rows may hold several examples and branches."""
        return cast(GraftProcessor, self.processor).host.packs

    @classmethod
    def read_config(cls, source: str, **where: Any) -> Any:
        """See `Backend`."""
        return GraftConfig.from_pretrained(source, trust_remote_code=False, **where)

    @classmethod
    def read_model(cls, source: str, where: dict[str, Any], settings: dict[str, Any]) -> Any:
        """See `Backend`."""
        return GraftForConditionalGeneration.from_pretrained(source, **settings)

    @classmethod
    def read_for_training(cls, source: str, attention: str, settings: dict[str, Any]) -> Any:
        """See `Backend`."""
        return GraftForConditionalGeneration.from_pretrained(
            source, attn_implementation=attention, **settings
        )

    def _joined(self, features: Sequence[Any]) -> VisualFeatures:
        joined = join_features(features)
        if len(features) == 1:
            return joined
        parts = cast(Sequence[GraftFeatures], features)
        layers = zip(*(part.deep for part in parts), strict=True)
        return GraftFeatures(
            **vars(joined),
            deep=tuple(torch.cat(layer) for layer in layers),
            grids=torch.cat([part.grids for part in parts]),
        )
