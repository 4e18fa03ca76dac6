"""From rows of data to packs of prepared examples, in loader workers, with a position that survives a crash.

Workers prepare ahead of the training, so what counts is not where they are but what was trained on. Every
pack therefore carries the position its worker has after it. The training process gives back what it has used,
and saves that:

    dataset = PackedDataset(order, prepare, limits, rank=rank, num_ranks=num_ranks)
    dataset.load_state_dict(saved)                                 only to resume
    for batch in DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=PackCollator(patch_token_id,
    pad_token_id)):
        progress, origins = batch.pop(PROGRESS), batch.pop(ORIGINS)
        ...                                                        a training step
        dataset.record(progress)
    dataset.state_dict()                                           goes into JSON

The loader must be left as it is: each rank reads its own part here, so nothing may split or repeat the
batches again (accelerate's `prepare` would), and `persistent_workers` would start a second pass from an old
position.

What a run asks of its data: rows of one process, in an order that can be gone on with.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch.utils.data import IterableDataset, get_worker_info

from molmopoint.errors import ProcessingError
from molmopoint.processing.rows import Row, collate, pack
from molmopoint.training.packing import ExampleSize, Packer, PackingLimits, Waiting
from molmopoint.training.sampling import Draw, DrawOrder, Share, ShareSampler, check_order, reshare

PROGRESS = "progress"
"""Key of a batch under which the positions after it lie: no argument of the model, take it out first."""

ORIGINS = "origins"
"""Key of a batch under which the (source, row) of every example lies: take it out as well."""


class RunDataset(Protocol):
    """Data that a trainer goes through and notes its position in; an iterable of what the collator takes."""

    rank: int
    num_ranks: int

    @property
    def skipped(self) -> Sequence[Any]:
        """Rows that could not be trained on, up to the last recorded batch."""
        ...

    @property
    def ends(self) -> bool:
        """Whether there may be no more batches before the steps are made."""
        ...

    @property
    def passes(self) -> float:
        """Passes over the data so far."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What its batches depend on; goes into JSON."""
        ...

    def record(self, progress: Sequence[Any]) -> None:
        """Notes that the batches with these positions were trained on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position of this process after everything recorded; goes into JSON."""
        ...

    def go_to(self, states: Sequence[Mapping[str, Any]], num_workers: int) -> None:
        """Goes on after saved positions, those of all processes in their order."""
        ...


logger = logging.getLogger(__name__)

SOURCE_IDS = "source_ids"
"""Key of a batch under which the source of every token lies, (B, S) with -1 at padding: no argument of the
model either.
"""

BROKEN = (ValueError, OSError)
"""What a broken example raises: every error of the library, of PIL and of files. Anything else is a fault of
the program.
"""

REASON_LENGTH = 300
"""Characters kept of what was wrong with an example."""


@dataclass(frozen=True)
class SkippedExample:
    """A row of the data that cannot be trained on.

    Attributes:
        source: which source.
        index: which row of it.
        reason: what was wrong.
    """

    source: int
    index: int
    reason: str


@dataclass(frozen=True)
class Progress:
    """Where a worker is after a pack, and what it skipped for it; small, and sent along with every pack.

    Attributes:
        worker: of the rank, by its place in the order of packs.
        num_workers: of the rank.
        next_draw: the first draw it has not looked at.
        clock: of its packer.
        pool: draw number and arrival of each example that waits, oldest first.
        left: draws of others that this worker makes before its own, after the number of workers changed.
        skipped: since the pack before.
    """

    worker: int
    num_workers: int
    next_draw: int
    clock: int
    pool: tuple[tuple[int, int], ...] = ()
    left: tuple[int, ...] = ()
    skipped: tuple[SkippedExample, ...] = ()


@dataclass(frozen=True, eq=False)
class Pack:
    """Examples that share a row.

    Attributes:
        examples: as `prepare` made them.
        draws: the place of each in the order.
        progress: where the worker is after this pack.
        origins: source and row of each example.
    """

    examples: tuple[Any, ...]
    draws: tuple[int, ...]
    progress: Progress
    origins: tuple[tuple[int, int], ...]


def size_of_row(row: Row) -> ExampleSize:
    """Tokens, and crops and frames, of a training row."""
    return ExampleSize(len(row), row.num_crops)


