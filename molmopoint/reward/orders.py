"""Which answers are judged together, and in which order; and one score per answer from several lists.

In causal attention an answer is judged by those before it, so scores depend on the order. Judged in several orders, each answer
visits each place; the mean of every list is taken off first, because only differences within a list mean something.

Long lists are judged in chunks that share one answer, the anchor: what an answer scores above the anchor of its chunk can be
compared across chunks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np


def orders(count: int, wanted: int) -> list[list[int]]:
    """The first `wanted` of all orders of `count` answers, or all of them if there are fewer: as given, its cyclic shifts, then others.

    The others are drawn at random, the same ones every time.
    """
    wanted = min(wanted, math.factorial(min(count, 12)))
    found = [[(start + i) % count for i in range(count)] for start in range(min(count, wanted))]
    rng = random.Random(count)
    seen = {tuple(order) for order in found}
    while len(found) < wanted:
        order = rng.sample(range(count), count)
        if tuple(order) not in seen:
            seen.add(tuple(order))
            found.append(order)
    return found


def chunks(count: int, size: int) -> list[list[int]]:
    """Answers in chunks of at most `size`, of nearly equal length; the first answer, the anchor, stands in each of them.

    There are ceil((count - 1) / (size - 1)) chunks, one if all answers fit.
    """
    if count <= size:
        return [list(range(count))]
    parts = np.array_split(np.arange(1, count), math.ceil((count - 1) / (size - 1)))
    return [[0, *part.tolist()] for part in parts]


def combine(count: int, lists: Sequence[Sequence[int]], scores: Sequence[np.ndarray]) -> np.ndarray:
    """One score (count,) per answer.

    Args:
        count: of answers.
        lists: the answers of each list; every answer is in one of them.
        scores: (n,) of each list, in its order.

    Returns:
        The scores of a single list as they are. Of several lists the means, where each list was shifted to mean zero; if they do not hold
        the same answers, each was shifted so that the first answer, the anchor, scores zero.
    """
    if len(lists) == 1:
        return np.asarray(scores[0])[np.argsort(lists[0])]
    anchored = any(len(each) < count for each in lists)
    total, times = np.zeros(count), np.zeros(count)
    for each, values in zip(lists, scores, strict=True):
        places = np.asarray(each)
        total[places] += values - (values[list(each).index(0)] if anchored else values.mean())
        times[places] += 1
    return total / times
