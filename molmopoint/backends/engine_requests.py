"""Requests as an engine wants them, and what it says as an answer: between rows of ours and tokens of vLLM.

Nothing here imports vLLM: its parameters are plain keywords, its outputs have attributes of these names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from molmopoint.backends.media import RequestMedia
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request, RequestBuilder
from molmopoint.config import GroundingSettings
from molmopoint.errors import NumericalError, ProcessingError
from molmopoint.processing import MolmoPointProcessor
from molmopoint.rows import ExtendedIds
from molmopoint.tokens import NO_SELECTION

ONE_PICTURE = (
    "expected one picture, got several: an engine joins the tokens of one picture only, where the model was trained to "
    "join those of all; ask about one after the other, or load the model without engine='vllm'"
)

_KNOWN = frozenset(
    {"do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop_strings"}
)
"""Arguments of `generate` that an engine has, too."""


class EngineRequestBuilder(RequestBuilder):
    """Makes rows, and refuses what an engine cannot look at before anything else is done."""

    def process_images(
        self, image: Any, max_crops: int | None = None, *, allow_urls: bool = False
    ) -> RequestMedia:
        """One picture, or none.

        Raises:
            ProcessingError: several pictures; or as in `RequestBuilder`.
        """
        if isinstance(image, (list, tuple)) and len(image) > 1:
            raise ProcessingError(ONE_PICTURE)
        return super().process_images(image, max_crops, allow_urls=allow_urls)

    def process_video(self, video: Any, options: Any) -> RequestMedia:
        """There are no clips.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(
            "expected a picture, got a clip, whose frames an engine would not join; load the model without "
            "engine='vllm' for clips"
        )


@dataclass(frozen=True, eq=False)
class EngineOutput:
    """The answer to one request, with the names of what `generate` returns.

    Attributes:
        sequences: (1, T) extended ids.
        selection_probabilities: (1, T) of what each token selected, NaN where it selects nothing.
        absent: (1,) probability that there is nothing to point at; None where that was not asked.
    """

    sequences: Tensor
    selection_probabilities: Tensor
    absent: Tensor | None


def engine_prompt(
    request: Request,
    processor: MolmoPointProcessor,
    settings: GroundingSettings,
    num_slots: int,
    max_crops: int | None,
) -> dict[str, Any]:
    """A prompt of vLLM: ids with one placeholder per picture, and the picture.

    Args:
        request: about one picture, or none.
        processor: whose placeholders they are.
        settings: grounding tokens.
        num_slots: K of pictures.
        max_crops: crops of the picture, where the request says.
    """
    ids = _extended(request, settings, num_slots)
    tokenizer = processor.tokenizer
    for text in request.media.spans:
        span = tokenizer.encode(text, add_special_tokens=False)
        start = _find(ids, span)
        ids[start : start + len(span)] = [tokenizer.convert_tokens_to_ids(processor.image_token)]
    prompt: dict[str, Any] = {"prompt_token_ids": ids}
    pictures = list(request.media.displayed.pictures)
    if pictures:
        prompt["multi_modal_data"] = {"image": pictures}
        if max_crops is not None:
            prompt["mm_processor_kwargs"] = {"max_crops": max_crops}
    return prompt


def sampling_parameters(options: AnswerOptions, open_list: bool, end_ids: Sequence[int]) -> dict[str, Any]:
    """Keywords of `vllm.SamplingParams`, which mean the same as the options mean to `generate`.

    Raises:
        ProcessingError: an argument of `generate` that an engine does not have.
    """
    given = dict(options.sampling)
    unknown = sorted(given.keys() - _KNOWN)
    if unknown:
        raise ProcessingError(
            f"expected sampling arguments that an engine has ({', '.join(sorted(_KNOWN))}), got "
            f"{', '.join(unknown)}; leave them out, or load the model without engine='vllm'"
        )
    draws = given.get("do_sample", False)
    usual = GenerationConfig._get_default_generation_params()
    parameters: dict[str, Any] = {
        "max_tokens": options.max_new_tokens,
        "stop_token_ids": list(end_ids),
        "logprobs": 1,
        "detokenize": bool(given.get("stop_strings")),
        "temperature": 0.0,
    }
    if draws:
        parameters["temperature"] = given.get("temperature", 1.0)
        parameters["top_k"] = given.get("top_k", usual.get("top_k")) or 0
        parameters["top_p"] = given.get("top_p") or 1.0
        parameters["min_p"] = given.get("min_p") or 0.0
        # torch.manual_seed decides, as it does for generate.
        parameters["seed"] = int(torch.randint(2**62, ()))
    if given.get("repetition_penalty") is not None:
        parameters["repetition_penalty"] = given["repetition_penalty"]
    if given.get("stop_strings"):
        parameters["stop"] = given["stop_strings"]
        parameters["include_stop_str_in_output"] = True
    extra: dict[str, Any] = {}
    if options.max_points is not None:
        extra["max_points"] = options.max_points
    if options.single:
        extra["single"] = True
    if open_list:
        extra["open_list"] = True
    if extra:
        parameters["extra_args"] = extra
    return parameters


def engine_output(completion: Any, settings: GroundingSettings, single: bool) -> EngineOutput:
    """Reads one completion of vLLM.

    Args:
        completion: with `token_ids` and `logprobs`, one dict per token.
        settings: grounding tokens.
        single: whether exactly one point was asked for.

    Raises:
        NumericalError: the model computed numbers that are not finite.
    """
    ids = list(completion.token_ids)
    odds = []
    for token_id, logprobs in zip(ids, completion.logprobs or (), strict=True):
        is_place = token_id >= settings.extended_start
        chance = math.exp(logprobs[token_id].logprob) if is_place else math.nan
        if is_place and math.isnan(chance):
            raise NumericalError(
                "expected finite numbers from the network, got NaN where a place was chosen; load the model "
                "with dtype='float32', or check its weights"
            )
        odds.append(chance)
    absent = None
    if single:
        absent = torch.tensor([_no_more_odds(ids, completion.logprobs or ())])
    return EngineOutput(torch.tensor([ids], dtype=torch.long), torch.tensor([odds]), absent)


def _no_more_odds(ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]]) -> float:
    """What "no more points" would have got as the first choice; it stands beside the first token."""
    for token_id, others in zip(ids[:1], logprobs[:1], strict=True):
        beside = [value.logprob for other, value in others.items() if other != token_id]
        if beside:
            return math.exp(beside[0])
    return math.nan


def _extended(request: Request, settings: GroundingSettings, num_slots: int) -> list[int]:
    """Ids of a row, with what its grounding tokens select folded into them."""
    ids, selections = request.row.input_ids, request.row.column("selection_ids")  # (S,)
    if not bool((selections != NO_SELECTION).any()):
        return ids.tolist()
    patches = torch.full_like(ids, request.metadata.num_patches)
    return ExtendedIds(settings, patches, torch.full_like(ids, num_slots)).join(ids, selections).tolist()


def _find(ids: Sequence[int], span: Sequence[int]) -> int:
    """Where a span of tokens begins."""
    for start in range(len(ids) - len(span) + 1):
        if ids[start] == span[0] and list(ids[start : start + len(span)]) == list(span):
            return start
    raise ProcessingError("expected the tokens of the picture in the prompt, got a prompt without them")
