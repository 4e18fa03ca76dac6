"""From what `generate` returns to results.

Letters: B rows, T new tokens.

A limit on the number of points of an answer in text: once they are written, the list is closed.

Letters: B rows, S tokens so far, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from molmopoint.decoding import Answer, read_answer
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.options import AnswerOptions
from molmopoint.pipeline.requests import Request
from molmopoint.pipeline.result import PointDistributions, PointingResult
from molmopoint.pipeline.streaming import EventReader, PieceDecoder, TextEventReader, plain_text
from molmopoint.processing.text_point_stream import CoordsScanner
from molmopoint.processing.text_points import read_text_answer

_CLOSING = '">'
"""What ends the coordinates of a list; the model goes on with the label."""

_MAY_GO_ON = "100"
"""The only coordinate of three digits that may have a fourth one."""


@dataclass
class _Row:
    """One answer while it is written.

    Attributes:
        pieces: its tokens as text.
        scanner: its lists.
        forced: tokens that must come next.
    """

    pieces: PieceDecoder
    scanner: CoordsScanner = field(default_factory=CoordsScanner)
    forced: list[int] = field(default_factory=list)


class PointLimit(LogitsProcessor):
    """Closes `coords` lists when an answer has so many points; later lists of the same answer stay empty.

    It looks at every new token on the host, so it costs one small transfer a step; answers without a limit do not need it.
    The forms of older models, which are not written as such lists, are not limited here.

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
        self._rows = [_Row(PieceDecoder(decode)) for _ in answer_starts]
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
            rest = scores[row].index_fill(0, torch.tensor(others, dtype=torch.long, device=scores.device), -torch.inf)
            limited[row] = -torch.inf
            limited[row, others] = kept
            limited[row, closing] = rest.logsumexp(0)
        return limited

    def _allowed(self, row: _Row, ids: list[int]) -> list[int]:
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
