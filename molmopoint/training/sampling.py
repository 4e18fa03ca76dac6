"""Which row of the data comes when: an endless, numbered order that anybody can ask for any draw.

Draw n is a function of the seed and n alone. With S shares (ranks times loader workers), share s takes the
draws s, s + S, s + 2 S and so on. So nothing is sent between processes, everything comes once, and a position
in the order is one integer.

A saved position for another number of ranks or loader workers: every row still comes exactly once, in another
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from molmopoint.errors import ProcessingError

BLOCK = 4096
"""Draws of a mixture that are made at once."""

_ROWS, _SOURCES = 0, 1
"""Names of the random streams: the order of rows, and the choice of sources."""


@dataclass(frozen=True)
class Draw:
    """A row of the data at its place in the order.

    Attributes:
        number: place in the order, from 0.
        source: which source.
        index: which row of it.
        epoch: how often the order has been through it before.
    """

    number: int
    source: int
    index: int
    epoch: int

    def generator(self) -> np.random.Generator:
        """Randomness for making the example; the same for a row and an epoch, whatever the seed, the ranks
        and the workers.
        """
        return np.random.default_rng([self.source, self.index, self.epoch])


class DrawOrder:
    """All draws from one or more sources, in an order that depends on the seed alone.

    Without rates the sources are one heap: every epoch is a permutation of all rows. With rates each draw
    chooses a source first, and every source is gone through by permutations of its own, so that its rows come
    equally often.

    Args:
        sizes: rows of each source.
        rates: share of the draws each source gets, in any unit; None draws every row equally often.
        seed: of the order.
        epochs: times every row comes, after which the order ends; None for an endless one.

    Raises:
        ProcessingError: an empty source, rates that do not fit the sources, or a number of epochs for a
            mixture.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        rates: Sequence[float] | None = None,
        *,
        seed: int = 0,
        epochs: int | None = None,
    ) -> None:
        _check(sizes, rates, seed, epochs)
        self.sizes = tuple(int(size) for size in sizes)
        self.rates = None if rates is None else tuple(float(rate) for rate in rates)
        self.seed = seed
        self.epochs = epochs
        self._ends = np.cumsum(self.sizes)
        self._thresholds = np.cumsum(rates or [1.0]) / np.sum(rates or [1.0])
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}
        self._block = -1
        self._clear_block()

    @property
    def end(self) -> int | None:
        """Number of draws, None if there is no end."""
        return None if self.epochs is None else self.epochs * int(self._ends[-1])

    def __getitem__(self, number: int) -> Draw:
        """The draw of this number; cheapest in ascending order.

        Raises:
            IndexError: before the first or beyond the last draw.
        """
        if number < 0 or (self.end is not None and number >= self.end):
            raise IndexError(f"expected a draw from 0 to below {self.end}, got {number}")
        if self.rates is None:
            epoch, place = divmod(number, int(self._ends[-1]))
            row = int(self._permutation(0, epoch, int(self._ends[-1]))[place])
            source = int(np.searchsorted(self._ends, row, side="right"))
            return Draw(number, source, row - int(self._ends[source]) + self.sizes[source], epoch)
        self._go_to_block(number // BLOCK)
        source = int(self._choices[number % BLOCK])
        epoch, place = divmod(int(self._places[number % BLOCK]), self.sizes[source])
        return Draw(number, source, int(self._permutation(source, epoch, self.sizes[source])[place]), epoch)

    def fingerprint(self) -> dict[str, Any]:
        """What the order depends on, for comparing a saved position with the data at hand; goes into JSON."""
        return {
            "sizes": list(self.sizes),
            "rates": None if self.rates is None else list(self.rates),
            "seed": self.seed,
        }

    def __getstate__(self) -> dict[str, Any]:
        # Workers make their own permutations: those of a large source are larger than everything else that is
        # sent to them.
        return self.__dict__ | {"_permutations": {}}

    def _permutation(self, source: int, epoch: int, size: int) -> np.ndarray:
        known = self._permutations.get(source)
        if known is None or known[0] != epoch:
            known = epoch, np.random.default_rng([self.seed, _ROWS, source, epoch]).permutation(size)
            self._permutations[source] = known
        return known[1]

    def _clear_block(self) -> None:
        self._block = -1
        self._drawn_before = np.zeros(len(self.sizes), dtype=np.int64)
        self._choices = np.zeros(0, dtype=np.int64)
        self._places = np.zeros(0, dtype=np.int64)

    def _go_to_block(self, block: int) -> None:
        """Makes the choices of a block; how often each source came before is counted from the block at hand,
        or from the start.
        """
        if block < self._block:
            self._clear_block()
        while self._block < block:
            self._drawn_before += np.bincount(self._choices, minlength=len(self.sizes))
            self._block += 1
            values = np.random.default_rng([self.seed, _SOURCES, self._block]).random(BLOCK)
            # Rounding may leave the last threshold below 1.
            self._choices = np.minimum(
                np.searchsorted(self._thresholds, values, side="right"), len(self.sizes) - 1
            )
        self._places = np.empty(BLOCK, dtype=np.int64)
        for source in range(len(self.sizes)):
            mine = self._choices == source
            self._places[mine] = self._drawn_before[source] + np.arange(int(mine.sum()))


def _check(sizes: Sequence[int], rates: Sequence[float] | None, seed: int, epochs: int | None) -> None:
    if not sizes or min(sizes) < 1:
        raise ProcessingError(
            f"expected one or more sources of one or more rows, got sizes {list(sizes)}; leave empty "
            "sources out"
        )
    if seed < 0:
        raise ProcessingError(f"expected a seed of at least 0, got {seed}; choose another")
    if epochs is not None and epochs < 1:
        raise ProcessingError(f"expected one or more epochs, or None for an endless order, got {epochs}")
    if rates is None:
        return
    if len(rates) != len(sizes) or not all(0 < rate < float("inf") for rate in rates):
        raise ProcessingError(
            f"expected {len(sizes)} rates above 0, one for each source, got {list(rates)}; leave out "
            "sources that are not to be drawn"
        )
    if epochs is not None:
        raise ProcessingError(
            f"expected no epochs for a mixture with rates, got {epochs}; limit the training steps instead"
        )


@dataclass(frozen=True)
class Share:
    """Which part of the draws a loader worker makes.

    Attributes:
        index: of this worker among all workers of all ranks.
        count: of all of them.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, rank: int = 0, num_ranks: int = 1, worker: int = 0, num_workers: int = 1) -> Share:
        """The share of a worker of a rank.

        Raises:
            ProcessingError: a rank or worker that does not exist.
        """
        if not (0 <= rank < num_ranks and 0 <= worker < num_workers):
            raise ProcessingError(
                f"expected a rank below {num_ranks} and a worker below {num_workers}, got rank {rank} and "
                f"worker {worker}; count from 0"
            )
        return cls(rank * num_workers + worker, num_ranks * num_workers)


class ShareSampler:
    """The draws of one share, one after the other, from wherever it was left.

    Args:
        order: all draws.
        share: which of them.

    Attributes:
        next_draw: number of the draw that comes next; set it to go somewhere else in the share.
    """

    def __init__(self, order: DrawOrder, share: Share | None = None) -> None:
        self.order = order
        self.share = share or Share()
        self.next_draw = self.share.index

    def __iter__(self) -> Iterator[Draw]:
        return self

    def __next__(self) -> Draw:
        if self.order.end is not None and self.next_draw >= self.order.end:
            raise StopIteration
        draw = self.order[self.next_draw]
        self.next_draw += self.share.count
        return draw

    def state_dict(self) -> dict[str, Any]:
        """The position, with what it is a position in; goes into JSON."""
        return {
            "next_draw": self.next_draw,
            "share": [self.share.index, self.share.count],
            "order": self.order.fingerprint(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called.

        Raises:
            ProcessingError: the position is one of other data, another seed, other rates or another share.
        """
        check_order(state["order"], self.order)
        if list(state["share"]) != [self.share.index, self.share.count]:
            raise ProcessingError(
                f"expected a position of share {self.share.index} of {self.share.count}, got one of share "
                f"{state['share'][0]} of "
                f"{state['share'][1]}; resume with as many ranks and workers as before"
            )
        self.next_draw = int(state["next_draw"])


def check_order(saved: Mapping[str, Any], order: DrawOrder) -> None:
    """Whether a saved position belongs to this order; the number of epochs may have changed.

    Raises:
        ProcessingError: it does not.
    """
    now = order.fingerprint()
    if changed := [
        f"{name} {saved.get(name)}, now {value}" for name, value in now.items() if saved.get(name) != value
    ]:
        raise ProcessingError(
            f"expected the data the saved position was made with, got another order: {'; '.join(changed)}; "
            "resume with the same data, rates and seed, or start anew"
        )


def reshare(states: Sequence[Mapping[str, Any]], num_ranks: int, num_workers: int) -> list[dict[str, Any]]:
    """Divides what is left of a run among other processes.

    Up to the furthest draw any worker has looked at, what was not trained on is dealt out; from there on each
    worker takes every so-many-th as usual. Examples that waited in a pool start waiting anew.

    Args:
        states: `PackedDataset.state_dict` of all ranks of the run.
        num_ranks: of the new run.
        num_workers: loader workers per rank of the new run, at least 1: the training process itself counts as
            one.

    Returns:
        The state for each new rank.

    Raises:
        ProcessingError: not one state of each rank of one run, or no worker.
    """
    old = _check_complete(states)
    count = Share.of(0, num_ranks, 0, num_workers).count
    frontier = max(next_draw for next_draw, _ in old)
    left = sorted(
        number for next_draw, waiting in old for number in (*waiting, *range(next_draw, frontier, len(old)))
    )
    shared = {name: states[0][name] for name in ("order", "limits")}
    return [
        {
            **shared,
            "rank": rank,
            "num_ranks": num_ranks,
            "last_worker": None,
            "workers": [
                {
                    "worker": worker,
                    "num_workers": num_workers,
                    "next_draw": frontier + share,
                    "clock": 0,
                    "pool": [],
                    "left": left[share::count],
                }
                for worker, share in enumerate(range(rank * num_workers, (rank + 1) * num_workers))
            ],
            "skipped": [skipped for state in states for skipped in state["skipped"]] if rank == 0 else [],
        }
        for rank in range(num_ranks)
    ]


def _check_complete(states: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[int]]]:
    """For each share of the old run the next draw, and the draws before it that were not trained on."""
    ranks = [state["rank"] for state in states]
    if not states or sorted(ranks) != list(range(states[0]["num_ranks"])):
        expected = states[0]["num_ranks"] if states else "one or more"
        raise ProcessingError(
            f"expected the saved positions of {expected} ranks, one each, got those of ranks {ranks}; "
            "gather all of them"
        )
    if any(
        (state["order"], state["limits"]) != (states[0]["order"], states[0]["limits"]) for state in states
    ):
        raise ProcessingError(
            "expected saved positions of one run, got different data or limits; gather those of one "
            "checkpoint"
        )
    positions = {(state["rank"], worker["worker"]): worker for state in states for worker in state["workers"]}
    # Nothing was recorded anywhere: any number of workers is the right one.
    num_workers = max((worker["num_workers"] for worker in positions.values()), default=1)
    shares = []
    for rank in range(len(states)):
        for worker in range(num_workers):
            position = positions.get((rank, worker))
            if position is None:  # it has not given a pack yet
                shares.append((rank * num_workers + worker, []))
            else:
                shares.append(
                    (position["next_draw"], [number for number, _ in position["pool"]] + position["left"])
                )
    return shares
