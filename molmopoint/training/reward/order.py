"""Which rows make which batch: one kind of visual input per batch, on all processes at once.

A batch is what all processes train on in one micro-step. Its rows are all about pictures, all about clips, or all text, because with
sharded weights a process that runs the vision tower would wait for one that does not. Which kind comes next is drawn, each kind that
has rows left in the epoch as likely; rows of a kind come in a fresh permutation every epoch. Everything is a function of the seed and
the number of the batch, so nothing is sent between processes and a position is one integer.

Source: arXiv 2604.10966, public training code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from molmopoint.data.preferences import PreferenceRecord
from molmopoint.errors import ProcessingError
from molmopoint.training.sampling import Draw

MODALITIES = ("text", "image", "video")
"""Kinds of visual input; `Draw.source` is the place in here."""

_KINDS, _ROWS, _SPARE = 0, 1, 2
"""Names of the random streams: kinds of batches, order of rows, and rows that stand in for broken ones."""


def modality_of(record: PreferenceRecord) -> str:
    """Kind of visual input of a row."""
    return "video" if record.video is not None else "image" if record.images else "text"


class ModalityOrder:
    """All batches, endlessly, epoch after epoch.

    The last batch of a kind in an epoch is filled up with the first rows of that kind, so that all batches are whole.

    Args:
        modalities: of each row of the data.
        width: rows of a batch, of all processes together.
        seed: of the order.

    Raises:
        ProcessingError: there are no rows.
    """

    def __init__(self, modalities: Sequence[str], width: int, *, seed: int = 0) -> None:
        if not modalities:
            raise ProcessingError("expected one or more rows to train on, got none; check the data")
        if width < 1 or seed < 0:
            raise ProcessingError(f"expected batches of one or more rows and a seed of at least 0, got {width} and {seed}; choose others")
        kinds = np.array([MODALITIES.index(name) for name in modalities])
        self.rows = [np.flatnonzero(kinds == kind) for kind in range(len(MODALITIES))]
        self.width = width
        self.seed = seed
        self.batches_of = [-(-len(rows) // width) for rows in self.rows]
        self._schedules: tuple[int, np.ndarray, np.ndarray] | None = None
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}

    @property
    def num_rows(self) -> int:
        """Rows of the data."""
        return sum(map(len, self.rows))

    @property
    def batches_per_epoch(self) -> int:
        """Batches until every row has come."""
        return sum(self.batches_of)

    def __getitem__(self, number: int) -> list[Draw]:
        """The rows of a batch, all of one kind; `source` is that kind and `index` the row of the data. Cheapest in ascending order."""
        epoch, place = divmod(number, self.batches_per_epoch)
        kinds, places = self._schedule(epoch)
        kind = int(kinds[place])
        rows = self._permutation(kind, epoch)
        first = int(places[place]) * self.width
        return [Draw(number * self.width + i, kind, int(rows[(first + i) % len(rows)]), epoch) for i in range(self.width)]

    def spare(self, draw: Draw, tries: int) -> Draw:
        """A row of the same kind that takes the place of one that cannot be trained on."""
        rng = np.random.default_rng([self.seed, _SPARE, draw.number, tries])
        rows = self.rows[draw.source]
        return Draw(draw.number, draw.source, int(rows[rng.integers(len(rows))]), draw.epoch)

    def fingerprint(self) -> dict[str, Any]:
        """What the order depends on; goes into JSON."""
        return {"rows": dict(zip(MODALITIES, map(len, self.rows), strict=True)), "width": self.width, "seed": self.seed}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_schedules": None, "_permutations": {}}  # workers make their own

    def _schedule(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Kind of each batch of an epoch, and how many of its kind came before it."""
        if self._schedules is None or self._schedules[0] != epoch:
            rng = np.random.default_rng([self.seed, _KINDS, epoch])
            left = np.array(self.batches_of)
            kinds = np.empty(self.batches_per_epoch, dtype=np.int64)
            places = np.empty_like(kinds)
            for i in range(len(kinds)):
                kind = rng.choice(np.flatnonzero(left))
                kinds[i], places[i] = kind, self.batches_of[kind] - left[kind]
                left[kind] -= 1
            self._schedules = epoch, kinds, places
        return self._schedules[1:]

    def _permutation(self, kind: int, epoch: int) -> np.ndarray:
        known = self._permutations.get(kind)
        if known is None or known[0] != epoch:
            known = epoch, np.random.default_rng([self.seed, _ROWS, kind, epoch]).permutation(self.rows[kind])
            self._permutations[kind] = known
        return known[1]
