"""Molmo2: transformers' own network, which writes coordinates as text.

The network is given embeddings of the prompt with visual features already in their places. So pictures and
clips mix in a batch, which the native forward refuses, a clip goes through the ViT a few frames at a time,
and what was encoded once is used again. A network that is being trained gets pixels instead: sharded weights
are whole inside its forward pass alone.

Letters: B rows, S tokens so far, V vocabulary, N crops or frames, G ViT patches per crop, P image tokens, K
slots, H text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from molmopoint.backends.base import Backend
from molmopoint.backends.markup import IncrementalDetokenizer, MarkupStripper
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.connector import CROPS_PER_PASS
from molmopoint.decoding import Answer
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.generation.faults import StopAtFault, WordsWatch
from molmopoint.generation.loop import PIXELS
from molmopoint.geometry import PointingMetadata
from molmopoint.load_checks import check_loading_info, refuse_torchao, verify_source
from molmopoint.molmo2 import Molmo2ForTraining, save_native
from molmopoint.points import Point
from molmopoint.processing import Molmo2PointingProcessor
from molmopoint.processing.grounding_answers import TURN_END, TURN_START, Style
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.rows import NO_PATCH_TOKEN
from molmopoint.processing.text_point_stream import CoordsScanner, WrittenPointReader
from molmopoint.processing.text_points import read_text_answer, text_answer, text_tracks
from molmopoint.tokens import IMAGE_PLACEHOLDER, LOW_RES_PATCH, VIDEO_PLACEHOLDER, VISION_TOKENS

_NEEDED = (
    *(name for name in VISION_TOKENS if name != LOW_RES_PATCH),
    IMAGE_PLACEHOLDER,
    VIDEO_PLACEHOLDER,
    TURN_START,
    TURN_END,
)


CAUSAL_VISION = "causal_vision"
"""Field of config.json that says that image tokens see only what is before them."""

_CAUSAL_BY_NAME = "molmoweb"
"""In the name of a repository or folder: its files say the same as those of a Molmo2, and it was trained so."""


def sees_causally(config: Any) -> bool:
    """Whether image tokens see only what is before them: as the config says, else by the model's name."""
    stated = getattr(config, CAUSAL_VISION, None)
    if stated is not None:
        return bool(stated)
    return _CAUSAL_BY_NAME in Path(str(config.name_or_path)).name.lower()


