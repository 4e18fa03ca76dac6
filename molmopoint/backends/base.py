"""One family of models behind one face: what it is given, how it writes points, how its answers are read.

MolmoPoint chooses places with grounding tokens, Molmo2 writes their coordinates as text. Pictures, clips,
prompts, history, padding, limits and results are the same for both. `Pointer`, training, scoring and reward
models know `Backend` alone, so another family, or another engine that runs a known one, is one more subclass,
and one line in `molmopoint.backends`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from molmopoint.backends.markup import plain_text
from molmopoint.backends.options import (
    COUNTING_TEMPLATE,
    POINTING_TEMPLATE,
    AnswerOptions,
    complete_prompt,
    refuse_zoom,
)
from molmopoint.backends.requests import Request, RequestBuilder, collate_requests
from molmopoint.backends.result import PointDistributions, PointingResult
from molmopoint.decoding import Answer
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.generation.settings import tokens_alone
from molmopoint.geometry import PointingMetadata
from molmopoint.points import Point
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.grounding_answers import TURN_END, PointList, Style
from molmopoint.processing.media import MediaInputs

if TYPE_CHECKING:
    from molmopoint.metrics import Calibration


class Events(Protocol):
    """Turns tokens of one answer into pieces of its words and points."""

    def push(self, token: int) -> Iterator[str | Point]:
        """Events that are complete with this token."""
        ...

    def finish(self) -> Iterator[str | Point]:
        """What is left when the answer ends."""
        ...


class PointWriter(Protocol):
    """Writes answers about the pictures or the clip of one example, for training."""

    @property
    def image_sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as displayed, or one entry for a clip."""
        ...

    @property
    def timestamps(self) -> np.ndarray | None:
        """(T,) seconds of the frames of a clip; None for pictures."""
        ...

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
        """An answer in a style.

        Args:
            group: (n,) picture of each point, or its seconds in the clip.
            xy: (n, 2) pixels of the displayed picture; n may be 0.
            label: what the points show.
            style: how to answer.
            thousandths: (n, 2) of width and height, not rounded, for writers that write them.
            pictures: that the request is about, where it is about several; one without points may have to be
                named.
        """
        ...

    def tracks(
        self, group: np.ndarray, xy: np.ndarray, objects: Sequence[Any], label: str
    ) -> tuple[str | PointList, ...]:
        """The points (n, 2) of one or more tracked objects at seconds (n,), n from 1; objects are numbered by
        first appearance.
        """
        ...


