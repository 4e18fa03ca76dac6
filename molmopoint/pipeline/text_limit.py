"""A limit on the number of points of an answer in text: once they are written, the list is closed.

Letters: B rows, S tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from molmopoint.pipeline.pieces import PieceDecoder
from molmopoint.processing.text_scanner import CoordsScanner

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
