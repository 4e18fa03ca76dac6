"""MolmoPoint on vLLM's engine in this process: the second way to run the same model behind one `Pointer`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn
from transformers import GenerationConfig

from molmopoint.backends.engine_requests import (
    EngineRequestBuilder,
    engine_output,
    engine_prompt,
    sampling_parameters,
)
from molmopoint.backends.media import MediaInputs
from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointingResult
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.processing import MolmoPointProcessor


class EngineModel:
    """What stands where a network would: its config, and the engine that holds it.

    Args:
        engine: a `vllm.LLM` of a MolmoPoint.
        settings: vLLM's settings of that engine.
        generation_config: of the model, for the ids that end an answer.
    """

    def __init__(self, engine: Any, settings: Any, generation_config: GenerationConfig) -> None:
        self.engine = engine
        self.config = settings.model_config.hf_config
        self.generation_config = generation_config
        self.dtype: torch.dtype = settings.model_config.dtype
        self.device = torch.device(settings.device_config.device_type)

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """None: weights are the engine's."""
        return ()

    def eval(self) -> Self:
        """Nothing changes."""
        return self

    def to(self, device: Any) -> Self:
        """There is no moving an engine.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            f"expected an engine to stay where it is, got {device!r}; load it again where it is to run"
        )


def start_engine(source: str, options: Mapping[str, Any]) -> EngineModel:
    """Starts vLLM with a model.

    Args:
        source: folder or hub id.
        options: keywords of `vllm.LLM`.

    Raises:
        CheckpointError: vLLM is not installed, or does not know an option.
    """
    if importlib.util.find_spec("vllm") is None:
        raise CheckpointError(
            "expected vLLM for engine='vllm', got none; install it into an environment of its own with: "
            'pip install "molmopoint[vllm]"'
        )
    from vllm import LLM

    try:
        engine = LLM(source, limit_mm_per_prompt={"image": 1}, **options)
    except TypeError as error:
        raise CheckpointError(f"expected options of vllm.LLM, got: {error}") from error
    stored = stored_generation_config(source, options.get("revision"))
    return EngineModel(engine, engine.llm_engine.vllm_config, stored)


def stored_generation_config(source: str, revision: str | None) -> GenerationConfig:
    """What a checkpoint says of generation; released folders may say nothing."""
    try:
        return GenerationConfig.from_pretrained(source, revision=revision or "main")
    except OSError:
        return GenerationConfig()


class EngineBackend(MolmoPointBackend):
    """Answers with an engine, whose batches are made of whatever waits.

    Args:
        processor: of the checkpoint.
        model: what `start_engine` returned.
        **settings: as in `Backend`.
    """

    model: Any
    """An `EngineModel`."""

    def __init__(self, processor: MolmoPointProcessor, model: EngineModel, **settings: Any) -> None:
        super().__init__(processor, model, **settings)
        limits = {name: settings.get(name) for name in ("max_pixels", "max_crops")}
        self.requests = EngineRequestBuilder(processor, model.config, **limits)
        window: Any = processor.image_processor.pooling_size
        self._num_slots = int(window[0]) * int(window[1])

    def encode(self, media: MediaInputs) -> None:
        """Nothing: the engine keeps what it has seen of pictures by their hashes."""
        return

    def check_options(self, options: AnswerOptions, *, clips: bool = False) -> None:
        """Refuses what an engine cannot give.

        Raises:
            ProcessingError: another look is wanted, which needs to know where else the first one might have
                pointed; or as in `Backend`.
        """
        if options.looks_again is not None:
            raise ProcessingError(
                "expected zoom=False with an engine, which says what was chosen only, got zoom; load the model "
                "without engine='vllm' to look again"
            )
        super().check_options(options, clips=clips)

    def prompt_of(self, request: Request, options: AnswerOptions) -> dict[str, Any]:
        """The prompt of a request, as vLLM takes it."""
        crops = options.max_crops or self.max_crops
        return engine_prompt(request, self.processor, self.model.config.grounding, self._num_slots, crops)

    def parameters_of(self, request: Request, options: AnswerOptions) -> dict[str, Any]:
        """Keywords of vLLM's sampling parameters for a request.

        Raises:
            ProcessingError: an option that an engine does not have.
        """
        return sampling_parameters(options, bool(request.answer_start), self.eos_token_ids)

    def result_of(
        self, request: Request, options: AnswerOptions, prompt_ids: Sequence[int], completion: Any
    ) -> PointingResult:
        """The result that an engine's answer comes to.

        Args:
            request: that was answered.
            options: of it.
            prompt_ids: tokens of the prompt as the engine had it.
            completion: with `token_ids` and `logprobs`.

        Raises:
            NumericalError: the model computed numbers that are not finite.
            ProcessingError: the engine has cut the picture in another way.
        """
        if len(prompt_ids) != len(request.row):
            raise ProcessingError(
                f"expected a prompt of {len(request.row)} tokens, got {len(prompt_ids)}: the engine has cut the "
                "picture into other crops; pass the max_crops of `encode` with the question, too"
            )
        output = engine_output(completion, self.model.config.grounding, options.single)
        (result,) = self._results(output, [request], options, 0)
        return result

    def answer(
        self, requests: Sequence[Request], options: AnswerOptions, **generate_arguments: Any
    ) -> list[PointingResult]:
        """Hands requests to the engine; one result per request, in order.

        Raises:
            NumericalError: the model computed numbers that are not finite.
            ProcessingError: an option that an engine does not have.
        """
        if generate_arguments:
            raise ProcessingError(
                f"expected a whole answer, got {', '.join(sorted(generate_arguments))}: this engine does not "
                "stream; use `point`"
            )
        self.check_options(options, clips=any(request.metadata.is_video for request in requests))
        from vllm import SamplingParams

        prompts = [self.prompt_of(request, options) for request in requests]
        parameters = [SamplingParams(**self.parameters_of(request, options)) for request in requests]
        outputs = self._generated(prompts, parameters)
        results = []
        for request, output in zip(requests, outputs, strict=True):
            results.append(self.result_of(request, options, output.prompt_token_ids, output.outputs[0]))
        return results

    def _generated(self, prompts: Sequence[Any], parameters: Sequence[Any]) -> Sequence[Any]:
        """What the engine makes of prompts, in order.

        Raises:
            ProcessingError: it refuses one of them.
        """
        from vllm.exceptions import VLLMClientError

        try:
            return self.model.engine.generate(prompts, parameters, use_tqdm=False)
        except (ValueError, VLLMClientError) as error:
            raise ProcessingError(f"expected requests that the engine takes, got: {error}") from error

    def _distributions(self, *args: Any) -> None:
        """None: an engine says what was chosen, not what else might have been."""
        return
