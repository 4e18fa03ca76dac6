"""The orders in which a reward model sees the responses to one prompt, and what it says about them.

A model that reads all responses together may like some slots better than others. So every item is scored several times, each
response standing in each slot once, and the order of every pass is kept with its scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import factorial

import numpy as np


@dataclass(frozen=True)
class ScoredPass:
    """One look of a model at all responses. Letter: N responses.

    Attributes:
        order: (N,) the response in each slot, counted from 0 as the data has them.
        scores: (N,) by response, not by slot; higher is better.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]


def orders_of(item_id: str, num_responses: int, passes: int | None = None) -> list[tuple[int, ...]]:
    """Orders for the responses of an item, the same ones every time.

    The first one is drawn by chance, so that no habit of the data's authors (the better response first) tells anything. Those
    after it are its rotations, so that N passes put every response into every slot once: both orders of a pair. Then come other
    orders with their rotations, as long as there are new ones.

    Args:
        item_id: decides the draw.
        num_responses: N.
        passes: how many; None for N of them.
    """
    return list(islice(_orders(item_id, num_responses), num_responses if passes is None else passes))


def _orders(item_id: str, num_responses: int) -> Iterator[tuple[int, ...]]:
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big"))
    seen: set[tuple[int, ...]] = set()
    while len(seen) < factorial(num_responses):
        first = tuple(int(i) for i in rng.permutation(num_responses))
        if first in seen:
            continue
        for shift in range(num_responses):
            order = first[shift:] + first[:shift]
            seen.add(order)
            yield order
