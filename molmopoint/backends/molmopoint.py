"""MolmoPoint: places are chosen with grounding tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molmopoint.backends.base import Backend
from molmopoint.backends.markup import IncrementalDetokenizer, MarkupStripper
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointDistributions
from molmopoint.compiled import CompiledSteps
from molmopoint.config import MolmoPointConfig
from molmopoint.connector import VisualFeatures
from molmopoint.decoding import Answer, read_answer
from molmopoint.errors import CheckpointError
from molmopoint.generation.loop import PIXELS
from molmopoint.geometry import PointingMetadata, points_to_triples
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.points import Point
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.grounding_answers import PointList, Style, grounding_token_ids, write_answer
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.rows import join_pooling


class MolmoPointBackend(Backend):
    """See `Backend`.

    Raises:
        CheckpointError: model and processor divide a ViT patch into different location cells.
    """

    model_type = "molmo_point"
    title = "MolmoPoint"
    compiles = True
    processor_class = MolmoPointProcessor
    model: MolmoPointForConditionalGeneration

    def __init__(self, processor: MolmoPointProcessor, model: Any = None, **settings: Any) -> None:
        super().__init__(processor, model, **settings)
        if model is not None and processor.location_grid != model.config.location_grid:
            raise CheckpointError(
                f"expected a processor with {model.config.patch_location} location cells as the model has, "
                f"got {processor.patch_location}; "
                "load both from the same folder, or set patch_location alike"
            )
        self.patch_token_id = grounding_token_ids(processor.tokenizer)[0]
        self.extended_start = processor.extended_start if model is None else model.config.extended_start

    @classmethod
    def read_config(cls, source: str, **where: Any) -> Any:
        """See `Backend`."""
        config = MolmoPointConfig.from_pretrained(source, **where)
        stored = getattr(config, "quantization_config", None)
        if stored is not None:
            method = stored.get("quant_method") if isinstance(stored, dict) else stored
            raise CheckpointError(
                f"expected weights in full precision at {source!r}, as released files are, got a config that "
                f"says they are stored in fewer bits already ({method}); take the released files, and "
                'molmopoint.load(..., quantize="int8") for fewer bits'
            )
        return config

    @classmethod
    def read_model(cls, source: str, where: dict[str, Any], settings: dict[str, Any]) -> Any:
        """See `Backend`."""
        return MolmoPointForConditionalGeneration.from_pretrained(source, **settings)

    @classmethod
    def read_for_training(cls, source: str, attention: str, settings: dict[str, Any]) -> Any:
        """See `Backend`."""
        return MolmoPointForConditionalGeneration.from_pretrained(
            source, attn_implementation=attention, **settings
        )

    @classmethod
    def compile(cls, model: Any) -> None:
        """See `Backend`."""
        steps = CompiledSteps(model)
        with torch.inference_mode():  # as answers are made
            steps.warm_up()
        model.compiled_steps = steps

    def point_writer(self, metadata: PointingMetadata) -> GroundingWriter:
        """See `Backend`."""
        return GroundingWriter(metadata)

    def read_answer(
        self, ids: Tensor, metadata: PointingMetadata, answer_start: str, probabilities: Tensor | None = None
    ) -> Answer:
        """See `Backend`; the places are in the ids, whatever text stands before them."""
        return read_answer(ids, metadata, self.extended_start, self.decode, probabilities)

    def events(self, request: Request, options: AnswerOptions) -> GroundingEvents:
        """See `Backend`."""
        return GroundingEvents(self.decode, request.metadata, self.extended_start, request.answer_start)

    def encode(self, media: MediaInputs) -> VisualFeatures:
        """What the model sees of pictures or a clip."""
        with self._without_gradients():
            return self.model.get_visual_features(**self.on_device(media.pixels))

    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
        if not any(request.features is not None for request in requests):
            return batch
        # Visual features take the place of pixels; pictures that are not encoded yet are looked at now.
        features = []
        for request in requests:
            if request.media.pixels:
                features.append(request.features or self.encode(request.media))
        text = {name: tensor for name, tensor in batch.items() if name not in PIXELS}
        return {**text, "visual_features": self._joined(features)}

    def _joined(self, features: Sequence[Any]) -> VisualFeatures:
        """What the model sees of several requests about pictures as one call."""
        return join_features(features)

    def _limits(
        self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int
    ) -> dict[str, Any]:
        return {"max_points": options.point_limit, "single_point": options.single}

    def _probabilities(self, output: Any) -> Tensor:
        return output.selection_probabilities.cpu()

    def _absences(self, output: Any) -> Tensor | None:
        return None if output.absent is None else output.absent.float().cpu()

    def _distributions(
        self, output: Any, row: int, answer: Answer, metadata: PointingMetadata
    ) -> PointDistributions | None:
        """The choices behind the found points, brought to the host in one transfer each."""
        if answer.token_positions is None or not len(answer.token_positions):
            return None
        patch_steps = [output.patch_distributions[step][row] for step in answer.token_positions[:, 0]]
        slot_steps = [output.subpatch_distributions[step][row] for step in answer.token_positions[:, 1]]
        patch = torch.stack(patch_steps)[:, : metadata.num_patches]  # (points, P)
        subpatch = torch.stack(slot_steps)[:, : metadata.num_slots]  # (points, K)
        return PointDistributions(patch.cpu().numpy(), subpatch.cpu().numpy())


@dataclass(frozen=True, eq=False)
class GroundingWriter:
    """Writes points as grounding triples.

    Attributes:
        metadata: what the processor recorded about the pictures or the clip.
    """

    metadata: PointingMetadata

    @property
    def image_sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as displayed, or one entry for a clip."""
        return self.metadata.image_sizes

    @property
    def timestamps(self) -> np.ndarray | None:
        """(T,) seconds of the frames of a clip; None for pictures."""
        return self.metadata.timestamps

    def points(
        self,
        group: np.ndarray,
        xy: np.ndarray,
        label: str,
        style: Style,
        *,
        thousandths: np.ndarray | None = None,
        pictures: Sequence[int] = (),
    ) -> tuple[str | PointList, ...]:
        """Points in reading order of the image tokens, numbered from 1."""
        return write_answer(points_to_triples(group, xy, self.metadata), label, style)

    def tracks(
        self, group: np.ndarray, xy: np.ndarray, objects: Sequence[Any], label: str
    ) -> tuple[str | PointList, ...]:
        """Points in reading order of the image tokens, each with the number of its object."""
        return (PointList.sort_tracks(points_to_triples(group, xy, self.metadata), objects, label),)