class PackedDataset(IterableDataset):
    """Packs of prepared examples; the part of one rank, divided among its loader workers.

    An example that cannot be prepared, or that no row can hold, is skipped, logged and listed in `skipped`.

    Args:
        order: of the rows of the data.
        prepare: makes the example of a draw. Depends on nothing but the draw, or resuming gives other
            examples. Raises one of `BROKEN` if it cannot.
        limits: how rows are filled; `pool_size` examples wait in the memory of each worker.
        rank: of this process.
        num_ranks: of all processes.
        measure: size of a prepared example.
        give_up_after: so many broken examples one after the other are no accident.
    """

    def __init__(
        self,
        order: DrawOrder,
        prepare: Callable[[Draw], Any],
        limits: PackingLimits,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        measure: Callable[[Any], ExampleSize] = size_of_row,
        give_up_after: int = 100,
    ) -> None:
        Share.of(rank, num_ranks)
        self.order = order
        self.prepare = prepare
        self.limits = limits
        self.rank = rank
        self.num_ranks = num_ranks
        self.measure = measure
        self.give_up_after = give_up_after
        self._used: dict[int, Progress] = {}
        self._last_worker: int | None = None
        self._skipped: dict[tuple[int, int], SkippedExample] = {}

    @property
    def skipped(self) -> list[SkippedExample]:
        """Broken rows of this rank, each once, up to the last recorded pack; those after the last pack of all
        are only logged.
        """
        return list(self._skipped.values())

    def __iter__(self) -> Iterator[Pack]:
        info = get_worker_info()
        num_workers = 1 if info is None else info.num_workers
        self._check_workers(num_workers)
        # The loader asks worker 0 first. After a resume the turn is that of the worker after the last one
        # used.
        first = 0 if self._last_worker is None else self._last_worker + 1
        worker = (first + (0 if info is None else info.id)) % num_workers
        return iter(_ShareReader(self, worker, num_workers, self._used.get(worker)))

    @property
    def ends(self) -> bool:
        """Whether the order has an end."""
        return self.order.end is not None

    @property
    def passes(self) -> float:
        """Passes over the data so far."""
        return max((progress.next_draw for progress in self._used.values()), default=0) / sum(
            self.order.sizes
        )

    def fingerprint(self) -> dict[str, Any]:
        """What the packs depend on; goes into JSON."""
        return {"order": self.order.fingerprint(), "limits": asdict(self.limits)}

    def record(self, progress: Sequence[Progress]) -> None:
        """Notes that the packs of these positions were trained on; in the training process, batch by batch in
        order.
        """
        for step in progress:
            self._used[step.worker] = replace(step, skipped=())
            self._last_worker = step.worker
            self._skipped.update({(skipped.source, skipped.index): skipped for skipped in step.skipped})

    def state_dict(self) -> dict[str, Any]:
        """The position of this rank after everything recorded; goes into JSON."""
        return {
            **self.fingerprint(),
            "rank": self.rank,
            "num_ranks": self.num_ranks,
            "last_worker": self._last_worker,
            "workers": [_position(progress) for progress in self._used.values()],
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after what was recorded when `state_dict` was called; iterators that run already are not
        moved.

        Raises:
            ProcessingError: the position is one of other data, other limits, or another rank or number of
                ranks.
        """
        check_order(state["order"], self.order)
        if (limits := PackingLimits(**state["limits"])) != self.limits:
            raise ProcessingError(
                f"expected the limits of the saved position, {limits}, got {self.limits}; resume with the "
                "same ones"
            )
        if (state["rank"], state["num_ranks"]) != (self.rank, self.num_ranks):
            raise ProcessingError(
                f"expected the position of rank {self.rank} of {self.num_ranks}, got that of rank "
                f"{state['rank']} of "
                f"{state['num_ranks']}; resume with as many processes as before, or see training/sampling.py"
            )
        self._used = {position["worker"]: _progress(position) for position in state["workers"]}
        self._last_worker = state["last_worker"]
        self._skipped = {(row["source"], row["index"]): SkippedExample(**row) for row in state["skipped"]}

    def go_to(self, states: Sequence[Mapping[str, Any]], num_workers: int) -> None:
        """As `load_state_dict`, from the states of all ranks; with other ranks or workers what is left is
        dealt out anew.
        """
        same = all(
            position["num_workers"] == num_workers for state in states for position in state["workers"]
        )
        if len(states) != self.num_ranks or not same:
            logger.warning(
                "another number of processes or loader workers than before: the rows that are left come in "
                "another order"
            )
            states = reshare(states, self.num_ranks, num_workers)
        self.load_state_dict(states[self.rank])

    def _check_workers(self, num_workers: int) -> None:
        for progress in self._used.values():
            if progress.num_workers != num_workers:
                raise ProcessingError(
                    f"expected {progress.num_workers} loader workers, as when the position was saved, got "
                    f"{num_workers}; "
                    "resume with as many as before (the training process itself counts as one), or see "
                    "training/sampling.py"
                )


def _position(progress: Progress) -> dict[str, Any]:
    lists = {"pool": [list(waiting) for waiting in progress.pool], "left": list(progress.left)}
    return {name: value for name, value in asdict(progress).items() if name != "skipped"} | lists


def _progress(position: Mapping[str, Any]) -> Progress:
    pool = tuple((number, since) for number, since in position["pool"])
    return Progress(**{**position, "pool": pool, "left": tuple(position["left"])})


class _ShareReader:
    """One pass of one worker: sampler, packer, and the examples in the pool by the number of their draw."""

    def __init__(self, dataset: PackedDataset, worker: int, num_workers: int, start: Progress | None) -> None:
        self.dataset = dataset
        self.worker = worker
        self.num_workers = num_workers
        self.start = start
        self.sampler = ShareSampler(
            dataset.order, Share.of(dataset.rank, dataset.num_ranks, worker, num_workers)
        )
        self.examples: dict[int, Any] = {}
        self.origins: dict[int, tuple[int, int]] = {}
        self.packer = Packer(dataset.limits)
        self.left: deque[int] = deque()
        self.skipped: list[SkippedExample] = []
        self.broken_in_a_row = 0

    def __iter__(self) -> Iterator[Pack]:
        self._resume()
        yield from self._packs()
        for draw in self._draws():
            if (size := self._prepare(draw)) is not None:
                self.packer.add(draw.number, size)
                yield from self._packs()
        yield from self._packs(flush=True)

    def _resume(self) -> None:
        """Goes where the worker was, and makes the examples that waited again."""
        if self.start is None:
            return
        self.sampler.next_draw = self.start.next_draw
        self.left.extend(self.start.left)
        sizes = [
            (number, since, self._prepare(self.dataset.order[number])) for number, since in self.start.pool
        ]
        pool = [Waiting(number, size, since) for number, since, size in sizes if size is not None]
        self.packer = Packer(self.dataset.limits, self.start.clock, pool)

    def _draws(self) -> Iterator[Draw]:
        end = self.dataset.order.end
        while self.left:
            number = self.left.popleft()
            # Shares that were through already are resharded with numbers beyond the end, which more epochs
            # would make valid.
            if end is None or number < end:
                yield self.dataset.order[number]
        yield from self.sampler

    def _packs(self, *, flush: bool = False) -> Iterator[Pack]:
        while (keys := self.packer.take(flush=flush)) is not None:
            pool = tuple((waiting.key, waiting.since) for waiting in self.packer.pool)
            progress = Progress(
                self.worker,
                self.num_workers,
                self.sampler.next_draw,
                self.packer.clock,
                pool,
                tuple(self.left),
                tuple(self.skipped),
            )
            self.skipped.clear()
            examples, origins = (
                tuple(kept.pop(key) for key in keys) for kept in (self.examples, self.origins)
            )
            yield Pack(examples, keys, progress, origins)

    def _prepare(self, draw: Draw) -> ExampleSize | None:
        """Makes an example and keeps it; None if it is broken."""
        try:
            example = self.dataset.prepare(draw)
            size = self.dataset.measure(example)
            self.dataset.limits.check(size)
        except BROKEN as error:
            self._skip(draw, error)
            return None
        self.broken_in_a_row = 0
        self.examples[draw.number] = example
        self.origins[draw.number] = (draw.source, draw.index)
        return size

    def _skip(self, draw: Draw, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:REASON_LENGTH]
        logger.warning("skipped row %d of source %d: %s", draw.index, draw.source, reason)
        self.skipped.append(SkippedExample(draw.source, draw.index, reason))
        self.broken_in_a_row += 1
        if self.broken_in_a_row >= self.dataset.give_up_after:
            raise ProcessingError(
                f"expected examples that can be prepared, got {self.broken_in_a_row} broken ones in a row, "
                f"the last one row {draw.index} "
                f"of source {draw.source} ({reason}); check the data, or raise give_up_after"
            ) from error


class PackCollator:
    """Packs to a batch: the arguments of the model's forward pass, `PROGRESS`, `ORIGINS` and `SOURCE_IDS`.

    Args:
        patch_token_id: the PATCH token, whose selections count over a row.
        pad_token_id: id at padding.
    """

    def __init__(self, patch_token_id: int, pad_token_id: int) -> None:
        self.patch_token_id = patch_token_id
        self.pad_token_id = pad_token_id

    def __call__(self, packs: Sequence[Pack]) -> dict[str, Any]:
        """(B, S) columns, pictures flat over the call; see `collate`."""
        rows = [pack(made.examples, self.patch_token_id) for made in packs]
        batch = collate(rows, self.pad_token_id)
        sources = torch.full_like(batch["input_ids"], -1)
        for made, row in zip(packs, sources, strict=True):
            lengths = torch.tensor([len(example) for example in made.examples])
            ids = torch.tensor([source for source, _ in made.origins]).repeat_interleave(lengths)
            row[: len(ids)] = ids
        progress, origins = ([getattr(made, name) for made in packs] for name in ("progress", "origins"))
        return {**batch, SOURCE_IDS: sources, PROGRESS: progress, ORIGINS: origins}