class Backend(ABC):
    """A model family with a processor, and with or without a model.

    Without one it makes rows and writes points, which loader workers do; with one it answers too.

    Args:
        processor: of the checkpoint, as `read_processor` gives it.
        model: in evaluation mode, on its device. Its generation config is replaced by one with its begin, end
            and padding tokens alone.
        max_crops: crops per picture where a request does not say; None for the processor's own number.
        max_pixels: width times height of a picture at most; None for the limit of the environment, or the
            default.

    Attributes:
        requests: makes rows.
        eos_token_ids: ids that end an answer.
        ignored_settings: names of what the model's generation config said beside its tokens.
        calibration: from scores to chances, or the file of that map, which is read when it is asked for; None
            where the checkpoint ships none.

    Raises:
        CheckpointError: the processor is that of another family, or does not fit the model.
    """

    model_type: ClassVar[str]
    """What the family's config.json says."""

    title: ClassVar[str]
    """The family's name for people."""

    processor_class: ClassVar[type[MolmoPointProcessor]]
    """Of families with a processor of this library; others override `check_processor` and `read_processor`."""

    builder_class: ClassVar[type[RequestBuilder]] = RequestBuilder
    """What makes the rows of the family."""

    scores_points: ClassVar[bool] = True
    """Whether points have scores."""

    takes_clips: ClassVar[bool] = True
    """Whether clips can be asked about."""

    takes_crops: ClassVar[bool] = True
    """Whether pictures are cut into crops, so that `max_crops` means something."""

    trains: ClassVar[bool] = True
    """Whether there is a training pass; reward models need one as well."""

    judges: ClassVar[bool] = True
    """Whether reward models can be made of it."""

    has_own_form: ClassVar[bool] = False
    """Whether requests have a form of the family's own, so that benchmarks leave the one for Molmo out."""

    compiles: ClassVar[bool] = False
    """Whether its steps can be made into graphs."""

    pointing_template: ClassVar[str] = POINTING_TEMPLATE
    """Form of a request that only names what to find."""

    counting_template: ClassVar[str] = COUNTING_TEMPLATE
    """Form of a request to count."""

    patch_token_id: int
    """Token whose selections count over a packed row; `NO_PATCH_TOKEN` where nothing is selected."""

    def __init__(
        self,
        processor: Any,
        model: Any = None,
        *,
        max_crops: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self.check_processor(processor)
        self.processor = processor
        self.model = model
        self.max_crops = max_crops
        config = None if model is None else model.config
        self.requests = self.builder_class(processor, config, max_pixels=max_pixels, max_crops=max_crops)
        self.eos_token_ids: tuple[int, ...] = ()
        self.ignored_settings: tuple[str, ...] = ()
        self.calibration: Calibration | Path | None = None
        self._is_sharded = False
        if model is not None:
            self._is_sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
            self._take_tokens()

    @property
    def patch_size(self) -> int:
        """Pixels along a side of a ViT patch."""
        return int(self.processor.image_processor.patch_size)

    def seen_size(self, metadata: PointingMetadata) -> tuple[int, int]:
        """(width, height) in pixels at which the model saw the first picture of a request, all crops together."""
        rows, cols = metadata.patch_maps[0].shape
        return cols * self.patch_size, rows * self.patch_size

    @property
    def packs_rows(self) -> bool:
        """Whether a training row may hold several examples and branches."""
        return True

    # Loading

    @classmethod
    @abstractmethod
    def read_config(cls, source: str, **where: Any) -> Any:
        """The config of a folder or repository; one whose parts do not fit together is refused before anything
        is built.
        """

    @classmethod
    @abstractmethod
    def read_model(cls, source: str, where: dict[str, Any], settings: dict[str, Any]) -> Any:
        """The network of a folder or repository, all of whose weights were there.

        Args:
            source: folder or hub id.
            where: arguments of `from_pretrained` that say where files come from.
            settings: all of its arguments, these included.
        """

    @classmethod
    @abstractmethod
    def read_for_training(cls, source: str, attention: str, settings: dict[str, Any]) -> Any:
        """The network with a training pass for packed rows.

        Args:
            source: folder or hub id.
            attention: name of the implementation for the text model, where the family has a choice.
            settings: arguments of `from_pretrained`.
        """

    @classmethod
    def check_trains(cls, source: str) -> None:
        """Refuses to train a family without a training pass, and to judge with it.

        Args:
            source: folder or hub id, for the message.

        Raises:
            CheckpointError: as said.
        """
        if not cls.trains:
            raise CheckpointError(
                f"expected a model that can be trained here, got a {cls.title} at {source!r}, which only points; "
                "start from a MolmoPoint or a Molmo2"
            )

    @classmethod
    def check_judges(cls, source: str) -> None:
        """Refuses to make a reward model of a family that cannot be one.

        Args:
            source: folder or hub id, for the message.

        Raises:
            CheckpointError: as said.
        """
        if not cls.judges:
            raise CheckpointError(
                f"expected a model to judge with, got a {cls.title} at {source!r}, of which no reward model is made; "
                "start from a MolmoPoint or a Molmo2"
            )

    @classmethod
    def check_causal_vision(cls, causal: bool | None, source: str) -> None:
        """Refuses to choose what image tokens see, where the family leaves no choice.

        Args:
            causal: what was chosen; None for nothing.
            source: folder or hub id, for the message.

        Raises:
            CheckpointError: as said.
        """
        if causal is not None:
            raise CheckpointError(
                f"expected no causal_vision with the {cls.title} at {source!r}, which sees pictures in one way; leave "
                "it out"
            )

    @classmethod
    def check_processor(cls, processor: Any) -> None:
        """Refuses a processor of another family.

        Raises:
            CheckpointError: as said.
        """
        text_points = cls.processor_class.points_are_text
        if not isinstance(processor, MolmoPointProcessor) or processor.points_are_text != text_points:
            raise CheckpointError(
                f"expected a {cls.processor_class.__name__} for a model of type {cls.model_type}, got "
                f"{type(processor).__name__}"
            )

    @classmethod
    def check_compiles(cls, source: str) -> None:
        """Refuses to compile the steps of a family without graphs for them.

        Args:
            source: folder or hub id, for the message.

        Raises:
            CheckpointError: as said.
        """
        if not cls.compiles:
            raise CheckpointError(
                f"expected a MolmoPoint for compile=True, got a {cls.title} at {source!r}, whose steps are those "
                "of transformers; leave compile out"
            )

    @classmethod
    def compile(cls, model: Any) -> None:
        """Makes graphs of the steps of a model, which it answers with from then on; where `compiles` says so.

        Args:
            model: in evaluation mode, on its device.
        """
        raise NotImplementedError

    @classmethod
    def read_processor(cls, source: str, **where: Any) -> Any:
        """The processor of a folder or repository.

        Raises:
            CheckpointError: there is no chat template.
        """
        processor = cls.processor_class.from_pretrained(source, trust_remote_code=False, **where)
        if processor.chat_template is None:
            raise CheckpointError(
                f"expected a chat template at {source!r}, got none; copy chat_template.jinja from the "
                "released model"
            )
        return processor

    @classmethod
    def save_model(cls, model: Any, folder: str) -> None:
        """Writes a network of the family so that `read_model` reads it."""
        model.save_pretrained(folder)

    def with_model(self, model: Any) -> Self:
        """The same backend with a model that answers."""
        return type(self)(self.processor, model, max_crops=self.max_crops)

    # Points in answers

    @abstractmethod
    def point_writer(self, metadata: PointingMetadata) -> PointWriter:
        """Writes points of training examples into answers."""

    def writer_of(self, media: MediaInputs) -> PointWriter | None:
        """The writer of an example's pictures or clip; None for an example of text alone."""
        return self.point_writer(media.metadata) if media.spans else None

    @abstractmethod
    def read_answer(
        self, ids: Tensor, metadata: PointingMetadata, answer_start: str, probabilities: Tensor | None = None
    ) -> Answer:
        """Points of the ids (T,) of an answer, without the token that ends it.

        Args:
            ids: (T,) as `generate` returns them.
            metadata: of the request.
            answer_start: text at the beginning of the answer that the prompt held.
            probabilities: (T,) of what each token selected, where tokens select something.
        """

    @abstractmethod
    def events(self, request: Request, options: AnswerOptions) -> Events:
        """Reads the answer to one request token by token."""

    # Requests

    @property
    def max_length(self) -> int:
        """Tokens that a request and its answer may have together."""
        return self.model.config.text_config.max_position_embeddings

    def complete_prompt(self, text: str, template: str | None = None) -> str:
        """The request that is sent for what a person typed; see `options.complete_prompt`."""
        return complete_prompt(text, template, default=self.pointing_template)

    def complete_count(self, text: str, template: str | None = None) -> str:
        """The request that is sent to count what a person typed."""
        return complete_prompt(text, template, default=self.counting_template)

    def complete_question(self, text: str) -> str:
        """A question that is answered in words; it is sent as it is."""
        return complete_prompt(text, "{}")

    # Answers

    @abstractmethod
    def encode(self, media: MediaInputs) -> Any:
        """What the model sees of pictures or a clip, on its device."""

    def answer(
        self, requests: Sequence[Request], options: AnswerOptions, **generate_arguments: Any
    ) -> list[PointingResult]:
        """Runs the model on one batch; one result per request, in order.

        Raises:
            NumericalError: the model computed numbers that are not finite.
            ProcessingError: an option asks for what this model does not have; see `check_options`.
        """
        self.check_options(options, clips=any(request.metadata.is_video for request in requests))
        assert options.looks_again is None, "who looks again asks for one look after the other"
        pad_token_id = self.processor.tokenizer.pad_token_id
        batch = self.on_device(self._collate(requests, pad_token_id))
        prompt_length = self._length_before(batch)
        with self._without_gradients():
            arguments = options.generate_arguments()
            if arguments.get("stop_strings") is not None:
                arguments["tokenizer"] = self.processor.tokenizer
            output = self._generate(
                **self._model_inputs(batch, requests),
                **arguments,
                **self._limits(requests, options, prompt_length),
                eos_token_id=list(self.eos_token_ids),
                pad_token_id=pad_token_id,
                return_dict_in_generate=True,
                **generate_arguments,
            )
            # What was chosen is kept in half precision, which autocast does not let join.
            with torch.autocast(self.model.device.type, enabled=False):
                return self._results(output, requests, options, prompt_length)

    def check_options(self, options: AnswerOptions, *, clips: bool = False) -> None:
        """Refuses what this model cannot give.

        Raises:
            ProcessingError: points are to have a score, and those of this family have none; or chances, and
                there is no calibration for this model, or none for clips; or clips or crops, which this
                family does not know.
            CheckpointError: the file of the calibration is damaged.
        """
        if clips:
            self.check_clips()
        if options.max_crops is not None and not self.takes_crops:
            raise ProcessingError(
                f"expected no max_crops with a {self.title}, which looks at whole pictures, got "
                f"{options.max_crops}; leave it out"
            )
        if options.min_score is not None and not self.scores_points:
            raise ProcessingError(
                f"expected no min_score with a {self.title}, whose points have no scores, got "
                f"{options.min_score:g}"
            )
        if clips:
            refuse_zoom(options)
        if not options.calibrated:
            return
        if self.calibration is None:
            raise ProcessingError(
                f"expected calibrated=False, for this model ({self.model.config.name_or_path or self.title}) has "
                "no calibration.json; fit one with molmopoint.metrics.fit_calibration and save it beside the weights"
            )
        if clips:
            raise ProcessingError(
                "expected calibrated=False for a clip, got True; calibrations are fitted on answers about pictures"
            )
        if isinstance(self.calibration, Path):
            from molmopoint.metrics import Calibration  # here, because most calls need none of it

            self.calibration = Calibration.load(self.calibration)

    def check_clips(self) -> None:
        """Refuses clips where the family does not know them.

        Raises:
            ProcessingError: as said.
        """
        if not self.takes_clips:
            raise ProcessingError(
                f"expected pictures for a {self.title}, got a clip; ask a MolmoPoint or a Molmo2 about clips"
            )

    @property
    def clips_apart(self) -> bool:
        """Whether a batch has frames of clips apart from crops of pictures, as native processors write them."""
        return True

    def decode(self, ids: list[int]) -> str:
        """Text of ids, plain or extended, without special tokens."""
        return self.processor.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def on_device(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Copies tensors to the model's device, without waiting where the device allows it."""
        device = self.model.device
        return {
            name: value.to(device, non_blocking=True) if hasattr(value, "to") else value
            for name, value in tensors.items()
        }

    def _without_gradients(self) -> AbstractContextManager[Any]:
        """Inference mode; but weights that are sharded are gathered into buffers that training uses again."""
        return torch.no_grad() if self._is_sharded else torch.inference_mode()

    def _collate(self, requests: Sequence[Request], pad_token_id: int) -> dict[str, Tensor]:
        """Requests as one batch, padded on the left."""
        return collate_requests(requests, pad_token_id, clips_apart=self.clips_apart)

    def _length_before(self, batch: Mapping[str, Tensor]) -> int:
        """Tokens of the sequences that `generate` returns that stand before the answers."""
        return batch["input_ids"].shape[1]

    def _generate(self, **arguments: Any) -> Any:
        """The output of the model's own `generate`."""
        return self.model.generate(**arguments)

    @abstractmethod
    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
        """Arguments of `generate` that hold the prompt."""

    @abstractmethod
    def _limits(
        self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int
    ) -> dict[str, Any]:
        """Arguments of `generate` that limit the number of points."""

    def _probabilities(self, output: Any) -> Tensor | None:
        """(B, T) probability of what each new token selected, on the host; None where tokens select nothing."""
        return None

    def _distributions(
        self, output: Any, row: int, answer: Answer, metadata: PointingMetadata
    ) -> PointDistributions | None:
        """The choices behind the points of one answer; None where there are none."""
        return None

    def _absences(self, output: Any) -> Tensor | None:
        """(B,) probability that there is nothing to point at, where a single point was asked for; None where
        that is not known.
        """
        return None

    def _results(
        self, output: Any, requests: Sequence[Request], options: AnswerOptions, prompt_length: int
    ) -> list[PointingResult]:
        """One result per row of the output of `generate`, in order."""
        answers = output.sequences[:, prompt_length:].cpu()  # (B, T)
        probabilities = self._probabilities(output)
        absences = self._absences(output)
        results = []
        for row, request in enumerate(requests):
            ids, ended = self._cut(answers[row])
            chosen = None if probabilities is None else probabilities[row, : len(ids)]
            answer = self.read_answer(ids, request.metadata, request.answer_start, chosen)
            raw_text = request.answer_start + self.decode(ids.tolist())
            whole = PointingResult(
                points=answer.points[: self._most_read(options)],
                text=plain_text(raw_text),
                raw_text=raw_text,
                prompt=request.prompt,
                truncated=answer.truncated_triple or not ended,
                invalid=answer.invalid,
                image_sizes=tuple(request.metadata.image_sizes),
                metadata=request.metadata,
                displayed=request.media.displayed,
                distributions=self._distributions(output, row, answer, request.metadata),
                notes=request.media.notes,
                absent=math.nan if absences is None else float(absences[row]),
            )
            if options.calibrated:
                assert not isinstance(self.calibration, Path), "it was read when the options were checked"
                whole = whole.with_chances(self.calibration)
            results.append(whole.at_least(options.min_score))
        return results

    def _most_read(self, options: AnswerOptions) -> int | None:
        """Points of an answer that are kept, where the model itself cannot be held to the limit; None for
        all.
        """
        return None

    def _cut(self, ids: Tensor) -> tuple[Tensor, bool]:
        """The ids of one answer (T,) before the token that ends it, and whether there is one."""
        for position, token_id in enumerate(ids.tolist()):
            if token_id in self.eos_token_ids:
                return ids[:position], True
        return ids, False

    def _take_tokens(self) -> None:
        """Leaves the model's generation config its begin, end and padding tokens, and notes which tokens end
        an answer.
        """
        text: Any = self.model.config.get_text_config()
        vocabulary = text.vocab_size + getattr(text, "additional_vocab_size", 0)
        self.model.generation_config, self.ignored_settings = tokens_alone(
            self.model.generation_config, vocabulary
        )
        # Released folders may lack a generation config; the answer ends with the token that ends every turn.
        tokenizer = self.processor.tokenizer
        self.eos_token_ids = _ids_of(self.model.generation_config.eos_token_id) or _ids_of(
            tokenizer.eos_token_id
        )
        turn_end = tokenizer.get_added_vocab().get(TURN_END)
        if turn_end is not None and turn_end not in self.eos_token_ids:
            self.eos_token_ids += (turn_end,)


def _ids_of(token_ids: int | Sequence[int] | None) -> tuple[int, ...]:
    if token_ids is None:
        return ()
    if isinstance(token_ids, int):
        return (token_ids,)
    return tuple(token_ids)