class Molmo2Backend(Backend):
    """See `Backend`.

    Attributes:
        causal_vision: image tokens see only what is before them, as in MolmoWeb.

    Raises:
        CheckpointError: the tokenizer lacks a special token, or has another one for image patches than the
            model.
    """

    model_type = "molmo2"
    title = "Molmo2"
    processor_class = Molmo2PointingProcessor
    scores_points = False
    patch_token_id = NO_PATCH_TOKEN

    def __init__(self, processor: Any, model: Any = None, **settings: Any) -> None:
        super().__init__(processor, model, **settings)
        self.causal_vision: bool = model is not None and sees_causally(model.config)
        known = processor.tokenizer.get_vocab()
        if missing := [name for name in _NEEDED if name not in known]:
            raise CheckpointError(
                f"expected the tokenizer of a Molmo2, got one without {', '.join(missing)}; load the "
                "model's own"
            )
        if model is not None and processor.image_token_ids[0] != model.config.image_patch_id:
            raise CheckpointError(
                f"expected a tokenizer in which <im_patch> is {model.config.image_patch_id}, as in the "
                "model's config, got "
                f"{processor.image_token_ids[0]}; load both from the same folder"
            )

    @classmethod
    def check_causal_vision(cls, causal: bool | None, source: str) -> None:
        """See `Backend`: here there is a choice."""

    @classmethod
    def read_config(cls, source: str, **where: Any) -> Any:
        """See `Backend`."""
        return Molmo2Config.from_pretrained(source, trust_remote_code=False, **where)

    @classmethod
    def read_model(cls, source: str, where: dict[str, Any], settings: dict[str, Any]) -> Any:
        """See `Backend`."""
        refuse_torchao(settings.get("quantization_config"))
        verify_source(source, **where)
        settings = {
            "ignore_mismatched_sizes": True,
            **settings,
            "use_safetensors": True,
            "output_loading_info": True,
        }
        loaded = Molmo2ForConditionalGeneration.from_pretrained(source, trust_remote_code=False, **settings)
        model, info = cast(tuple[Any, dict[str, Any]], loaded)
        # Tensors that are left over are the native class's affair; it would fill missing ones at random.
        check_loading_info({**info, "unexpected_keys": ()}, source)
        return model

    @classmethod
    def read_for_training(cls, source: str, attention: str, settings: dict[str, Any]) -> Any:
        """See `Backend`; the native layers keep their own attention.

        Raises:
            CheckpointError: image tokens of the model see only what is before them, which is not trained here.
        """
        if sees_causally(cls.read_config(source, revision=settings.get("revision"))):
            raise CheckpointError(
                f"expected a model whose image tokens see each other, got the causal one at {source!r}, which training "
                "would change; start from a Molmo2"
            )
        return Molmo2ForTraining.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, **settings
        )

    @classmethod
    def save_model(cls, model: Any, folder: str) -> None:
        """See `Backend`; under the name of the native class, whatever class the model has."""
        save_native(model, folder, partial(Molmo2ForConditionalGeneration.save_pretrained, model))

    def point_writer(self, metadata: PointingMetadata) -> TextWriter:
        """See `Backend`."""
        return TextWriter(tuple(metadata.image_sizes), metadata.timestamps)

    def read_answer(
        self, ids: Tensor, metadata: PointingMetadata, answer_start: str, probabilities: Tensor | None = None
    ) -> Answer:
        """See `Backend`; points have no scores."""
        return read_text_answer(
            answer_start + self.decode(ids.tolist()), metadata.image_sizes, metadata.timestamps
        )

    def events(self, request: Request, options: AnswerOptions) -> TextEvents:
        """See `Backend`.

        Raises:
            NotImplementedError: beam search, whose answer is only known at the end.
        """
        if options.sampling.get("num_beams", 1) > 1:
            raise NotImplementedError(
                "a stream with beam search: its answer is only known at the end; call `point` or `ask` "
                "instead"
            )
        return TextEvents(self.decode, request.metadata, request.answer_start, options.point_limit)

    def encode(self, media: MediaInputs) -> Tensor:
        """Features (P, H) of the image tokens of pictures or a clip, on the model's device."""
        is_clip = media.metadata.is_video
        names = PIXELS[2:] if is_clip else PIXELS[:2]
        pixels, table = (media.pixels[name] for name in names)
        parts = _frames_at_a_time(pixels, table) if is_clip else [(pixels, table)]
        with self._without_gradients():
            return torch.cat([self._image_features(*part) for part in parts])

    @property
    def clips_apart(self) -> bool:
        """In training, frames are crops among the others."""
        return not self._is_training_network

    @property
    def _is_training_network(self) -> bool:
        return isinstance(self.model, Molmo2ForTraining)

    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
        prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
        if self.causal_vision:
            del prompt["mm_token_type_ids"]  # with it image tokens would see each other in both directions
        if self._is_training_network:
            pixels = {name: batch[name] for name in PIXELS if name in batch}
            return prompt | pixels
        features = []
        for request in requests:
            if request.media.pixels:
                features.append(self.encode(request.media) if request.features is None else request.features)
        if not features:
            return prompt
        embeddings = self.model.get_input_embeddings()(prompt["input_ids"])  # (B, S, H)
        places = (prompt["input_ids"] == self.model.config.image_patch_id).to(embeddings.device)
        # The native network adds what it sees to the embedding of the placeholder.
        embeddings[places] += torch.cat(features).to(embeddings)
        return {**prompt, "inputs_embeds": embeddings}

    def _generate(self, **arguments: Any) -> Any:
        watch = WordsWatch()
        arguments["logits_processor"] = LogitsProcessorList([watch, *arguments.get("logits_processor", ())])
        arguments["stopping_criteria"] = StoppingCriteriaList(
            [*arguments.get("stopping_criteria", ()), StopAtFault(watch)]
        )
        output = super()._generate(**arguments)
        watch.check(arguments.get("inputs_embeds"), self.model.dtype)
        return output

    def _limits(
        self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int
    ) -> dict[str, Any]:
        if options.point_limit is None:
            return {}
        if options.sampling.get("num_beams", 1) > 1:
            raise NotImplementedError(
                "a limit on the number of points with beam search: beams change rows; leave one of the two "
                "out"
            )
        starts = [request.answer_start for request in requests]
        limit = PointLimit(self.processor.tokenizer, self.decode, options.point_limit, prompt_length, starts)
        return {"logits_processor": LogitsProcessorList([limit])}

    def _most_read(self, options: AnswerOptions) -> int | None:
        return options.point_limit  # forms of older models are not limited while they are written

    def _image_features(self, pixels: Tensor, table: Tensor) -> Tensor:
        """Features (P, H) of crops or frames (N, G, patch values) and their table (P, K)."""
        # The native call only cuts its result by the grids; one grid of all tokens leaves it whole.
        grids = torch.tensor([[len(table), 1, 0, 0]])
        given = self.on_device({"pixel_values": pixels, "image_token_pooling": table})
        return self.model.get_image_features(**given, image_grids=grids).pooler_output[0]


