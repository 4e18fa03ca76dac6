"""MolmoPoint behind `Pointer`: places are chosen with grounding tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from molmopoint.connector import VisualFeatures
from molmopoint.errors import CheckpointError
from molmopoint.generation.loop import PIXELS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline.answers import AnswerReader
from molmopoint.pipeline.family import ModelFamily
from molmopoint.pipeline.options import AnswerOptions
from molmopoint.pipeline.requests import Request
from molmopoint.pipeline.result import PointingResult
from molmopoint.pipeline.streaming import EventReader
from molmopoint.pipeline.visual import VisualInput, join_features
from molmopoint.processing import MolmoPointProcessor


class GroundingFamily(ModelFamily):
    """See `ModelFamily`.

    Raises:
        CheckpointError: model and processor divide a ViT patch into different location cells.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration, processor: MolmoPointProcessor) -> None:
        if processor.location_grid != model.config.location_grid:
            raise CheckpointError(
                f"expected a processor with {model.config.patch_location} location cells as the model has, got {processor.patch_location}; "
                "load both from the same folder, or set patch_location alike"
            )
        super().__init__(model, processor)
        self._reader = AnswerReader(processor.tokenizer, self.eos_token_ids, model.config.extended_start)

    def encode(self, visual: VisualInput) -> VisualFeatures:
        """What the model sees of pictures or a clip."""
        with torch.inference_mode():
            return self.model.get_visual_features(**self.on_device(visual.pixels))

    def events(self, request: Request, options: AnswerOptions) -> EventReader:
        """Reads the answer to one request token by token."""
        return self._reader.event_reader(request)

    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
        if not any(request.features is not None for request in requests):
            return batch
        # Visual features take the place of pixels; pictures that are not encoded yet are looked at now.
        features = [request.features or self.encode(request.visual) for request in requests if request.visual.pixels]
        text = {name: tensor for name, tensor in batch.items() if name not in PIXELS}
        return {**text, "visual_features": join_features(features)}

    def _limits(self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int) -> dict[str, Any]:
        return {"max_points": options.max_points, "single_point": options.single}

    def _read(self, output: Any, requests: Sequence[Request], options: AnswerOptions, prompt_length: int) -> list[PointingResult]:
        return self._reader.read(output, requests, prompt_length)