class GroundingEvents:
    """Splits tokens into text pieces and points.

    The ids of an unfinished piece are kept and read again when it grows: text up to the last whole character,
    a point with its object id up to the first token that cannot belong to it.

    Args:
        decode: text of plain ids.
        metadata: of the request.
        vocabulary_start: first id of the extended vocabulary.
        answer_start: beginning of the answer that comes before the first token.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        metadata: PointingMetadata,
        vocabulary_start: int,
        answer_start: str = "",
    ) -> None:
        self._decode = decode
        self._metadata = metadata
        self._start = vocabulary_start
        self._point_length = 3 if metadata.num_locations else 2
        self._places: list[int] = []
        self._digits: list[int] = []
        self._text = IncrementalDetokenizer(decode)
        self._stripper = MarkupStripper()
        self._stripper.push(answer_start)
        self._largest_id = 0

    def push(self, token: int) -> Iterator[str | Point]:
        """Events that are complete with this token."""
        if token >= self._start:
            yield from self._words(self._text.finish())
            if self._digits or len(self._places) == self._point_length:
                yield from self._flush_point()
            self._places.append(token)
            if token == self._start + self._metadata.num_patches:
                self._places.clear()
        elif len(self._places) == self._point_length and self._is_number(token):
            self._digits.append(token)
        else:
            yield from self._flush_point()
            yield from self._words(self._text.push(token))

    def finish(self) -> Iterator[str | Point]:
        """What is left when the answer ends."""
        yield from self._flush_point()
        yield from self._words(self._text.finish())
        if words := self._stripper.finish():
            yield words

    def _is_number(self, token: int) -> bool:
        text = self._decode([*self._digits, token])
        return (text.removeprefix(" ") or "0").isdecimal()

    def _flush_point(self) -> Iterator[Point]:
        ids = [*self._places, *self._digits]
        numbered = bool(self._digits)
        self._places = []
        self._digits = []
        if ids:
            for point in read_answer(ids, self._metadata, self._start, self._decode).points:
                number = point.object_id if numbered else self._largest_id + 1
                self._largest_id = max(self._largest_id, number)
                yield replace(point, object_id=number)

    def _words(self, text: str) -> Iterator[str]:
        closed = self._stripper.closed_lists
        if words := self._stripper.push(text):
            yield words
        if self._stripper.closed_lists > closed:
            self._largest_id = 0  # a missing object id counts on within its list


def join_features(parts: Sequence[VisualFeatures]) -> VisualFeatures:
    """What the model sees of several requests about pictures as one call, in order."""
    if len(parts) == 1:
        return parts[0]
    return VisualFeatures(
        vit_features=torch.cat([part.vit_features for part in parts]),
        image_features=torch.cat([part.image_features for part in parts]),
        pooling=join_pooling([part.pooling for part in parts], [len(part.vit_features) for part in parts]),
        num_image_rows=sum(part.num_image_rows for part in parts),
        slots=(max(part.slots[0] for part in parts), max(part.slots[1] for part in parts)),
    )
