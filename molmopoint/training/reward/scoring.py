"""How well a reward model judges held-out rows, every list of answers in two orders: as written, and turned
round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from molmopoint.data.preferences import PreferenceRecord
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.processing.rows import Row, collate
from molmopoint.training.precision import autocast
from molmopoint.training.reward.dataset import modality_of
from molmopoint.training.reward.losses import ABSENT, is_right, margins
from molmopoint.training.reward.prepare import PreferencePreparer
from molmopoint.training.run_checkpoints import standard_error


class JudgingScore:
    """Scores of a model on held-out rows; a score function of `RunTrainer`.

    Args:
        preparer: of the held-out rows.
        examples: rows judged at most, evenly spread.
        batch_size: rows per pass.
        dtype: of the products.
    """

    def __init__(
        self, preparer: PreferencePreparer, examples: int, batch_size: int, dtype: torch.dtype = torch.float32
    ) -> None:
        total = len(preparer.records)
        chosen = [preparer.records[i * total // min(total, examples)] for i in range(min(total, examples))]
        self.records = sorted(chosen, key=modality_of)  # sharded processes need one kind per pass
        self.preparer = preparer
        self.batch_size = batch_size
        self.dtype = dtype

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Scores from 0 to 1, and the margin.

        Returns:
            "score" and "top1_accuracy": part of the lists, each in both orders, whose highest score is that
            of a best answer; "margin": best answer minus the best of the others; "order_consistency": part of
            the rows whose chosen answer is the same in both;
            "score_error": standard error of "score".

        Raises:
            ProcessingError: no row can be prepared.
        """
        right: list[Tensor] = []
        margin: list[Tensor] = []
        same: list[Tensor] = []
        for (written, turned), ranks in self._judged(model):
            best_of_each = torch.stack([is_right(written, ranks), is_right(turned, ranks)])  # (2, B)
            margin_of_each = torch.stack([margins(written, ranks), margins(turned, ranks)])
            right.append(best_of_each.float().mean(0))
            margin.append(margin_of_each.mean(0))
            same.append((written.argmax(1) == turned.argmax(1)).float())
        if not right:
            raise ProcessingError(
                "expected held-out rows that can be prepared, got only broken ones; check their pictures"
            )
        accuracy = float(torch.cat(right).mean())
        return {
            "score": accuracy,
            "top1_accuracy": accuracy,
            "margin": float(torch.cat(margin).mean()),
            "order_consistency": float(torch.cat(same).mean()),
            "score_error": standard_error(torch.cat(right).tolist()),
        }

    @torch.no_grad()
    def _judged(self, model: nn.Module) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Scores (B, N) of both orders, answers in their written order, and ranks (B, N)."""
        for records in _batches(self.records, self.batch_size):
            rows: list[tuple[PreferenceRecord, Row]] = []
            for record in records:
                try:
                    rows.append((record, self._row(record)))
                except (MolmoPointError, OSError):
                    continue  # a broken picture; what is trained on counts and names it
            if not rows:
                continue
            written: list[Tensor] = []
            turned: list[Tensor] = []
            scores = self._score(model, [row for _, row in rows])
            for (record, _), line in zip(rows, scores, strict=True):
                count = len(record.responses)
                written.append(line[:count])
                turned.append(line[count : 2 * count].flip(0))
            ranks = [torch.tensor(record.rankings) for record, _ in rows]
            yield (_filled(written, -torch.inf), _filled(turned, -torch.inf)), _filled(ranks, ABSENT)

    def _row(self, record: PreferenceRecord) -> Row:
        """Both orders as two branches of one row, which share the prompt."""
        order = range(len(record.responses))
        return self.preparer.builder.row(self.preparer.prompt(record), record.responses, [order, order[::-1]])

    def _score(self, model: Any, rows: Sequence[Row]) -> Tensor:
        """(B, 2 N) on the CPU."""
        device = next(model.parameters()).device
        batch = collate(rows, self.preparer.builder.processor.tokenizer.pad_token_id)
        was_training = model.training
        model.eval()
        try:
            with autocast(device.type, self.dtype):
                return (
                    model(**{name: tensor.to(device) for name, tensor in batch.items()}).scores.float().cpu()
                )
        finally:
            model.train(was_training)


def _filled(parts: Sequence[Tensor], value: float) -> Tensor:
    """Lines of different lengths as one tensor."""
    width = max(len(part) for part in parts)
    return torch.stack([pad(part, (0, width - len(part)), value=value) for part in parts])


def _batches(records: Sequence[PreferenceRecord], size: int) -> Iterator[Sequence[PreferenceRecord]]:
    """Neighbours of one kind."""
    start = 0
    while start < len(records):
        stop = start
        while stop < min(start + size, len(records)) and modality_of(records[stop]) == modality_of(
            records[start]
        ):
            stop += 1
        yield records[start:stop]
        start = stop
