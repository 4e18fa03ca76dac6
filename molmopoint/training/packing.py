"""Which examples share a row: sizes in, packs out.

A pool of examples waits. Once it is full, the subset that is worth most within the limits leaves it: an exact
0/1 knapsack over tokens and crops, where an example is worth its tokens plus its crops times a weight, so
that examples with many crops,
which are hard to place, leave early. What a packer does next follows from its pool and its clock alone: that
is its state.

Lengths are rounded up to units and the limits down, so a pack never exceeds a limit.

Source: public Molmo2 training code; of ours are the longest stay, the limits rounded down and the flush at
the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from molmopoint.errors import ProcessingError

UNITS = 512
"""A limit is divided into at least this many units, and into fewer than twice as many."""


@dataclass(frozen=True)
class ExampleSize:
    """What an example takes up in a row: tokens, and crops or frames."""

    tokens: int
    crops: int = 0


@dataclass(frozen=True)
class PackingLimits:
    """How rows are filled.

    Attributes:
        max_tokens: of a row.
        max_crops: crops and frames of a row.
        pool_size: examples that wait at most, and candidates of a full pool; memory and time grow with it.
        crop_weight: value of a crop in tokens; 1 in the published pre-training, 30 in fine-tuning, 10 for
            screens.
        max_stay: an example leaves at the latest when this many others came after it.
        alone_at_max_crops: an example with `max_crops` crops gets a row of its own, though there may be room
            for text.

    Raises:
        ProcessingError: a value that packs nothing.
    """

    max_tokens: int
    max_crops: int
    pool_size: int = 48
    crop_weight: float = 30.0
    max_stay: int = 512
    alone_at_max_crops: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("max_tokens", 1),
            ("max_crops", 0),
            ("pool_size", 1),
            ("crop_weight", 0),
            ("max_stay", self.pool_size),
        ):
            if getattr(self, name) < least:
                raise ProcessingError(
                    f"expected {name} of at least {least}, got {getattr(self, name)}; {_HELP[name]}"
                )

    def check(self, size: ExampleSize) -> None:
        """Refuses an example that no row can hold.

        Raises:
            ProcessingError: no tokens, or more tokens or crops than a row has.
        """
        if size.tokens < 1 or size.crops < 0:
            raise ProcessingError(
                f"expected an example of one or more tokens, got {size}; leave empty examples out"
            )
        if size.tokens > self.max_tokens:
            raise ProcessingError(
                f"expected an example of at most {self.max_tokens} tokens, got {size.tokens}; "
                "raise max_tokens, use fewer crops or frames, or split its questions over several rows"
            )
        if size.crops > self.max_crops:
            raise ProcessingError(
                f"expected an example of at most {self.max_crops} crops and frames, got {size.crops}; raise "
                "max_crops or use fewer"
            )

    def fills_a_row(self, size: ExampleSize) -> bool:
        """Whether nothing else goes into a row with this example."""
        units, capacity = self.in_units(size), self.capacity
        no_room = units[0] >= capacity[0] or units[1] > capacity[1]
        return no_room or (self.alone_at_max_crops and size.crops >= self.max_crops > 0)

    def in_units(self, size: ExampleSize) -> tuple[int, int]:
        """Tokens and crops in units, rounded up."""
        return -(-size.tokens // _unit(self.max_tokens)), -(-size.crops // _unit(self.max_crops))

    @property
    def capacity(self) -> tuple[int, int]:
        """Units of tokens and of crops in a row, rounded down."""
        return self.max_tokens // _unit(self.max_tokens), self.max_crops // _unit(self.max_crops)

    def value(self, size: ExampleSize) -> float:
        """What an example in a row is worth."""
        return size.tokens + size.crops * self.crop_weight


_HELP = {
    "max_tokens": "it is the length of a row",
    "max_crops": "it is 0 for text alone",
    "pool_size": "1 packs nothing, 48 is a good size",
    "crop_weight": "30 is a good weight",
    "max_stay": "the pool fills up within pool_size examples, and only then is there a choice",
}


def _unit(limit: int) -> int:
    return max(1, limit // UNITS)


@dataclass(frozen=True)
class Waiting:
    """An example in the pool.

    Attributes:
        key: the caller's number for it.
        size: what it takes up.
        since: clock of the packer when it came.
    """

    key: int
    size: ExampleSize
    since: int


class Packer:
    """A pool of examples from which packs are taken.

        packer.add(key, size)
        while (pack := packer.take()) is not None: ...      nothing is due: add the next example
        while (pack := packer.take(flush=True)) is not None: ...      after the last example

    Whoever calls `take` until it gives None after every `add` never has more than `pool_size` examples
    waiting, and none of them longer than `max_stay` additions.

    Attributes:
        limits: how rows are filled.
        clock: examples added so far.
        pool: examples that wait, oldest first.
    """

    def __init__(self, limits: PackingLimits, clock: int = 0, pool: Sequence[Waiting] = ()) -> None:
        self.limits = limits
        self.clock = clock
        self.pool = list(pool)

    def add(self, key: int, size: ExampleSize) -> None:
        """Puts an example into the pool.

        Raises:
            ProcessingError: it is larger than a row; the packer is unchanged.
        """
        self.limits.check(size)
        self.clock += 1
        self.pool.append(Waiting(key, size, self.clock))

    def take(self, *, flush: bool = False) -> tuple[int, ...] | None:
        """Keys of the next pack, in the order in which they came; None while it is better to wait.

        Args:
            flush: no more examples will come, so there is nothing to wait for.
        """
        chosen = self._choose(flush)
        if chosen is None:
            return None
        pack = tuple(self.pool[i].key for i in chosen)
        left = set(range(len(self.pool))).difference(chosen)
        self.pool = [self.pool[i] for i in sorted(left)]
        return pack

    def _choose(self, flush: bool) -> list[int] | None:
        if not self.pool:
            return None
        sizes = [waiting.size for waiting in self.pool]
        for i, size in enumerate(sizes):
            if self.limits.fills_a_row(size):
                return [i]
        if self.clock - self.pool[0].since >= self.limits.max_stay:
            return best_subset(sizes, self.limits, required=0)
        if flush or len(sizes) >= self.limits.pool_size:
            return best_subset(sizes, self.limits)
        return None


def best_subset(
    sizes: Sequence[ExampleSize], limits: PackingLimits, required: int | None = None
) -> list[int]:
    """The examples worth most that fit into one row together.

    Exact for sizes in units; between subsets of one value it prefers the earlier examples.

    Args:
        sizes: of the candidates, each of which fits into a row.
        limits: of the row, and the value of crops.
        required: one candidate that has to be in.

    Returns:
        Ascending indices into `sizes`, at least one if there is a candidate.
    """
    units = [limits.in_units(size) for size in sizes]
    max_tokens, max_crops = limits.capacity
    chosen = [] if required is None else [required]
    for i in chosen:
        max_tokens, max_crops = max_tokens - units[i][0], max_crops - units[i][1]
    rest = [
        i
        for i in range(len(sizes))
        if i != required and units[i][0] <= max_tokens and units[i][1] <= max_crops
    ]
    values = [limits.value(sizes[i]) for i in rest]
    chosen += [rest[i] for i in _knapsack([units[i] for i in rest], values, max_tokens, max_crops)]
    return sorted(chosen)


def _knapsack(
    units: Sequence[tuple[int, int]], values: Sequence[float], max_tokens: int, max_crops: int
) -> list[int]:
    """Dynamic programme over (item, tokens, crops), vectorised over the last two.

    `best[t, c]` is the largest value of the items so far within t and c units; `taken[i, t, c]` tells whether
    it has item i.
    """
    # No subset needs more than all of them together: small pools have small tables.
    max_tokens = min(max_tokens, sum(tokens for tokens, _ in units))
    max_crops = min(max_crops, sum(crops for _, crops in units))
    best = np.zeros((max_tokens + 1, max_crops + 1))
    taken = np.zeros((len(units), max_tokens + 1, max_crops + 1), dtype=bool)
    for i, ((tokens, crops), value) in enumerate(zip(units, values, strict=True)):
        without = best[tokens:, crops:]
        including = best[: max_tokens + 1 - tokens, : max_crops + 1 - crops] + value
        better = np.greater(including, without, out=taken[i, tokens:, crops:])
        np.copyto(without, including, where=better)
    chosen = []
    for i in reversed(range(len(units))):
        if taken[i, max_tokens, max_crops]:
            chosen.append(i)
            max_tokens, max_crops = max_tokens - units[i][0], max_crops - units[i][1]
    return chosen
