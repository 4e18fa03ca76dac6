"""A saved position for another number of ranks or loader workers: every row still comes exactly once, in another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from molmopoint.errors import ProcessingError
from molmopoint.training.sampling import Share


def reshare(states: Sequence[Mapping[str, Any]], num_ranks: int, num_workers: int) -> list[dict[str, Any]]:
    """Divides what is left of a run among other processes.

    Up to the furthest draw any worker has looked at, what was not trained on is dealt out; from there on each worker takes
    every so-many-th as usual. Examples that waited in a pool start waiting anew.

    Args:
        states: `PackedDataset.state_dict` of all ranks of the run.
        num_ranks: of the new run.
        num_workers: loader workers per rank of the new run, at least 1: the training process itself counts as one.

    Returns:
        The state for each new rank.

    Raises:
        ProcessingError: not one state of each rank of one run, or no worker.
    """
    old = _check_complete(states)
    count = Share.of(0, num_ranks, 0, num_workers).count
    frontier = max(next_draw for next_draw, _ in old)
    left = sorted(number for next_draw, waiting in old for number in (*waiting, *range(next_draw, frontier, len(old))))
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
        raise ProcessingError(f"expected the saved positions of {expected} ranks, one each, got those of ranks {ranks}; gather all of them")
    if any((state["order"], state["limits"]) != (states[0]["order"], states[0]["limits"]) for state in states):
        raise ProcessingError("expected saved positions of one run, got different data or limits; gather those of one checkpoint")
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
                shares.append((position["next_draw"], [number for number, _ in position["pool"]] + position["left"]))
    return shares
