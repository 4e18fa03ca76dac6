"""From what `generate` returns to results.

Letters: B rows, T new tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molmopoint.decoding import Answer, read_answer
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.events import EventReader
from molmopoint.pipeline.heatmaps import PointDistributions
from molmopoint.pipeline.markup import plain_text
from molmopoint.pipeline.options import AnswerOptions
from molmopoint.pipeline.requests import Request
from molmopoint.pipeline.result import PointingResult
from molmopoint.pipeline.text_events import TextEventReader
from molmopoint.processing.text_answers import read_text_answer

_TOTAL = re.compile(r"\A\s*+(\d{1,18})\s*+(?:\.\s*+)?\Z")


def count_of(result: PointingResult) -> int:
    """How many the answer counts: its objects, or its number where it is a bare number without points."""
    if len(result.points):
        return len(np.unique(result.points.object_id))
    number = _TOTAL.match(result.text)
    return int(number[1]) if number else 0


class AnswerText:
    """The text of answers; what both readers share.

    Args:
        tokenizer: gives plain ids their text.
        eos_token_ids: ids that end an answer.
    """

    def __init__(self, tokenizer: Any, eos_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_ids = tuple(eos_token_ids)

    def cut(self, ids: Tensor) -> tuple[list[int], bool]:
        """The ids of one answer (T,) before the token that ends it, and whether there is one."""
        for position, token_id in enumerate(values := ids.tolist()):
            if token_id in self.eos_token_ids:
                return values[:position], True
        return values, False

    def decode(self, ids: list[int]) -> str:
        """Text of ids, plain or extended, without special tokens."""
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class AnswerReader(AnswerText):
    """Turns rows of a generation output with grounding tokens into results.

    Args:
        tokenizer: gives plain ids their text.
        eos_token_ids: ids that end an answer.
        vocabulary_start: first id of the extended vocabulary.
    """

    def __init__(self, tokenizer: Any, eos_token_ids: Sequence[int], vocabulary_start: int) -> None:
        super().__init__(tokenizer, eos_token_ids)
        self._vocabulary_start = vocabulary_start

    def read(self, output: Any, requests: Sequence[Request], prompt_length: int) -> list[PointingResult]:
        """One result per row of the output, in order.

        Args:
            output: of `model.generate(..., return_dict_in_generate=True)`.
            requests: the B requests it answers.
            prompt_length: columns of the padded prompt.
        """
        answers = output.sequences[:, prompt_length:].cpu()
        probabilities = output.selection_probabilities.cpu()
        results = []
        for row, request in enumerate(requests):
            ids, ended = self.cut(answers[row])
            answer = read_answer(ids, request.metadata, self._vocabulary_start, self.decode, probabilities[row, : len(ids)])
            raw_text = request.answer_start + self.decode(ids)
            results.append(_result(request, answer, raw_text, ended, _distributions(output, row, answer, request.metadata)))
        return results

    def event_reader(self, request: Request) -> EventReader:
        """Reads the answer to one request token by token."""
        return EventReader(self.decode, request.metadata, self._vocabulary_start, request.answer_start)


class TextAnswerReader(AnswerText):
    """Turns rows of a generation output in which points are text into results, without scores."""

    def read(self, output: Any, requests: Sequence[Request], prompt_length: int, options: AnswerOptions) -> list[PointingResult]:
        """One result per row of the output, in order; points beyond the limit of the options are left out."""
        answers = output.sequences[:, prompt_length:].cpu()
        results = []
        for row, request in enumerate(requests):
            ids, ended = self.cut(answers[row])
            raw_text = request.answer_start + self.decode(ids)
            answer = read_text_answer(raw_text, request.metadata.image_sizes, request.metadata.timestamps)
            results.append(_result(request, answer, raw_text, ended, limit=options.point_limit))
        return results

    def event_reader(self, request: Request, options: AnswerOptions) -> TextEventReader:
        """Reads the answer to one request token by token."""
        return TextEventReader(self.decode, request.metadata, request.answer_start, options.point_limit)


def _result(
    request: Request,
    answer: Answer,
    raw_text: str,
    ended: bool,
    distributions: PointDistributions | None = None,
    limit: int | None = None,
) -> PointingResult:
    return PointingResult(
        points=answer.points[:limit],
        text=plain_text(raw_text),
        raw_text=raw_text,
        prompt=request.prompt,
        truncated=answer.truncated_triple or not ended,
        invalid=answer.invalid,
        image_sizes=tuple(request.metadata.image_sizes),
        metadata=request.metadata,
        displayed=request.visual.displayed,
        distributions=distributions,
        notes=request.visual.notes,
    )


def _distributions(output: Any, row: int, answer: Answer, metadata: PointingMetadata) -> PointDistributions | None:
    """The choices behind the found points, brought to the host in one transfer each."""
    if answer.token_positions is None or not len(answer.token_positions):
        return None
    kinds = (
        (output.patch_distributions, answer.token_positions[:, 0], metadata.num_patches),
        (output.subpatch_distributions, answer.token_positions[:, 1], metadata.num_slots),
    )
    return PointDistributions(*(torch.stack([steps[i][row] for i in chosen])[:, :own].cpu().numpy() for steps, chosen, own in kinds))