def _frames_at_a_time(pixels: Tensor, table: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some frames of a clip and their part of its table, which then counts from their first ViT patch.

    The native ViT keeps the states of all its layers, so the memory it takes follows the frames of a call.
    """
    tokens = len(table) // len(pixels)
    patches = pixels.shape[1]
    for start in range(0, len(pixels), CROPS_PER_PASS):
        frames = pixels[start : start + CROPS_PER_PASS]
        rows = table[start * tokens : (start + len(frames)) * tokens]
        yield frames, torch.where(rows >= 0, rows - start * patches, -1)


@dataclass(frozen=True, eq=False)
class TextWriter:
    """Writes points as coordinates in text.

    Attributes:
        image_sizes: (width, height) of each picture as displayed, or one entry for a clip.
        timestamps: (T,) seconds of the frames of a clip, ascending; None for pictures.

    Raises:
        ProcessingError: not one size for a clip, or a clip without frames.
    """

    image_sizes: tuple[tuple[int, int], ...]
    timestamps: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.timestamps is None:
            return
        timestamps = np.asarray(self.timestamps, dtype=np.float64).reshape(-1)
        if len(self.image_sizes) != 1 or not len(timestamps):
            raise ProcessingError(
                "expected one (width, height) and one or more frame times for a clip, got "
                f"{len(self.image_sizes)} and {len(timestamps)}"
            )
        object.__setattr__(self, "timestamps", timestamps)

    def points(
        self,
        group: np.ndarray,
        xy: np.ndarray,
        label: str,
        style: Style,
        *,
        thousandths: np.ndarray | None = None,
        pictures: Sequence[int] = (),
    ) -> tuple[str]:
        """The answer that points at all of (n,) groups and (n, 2) pixels; points of a clip move to the
        nearest frame.
        """
        text = text_answer(
            self._frames(group),
            xy,
            self.image_sizes,
            label,
            style,
            thousandths=thousandths,
            pictures=pictures,
        )
        return (text,)

    def tracks(self, group: np.ndarray, xy: np.ndarray, objects: Sequence[Any], label: str) -> tuple[str]:
        """The answer that tracks n objects at (n,) seconds, equal where it is the same one."""
        return (text_tracks(self._frames(group), xy, objects, self.image_sizes, label),)

    def _frames(self, group: np.ndarray) -> np.ndarray:
        """Times of the frames nearest to times, the first one on ties; pictures as they are."""
        if self.timestamps is None:
            return group
        return self.timestamps[np.abs(self.timestamps[None] - group[:, None]).argmin(axis=1)]


_CLOSING = '">'
"""What ends the coordinates of a list; the model goes on with the label."""

_MAY_GO_ON = "100"
"""The only coordinate of three digits that may have a fourth one."""


@dataclass
class _LimitedAnswer:
    """One answer while it is written.

    Attributes:
        pieces: its tokens as text.
        scanner: its lists.
        forced: tokens that must come next.
    """

    pieces: IncrementalDetokenizer
    scanner: CoordsScanner = field(default_factory=CoordsScanner)
    forced: list[int] = field(default_factory=list)


class PointLimit(LogitsProcessor):
    """Closes `coords` lists when an answer has so many points; later lists of the same answer stay empty.

    It looks at every new token on the host, so it costs one small transfer a step; answers without a limit do
    not need it. The forms of older models, which are not written as such lists, are not limited here.

    Args:
        tokenizer: of the model.
        decode: text of ids, without special tokens.
        limit: most points of an answer.
        prompt_length: tokens of the padded prompt.
        answer_starts: beginning of each of the B answers that is part of the prompt.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        decode: Callable[[list[int]], str],
        limit: int,
        prompt_length: int,
        answer_starts: Sequence[str],
    ) -> None:
        self._closing = tokenizer.encode(_CLOSING, add_special_tokens=False)
        self._zero = tokenizer.encode("0", add_special_tokens=False)[:1]
        self._limit = limit
        self._seen = prompt_length
        self._rows = [_LimitedAnswer(IncrementalDetokenizer(decode)) for _ in answer_starts]
        for row, start in zip(self._rows, answer_starts, strict=True):
            row.scanner.push(start)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (B, V) with only the allowed tokens left where a list must be closed.

        Args:
            input_ids: (B, S).
            scores: (B, V).
        """
        new, self._seen = input_ids[:, self._seen :].tolist(), input_ids.shape[1]
        allowed = [self._allowed(row, ids) for row, ids in zip(self._rows, new, strict=True)]
        if not any(allowed):
            return scores
        limited = scores.clone()
        for row, (closing, *others) in ((row, tokens) for row, tokens in enumerate(allowed) if tokens):
            # Whatever else the model would write says that the last number has ended, so the list is closed.
            kept = scores[row, others]
            rest = scores[row].index_fill(
                0, torch.tensor(others, dtype=torch.long, device=scores.device), -torch.inf
            )
            limited[row] = -torch.inf
            limited[row, others] = kept
            limited[row, closing] = rest.logsumexp(0)
        return limited

    def _allowed(self, row: _LimitedAnswer, ids: list[int]) -> list[int]:
        """The tokens that may come next after new `ids`, the one that closes the list first; none for any."""
        for token in ids:
            closing = row.scanner.inside and not row.forced and token == self._closing[0]
            row.scanner.push(row.pieces.push(token))
            if closing and self._is_full(row.scanner):
                row.forced = self._closing[1:]
        if row.forced:
            return [row.forced.pop(0)]
        if not row.scanner.inside or not self._is_full(row.scanner):
            return []
        return self._closing[:1] + (self._zero if row.scanner.unfinished[-1:] == (_MAY_GO_ON,) else [])

    def _is_full(self, scanner: CoordsScanner) -> bool:
        """Whether the last point is written, or begun where none may be."""
        unfinished = scanner.unfinished
        whole = len(unfinished) == 3 and len(unfinished[-1]) >= len(_MAY_GO_ON)
        return scanner.count + whole >= self._limit


class TextEvents:
    """Splits tokens into text pieces and points.

    Points of a `coords` list come as soon as something follows them. Those of older forms come at the end:
    only the whole answer decides which form is read. Either way they are those of the result, in its order.

    Args:
        decode: text of ids, without special tokens.
        metadata: of the request.
        answer_start: beginning of the answer that comes before the first token.
        limit: most points of the answer.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        metadata: PointingMetadata,
        answer_start: str = "",
        limit: int | None = None,
    ) -> None:
        self._pieces = IncrementalDetokenizer(decode)
        self._metadata = metadata
        self._limit = limit
        self._scanner = CoordsScanner()
        self._reader = WrittenPointReader(metadata.image_sizes, metadata.timestamps)
        self._stripper = MarkupStripper()
        self._text: list[str] = []
        self._count = 0
        list(self._events(answer_start))

    def push(self, token: int) -> Iterator[str | Point]:
        """Events that are complete with this token."""
        yield from self._events(self._pieces.push(token))

    def finish(self) -> Iterator[str | Point]:
        """What is left when the answer ends."""
        yield from self._events(self._pieces.finish())
        answer = read_text_answer("".join(self._text), self._metadata.image_sizes, self._metadata.timestamps)
        yield from answer.points[: self._limit][self._count :]
        if words := self._stripper.finish():
            yield words

    def _events(self, piece: str) -> Iterator[str | Point]:
        self._text.append(piece)
        inside = self._scanner.inside
        points: list[Point] = []
        for written in self._scanner.push(piece):
            points.extend(self._reader.read(written))
        if self._limit is not None:
            points = points[: max(self._limit - self._count, 0)]
        self._count += len(points)
        words = self._stripper.push(piece)
        # A piece that ends a list may hold its last points and the words behind it, or words and the list
        # after them.
        if inside:
            yield from points
        if words:
            yield words
        if not inside:
            yield from points
