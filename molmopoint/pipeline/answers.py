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
from molmopoint.pipeline.requests import Request
from molmopoint.pipeline.result import PointingResult

_TOTAL = re.compile(r"\A\s*(\d+)\s*\.?\s*\Z")


def count_of(result: PointingResult) -> int:
    """How many the answer counts: its objects, or its number where it is a bare number without points."""
    if len(result.points):
        return len(np.unique(result.points.object_id))
    number = _TOTAL.match(result.text)
    return int(number[1]) if number else 0


class AnswerReader:
    """Turns rows of a generation output into results.

    Args:
        tokenizer: gives plain ids their text.
        vocabulary_start: first id of the extended vocabulary.
        eos_token_ids: ids that end an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary_start: int, eos_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_start = vocabulary_start
        self.eos_token_ids = tuple(eos_token_ids)

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
            truncated = answer.truncated_triple or not ended
            raw_text = request.answer_start + self.decode(ids)
            results.append(_result(request, answer, raw_text, truncated, _distributions(output, row, answer, request.metadata)))
        return results

    def event_reader(self, request: Request) -> EventReader:
        """Reads the answer to one request token by token."""
        return EventReader(self.decode, request.metadata, self._vocabulary_start, request.answer_start)

    def cut(self, ids: Tensor) -> tuple[list[int], bool]:
        """The ids of one answer (T,) before the token that ends it, and whether there is one."""
        for position, token_id in enumerate(values := ids.tolist()):
            if token_id in self.eos_token_ids:
                return values[:position], True
        return values, False

    def decode(self, ids: list[int]) -> str:
        """Text of ids, plain or extended, without special tokens."""
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _result(request: Request, answer: Answer, raw_text: str, truncated: bool, distributions: PointDistributions | None) -> PointingResult:
    return PointingResult(
        points=answer.points,
        text=plain_text(raw_text),
        raw_text=raw_text,
        prompt=request.prompt,
        truncated=truncated,
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
