"""How well a reward model judges held-out rows, every list of answers in two orders: as written, and turned round."""

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

    def __init__(self, preparer: PreferencePreparer, examples: int, batch_size: int, dtype: torch.dtype = torch.float32) -> None:
        total = len(preparer.records)
        chosen = [preparer.records[i * total // min(total, examples)] for i in range(min(total, examples))]
        self.records = sorted(chosen, key=modality_of)  # sharded processes need one kind per pass
        self.preparer = preparer
        self.batch_size = batch_size
        self.dtype = dtype

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Scores from 0 to 1, and the margin.

        Returns:
            "score" and "top1_accuracy": part of the lists, each in both orders, whose highest score is that of a best answer; "margin":
            best answer minus the best of the others; "order_consistency": part of the rows whose chosen answer is the same in both;
            "score_error": standard error of "score".

        Raises:
            ProcessingError: no row can be prepared.
        """
        right, margin, same = [], [], []
        for both, ranks in self._judged(model):
            best = [is_right(scores, ranks) for scores in both]
            right.append(torch.stack(best).float().mean(0))
            margin.append(torch.stack([margins(scores, ranks) for scores in both]).mean(0))
            same.append((both[0].argmax(1) == both[1].argmax(1)).float())
        if not right:
            raise ProcessingError("expected held-out rows that can be prepared, got only broken ones; check their pictures")
        accuracy, wide, consistent = (float(torch.cat(parts).mean()) for parts in (right, margin, same))
        error = standard_error(torch.cat(right).tolist())
        return {"score": accuracy, "top1_accuracy": accuracy, "margin": wide, "order_consistency": consistent, "score_error": error}

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
            scores = self._score(model, [row for _, row in rows])
            counts = [len(record.responses) for record, _ in rows]
            width = max(counts)

            def filled(parts: list[Tensor], value: float, width: int = width) -> Tensor:
                return torch.stack([pad(part, (0, width - len(part)), value=value) for part in parts])

            written = filled([line[:n] for line, n in zip(scores, counts, strict=True)], -torch.inf)
            turned = filled([line[n : 2 * n].flip(0) for line, n in zip(scores, counts, strict=True)], -torch.inf)
            yield (written, turned), filled([torch.tensor(record.rankings) for record, _ in rows], ABSENT)

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
                return model(**{name: tensor.to(device) for name, tensor in batch.items()}).scores.float().cpu()
        finally:
            model.train(was_training)


def _batches(records: Sequence[PreferenceRecord], size: int) -> Iterator[Sequence[PreferenceRecord]]:
    """Neighbours of one kind."""
    start = 0
    while start < len(records):
        stop = start
        while stop < min(start + size, len(records)) and modality_of(records[stop]) == modality_of(records[start]):
            stop += 1
        yield records[start:stop]
        start = stop
