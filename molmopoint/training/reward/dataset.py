"""From preferences to batches, in loader workers, with a position that survives a crash.

Worker w of W prepares the batches n + w, n + w + W, ... of its process, and the loader takes them in turn, so
batches come in the order of their numbers whatever the number of workers. The position is the number of the
next batch. A row that cannot be prepared, or that does not fit the budget even with the fewest crops or
frames, is skipped, logged and listed; another row of the same kind, drawn with the seed, takes its place, so
that batches stay whole and all processes in step.

Which rows make which batch: one kind of visual input per batch, on all processes at once.

A batch is what all processes train on in one micro-step. Its rows are all about pictures, all about clips, or
all text, because with sharded weights a process that runs the vision tower would wait for one that does not.
Which kind comes next is drawn, each kind that has rows left in the epoch as likely; rows of a kind come in a
fresh permutation every epoch. Everything is a function of the seed and the number of the batch, so nothing is
sent between processes and a position is one integer.

Source: arXiv 2604.10966, public training code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from molmopoint.data.preferences import PreferenceRecord
from molmopoint.errors import ProcessingError
from molmopoint.training.packed_dataset import BROKEN, REASON_LENGTH, SkippedExample
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

    The last batch of a kind in an epoch is filled up with the first rows of that kind, so that all batches
    are whole.

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
            raise ProcessingError(
                f"expected batches of one or more rows and a seed of at least 0, got {width} and {seed}; "
                "choose others"
            )
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
        """The rows of a batch, all of one kind; `source` is that kind and `index` the row of the data.
        Cheapest in ascending order.
        """
        epoch, place = divmod(number, self.batches_per_epoch)
        kinds, places = self._schedule(epoch)
        kind = int(kinds[place])
        rows = self._permutation(kind, epoch)
        first = int(places[place]) * self.width
        return [
            Draw(number * self.width + i, kind, int(rows[(first + i) % len(rows)]), epoch)
            for i in range(self.width)
        ]

    def spare(self, draw: Draw, tries: int) -> Draw:
        """A row of the same kind that takes the place of one that cannot be trained on."""
        rng = np.random.default_rng([self.seed, _SPARE, draw.number, tries])
        rows = self.rows[draw.source]
        return Draw(draw.number, draw.source, int(rows[rng.integers(len(rows))]), draw.epoch)

    def fingerprint(self) -> dict[str, Any]:
        """What the order depends on; goes into JSON."""
        return {
            "rows": dict(zip(MODALITIES, map(len, self.rows), strict=True)),
            "width": self.width,
            "seed": self.seed,
        }

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


logger = logging.getLogger(__name__)

GIVE_UP_AFTER = 20
"""So many rows that cannot be trained on, one after the other, are no accident."""


@dataclass(frozen=True)
class BatchProgress:
    """Where the data is after a batch.

    Attributes:
        next_batch: number of the batch that comes next.
        skipped: rows that this batch could not use.
    """

    next_batch: int
    skipped: tuple[SkippedExample, ...] = ()


@dataclass(frozen=True, eq=False)
class PreparedBatch:
    """Prepared rows of this process.

    Attributes:
        rows: as `prepare` made them.
        draws: where each came from.
        progress: where the data is after them.
    """

    rows: tuple[Any, ...]
    draws: tuple[Draw, ...]
    progress: BatchProgress


class PreferenceDataset(IterableDataset):
    """Batches of this process; a `RunDataset`.

    Args:
        order: of the batches; its width is the rows of all processes.
        prepare: makes the row of a draw. Depends on nothing but the draw. Raises one of `BROKEN` if it
            cannot.
        rank: of this process.
        num_ranks: of all processes.
        identity: what the rows depend on beside the order; goes into JSON.

    Raises:
        ProcessingError: the batches cannot be divided among the processes.
    """

    def __init__(
        self,
        order: ModalityOrder,
        prepare: Callable[[Draw], Any],
        *,
        rank: int = 0,
        num_ranks: int = 1,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if order.width % num_ranks:
            raise ProcessingError(
                f"expected rows that {num_ranks} processes can share, got {order.width} per batch; choose "
                "another width"
            )
        self.order = order
        self.prepare = prepare
        self.rank = rank
        self.num_ranks = num_ranks
        # As it comes back from a file: lists, no tuples.
        self.identity = json.loads(json.dumps(dict(identity or {})))
        self.next_batch = 0
        self._skipped: dict[tuple[int, int], SkippedExample] = {}

    def __iter__(self) -> Iterator[PreparedBatch]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        number = self.next_batch + worker
        while True:
            yield self._batch(number)
            number += workers

    @property
    def skipped(self) -> list[SkippedExample]:
        """Rows of this process that could not be trained on, each once, up to the last recorded batch."""
        return list(self._skipped.values())

    @property
    def ends(self) -> bool:
        """Never: the steps say how long a run is."""
        return False

    @property
    def passes(self) -> float:
        """Passes over the data so far."""
        return self.next_batch / self.order.batches_per_epoch

    def fingerprint(self) -> dict[str, Any]:
        """What the batches depend on; goes into JSON."""
        return {"order": self.order.fingerprint(), **self.identity}

    def record(self, progress: Sequence[BatchProgress]) -> None:
        """Notes that the batches with these positions were trained on."""
        for step in progress:
            self.next_batch = step.next_batch
            self._skipped.update({(row.source, row.index): row for row in step.skipped})

    def state_dict(self) -> dict[str, Any]:
        """The position after everything recorded; goes into JSON."""
        skipped = [asdict(row) for row in self.skipped]
        return {
            **self.fingerprint(),
            "next_batch": self.next_batch,
            "rank": self.rank,
            "num_ranks": self.num_ranks,
            "skipped": skipped,
        }

    def go_to(self, states: Sequence[Mapping[str, Any]], num_workers: int) -> None:
        """Goes on after saved positions; any number of workers will do, and other processes if a batch has as
        many rows as before.

        Raises:
            ProcessingError: the positions are those of other data, another seed or another width.
        """
        saved = dict(states[0])
        for name, value in self.fingerprint().items():
            if saved.get(name) != value:
                raise ProcessingError(
                    f"expected the {name} of the saved position, {saved.get(name)}, got {value}; go on with "
                    "the same data, and as many "
                    "rows in all processes together (data.rows times the number of processes)"
                )
        self.next_batch = int(saved["next_batch"])
        rows = [
            row for state in states if state["rank"] % self.num_ranks == self.rank for row in state["skipped"]
        ]
        self._skipped = {(row["source"], row["index"]): SkippedExample(**row) for row in rows}

    def _batch(self, number: int) -> PreparedBatch:
        draws = self.order[number]
        share = len(draws) // self.num_ranks
        skipped: list[SkippedExample] = []
        made = [self._row(draw, skipped) for draw in draws[self.rank * share : (self.rank + 1) * share]]
        rows, used = zip(*made, strict=True)
        return PreparedBatch(rows, used, BatchProgress(number + 1, tuple(skipped)))

    def _row(self, draw: Draw, skipped: list[SkippedExample]) -> tuple[Any, Draw]:
        """The row of a draw, or that of the first spare one that can be trained on."""
        wanted = draw
        for tries in range(GIVE_UP_AFTER):
            try:
                return self.prepare(wanted), wanted
            except BROKEN as error:
                reason = f"{type(error).__name__}: {error}"[:REASON_LENGTH]
                logger.warning("skipped row %d: %s", wanted.index, reason)
                skipped.append(SkippedExample(wanted.source, wanted.index, reason))
                wanted = self.order.spare(draw, tries)
        raise ProcessingError(
            f"expected rows that can be trained on, got {GIVE_UP_AFTER} of kind {MODALITIES[draw.source]} "
            "that cannot, the last one for "
            f"{skipped[-1].reason}; check the data, or raise data.max_tokens"
        )
