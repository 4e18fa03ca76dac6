"""From preferences to batches, in loader workers, with a position that survives a crash.

Worker w of W prepares the batches n + w, n + w + W, ... of its process, and the loader takes them in turn, so batches come in the order
of their numbers whatever the number of workers. The position is the number of the next batch. A row that cannot be prepared, or that
does not fit the budget even with the fewest crops or frames, is skipped, logged and listed; another row of the same kind, drawn with
the seed, takes its place, so that batches stay whole and all processes in step.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from molmopoint.errors import ProcessingError
from molmopoint.training.packed_dataset import BROKEN, REASON_LENGTH, SkippedExample
from molmopoint.training.reward.order import MODALITIES, ModalityOrder
from molmopoint.training.sampling import Draw

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
        prepare: makes the row of a draw. Depends on nothing but the draw. Raises one of `BROKEN` if it cannot.
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
            raise ProcessingError(f"expected rows that {num_ranks} processes can share, got {order.width} per batch; choose another width")
        self.order = order
        self.prepare = prepare
        self.rank = rank
        self.num_ranks = num_ranks
        self.identity = json.loads(json.dumps(dict(identity or {})))  # as it comes back from a file: lists, no tuples
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
        return {**self.fingerprint(), "next_batch": self.next_batch, "rank": self.rank, "num_ranks": self.num_ranks, "skipped": skipped}

    def go_to(self, states: Sequence[Mapping[str, Any]], num_workers: int) -> None:
        """Goes on after saved positions; any number of workers will do, and other processes if a batch has as many rows as before.

        Raises:
            ProcessingError: the positions are those of other data, another seed or another width.
        """
        saved = dict(states[0])
        for name, value in self.fingerprint().items():
            if saved.get(name) != value:
                raise ProcessingError(
                    f"expected the {name} of the saved position, {saved.get(name)}, got {value}; go on with the same data, and as many "
                    "rows in all processes together (data.rows times the number of processes)"
                )
        self.next_batch = int(saved["next_batch"])
        rows = [row for state in states if state["rank"] % self.num_ranks == self.rank for row in state["skipped"]]
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
            f"expected rows that can be trained on, got {GIVE_UP_AFTER} of kind {MODALITIES[draw.source]} that cannot, the last one for "
            f"{skipped[-1].reason}; check the data, or raise data.max_tokens"
        )
