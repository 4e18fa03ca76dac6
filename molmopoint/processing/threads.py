"""Several pictures at a time on the cores of a processor.

Pillow and torch let other threads run while they work on pixels. The results are those of one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch.utils.data import get_worker_info

MOST_THREADS = 8
"""Pictures that are open at the same time at most: each takes memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], *, threads_each: int = 1
) -> list[Result]:
    """What `work` makes of each item, in their order; the first error in that order is raised.

    Args:
        work: called with one item, perhaps in another thread.
        items: what to work on.
        threads_each: threads that the work of one item keeps busy itself.
    """
    # A worker that loads data has its core for itself alone.
    is_alone = get_worker_info() is not None
    workers = 1 if is_alone else min(len(items), _cores() // threads_each, MOST_THREADS)
    if workers < 2:
        return [work(item) for item in items]
    # Modes of torch belong to a thread; tensors made in one may not be written outside of it.
    is_inference = torch.is_inference_mode_enabled()

    def in_mode(item: Item) -> Result:
        with torch.inference_mode(is_inference):
            return work(item)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(in_mode, items))


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
