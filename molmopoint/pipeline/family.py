"""What differs between the model families behind `Pointer`: what the model is given, and how its answers are read.

MolmoPoint chooses places with grounding tokens, Molmo2 writes their coordinates as text. Pictures, clips, prompts, history,
padding, limits and results are the same for both, and `Pointer` knows `ModelFamily` alone.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from molmopoint.errors import InputWarning
from molmopoint.generation.settings import tokens_alone
from molmopoint.pipeline.options import AnswerOptions
from molmopoint.pipeline.requests import Request, collate_requests
from molmopoint.pipeline.result import PointingResult
from molmopoint.pipeline.visual import VisualInput
from molmopoint.points import Point
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.grounding_answers import TURN_END


class Events(Protocol):
    """Turns tokens of one answer into pieces of its words and points."""

    def push(self, token: int) -> Iterator[str | Point]:
        """Events that are complete with this token."""
        ...

    def finish(self) -> Iterator[str | Point]:
        """What is left when the answer ends."""
        ...


class ModelFamily(ABC):
    """A model with its processor, and how the two are used.

    Args:
        model: in evaluation mode, on its device. Its generation config is replaced by one with its begin, end and padding tokens
            alone; what else it said is told once, in a warning.
        processor: of the same checkpoint.

    Attributes:
        eos_token_ids: ids that end an answer.
    """

    def __init__(self, model: Any, processor: MolmoPointProcessor) -> None:
        self.model = model
        self.processor = processor
        tokenizer = processor.tokenizer
        text: Any = model.config.get_text_config()
        rows = text.vocab_size + getattr(text, "additional_vocab_size", 0)
        model.generation_config, ignored = tokens_alone(model.generation_config, rows)
        if ignored:
            warnings.warn(
                f"expected the checkpoint to name the tokens that end and pad answers, got settings of its own for {', '.join(ignored)}, "
                "which are ignored; pass such options with a question",
                InputWarning,
                stacklevel=6,
            )
        # Released folders may lack a generation config; the answer ends with the token that ends every turn.
        self.eos_token_ids = _ids_of(model.generation_config.eos_token_id) or _ids_of(tokenizer.eos_token_id)
        turn_end = tokenizer.get_added_vocab().get(TURN_END)
        if turn_end is not None and turn_end not in self.eos_token_ids:
            self.eos_token_ids += (turn_end,)

    def answer(self, requests: Sequence[Request], options: AnswerOptions, **generate_arguments: Any) -> list[PointingResult]:
        """Runs the model on one batch; one result per request, in order.

        Raises:
            NumericalError: the model computed numbers that are not finite.
        """
        pad_token_id = self.processor.tokenizer.pad_token_id
        batch = self.on_device(collate_requests(requests, pad_token_id))
        with torch.inference_mode():
            arguments = options.generate_arguments()
            if arguments.get("stop_strings") is not None:
                arguments["tokenizer"] = self.processor.tokenizer
            output = self._generate(
                **self._model_inputs(batch, requests),
                **arguments,
                **self._limits(requests, options, batch["input_ids"].shape[1]),
                eos_token_id=list(self.eos_token_ids),
                pad_token_id=pad_token_id,
                return_dict_in_generate=True,
                **generate_arguments,
            )
            # What was chosen is kept in half precision, which autocast does not let join.
            with torch.autocast(self.model.device.type, enabled=False):
                return self._read(output, requests, options, batch["input_ids"].shape[1])

    def _generate(self, **arguments: Any) -> Any:
        """The output of the model's own `generate`."""
        return self.model.generate(**arguments)

    @abstractmethod
    def encode(self, visual: VisualInput) -> Any:
        """What the model sees of pictures or a clip, on its device."""

    @abstractmethod
    def events(self, request: Request, options: AnswerOptions) -> Events:
        """Reads the answer to one request token by token."""

    @abstractmethod
    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
        """Arguments of `generate` that hold the prompt."""

    @abstractmethod
    def _limits(self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int) -> dict[str, Any]:
        """Arguments of `generate` that limit the number of points."""

    @abstractmethod
    def _read(self, output: Any, requests: Sequence[Request], options: AnswerOptions, prompt_length: int) -> list[PointingResult]:
        """Results of a batch."""

    def on_device(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Copies tensors to the model's device, without waiting where the device allows it."""
        device = self.model.device
        return {name: value.to(device, non_blocking=True) if hasattr(value, "to") else value for name, value in tensors.items()}


def _ids_of(token_ids: int | Sequence[int] | None) -> tuple[int, ...]:
    if token_ids is None:
        return ()
    return (token_ids,) if isinstance(token_ids, int) else tuple(token_ids)
