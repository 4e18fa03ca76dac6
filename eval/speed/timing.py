"""Clocks, turns and statistics. Nothing here knows models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

Turn = dict[str, float]
"""What one run measures: name of a measure -> seconds per unit."""


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of repeated values."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarises at least one value; quartiles are interpolated between neighbours.

        Raises:
            ValueError: there is no value.
        """
        if not values:
            raise ValueError("expected at least one value to summarise, got none; run at least one turn")
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def to_dict(self, factor: float = 1.0) -> dict[str, float | int]:
        """For JSON, times a factor of units."""
        return {"median": self.median * factor, "low": self.low * factor, "high": self.high * factor, "repeats": self.count}


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Summary:
    """Ratios of what was measured in the same turn.

    Raises:
        ValueError: a different number of turns.
    """
    if len(above) != len(below):
        raise ValueError(f"expected as many turns above as below, got {len(above)} and {len(below)}")
    return Summary.of([a / b for a, b in zip(above, below, strict=True)])


def interleave(runs: Mapping[Any, Callable[[], Turn]], repeats: int, warm_up: int = 1) -> dict[Any, dict[str, list[float]]]:
    """Takes turns: every run once per turn, the order reversed in every second one.

    Args:
        runs: key -> what measures itself.
        repeats: turns that count.
        warm_up: turns before them that do not.

    Returns:
        key -> measure -> one value per turn.
    """
    values: dict[Any, dict[str, list[float]]] = {key: {} for key in runs}
    for turn in range(-warm_up, repeats):
        for key in list(runs) if turn % 2 == 0 else reversed(list(runs)):
            for measure, seconds in runs[key]().items():
                if turn >= 0:
                    values[key].setdefault(measure, []).append(seconds)
    return values


def now(device: torch.device | str = "cpu") -> float:
    """Seconds, once the device has finished what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(work: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """How long some work takes."""
    start = now(device)
    work()
    return now(device) - start


class StepClock(BaseStreamer):
    """A streamer of `generate` that only notes when tokens come: first the prompt, then one token of every row per step."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = device
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        """Called with the prompt, and after every step."""
        self.times.append(now(self.device))

    def end(self) -> None:
        """Nothing is held back."""

    @property
    def first(self) -> float:
        """Seconds from the prompt to its first token."""
        return self.times[1] - self.times[0]

    @property
    def steps(self) -> list[float]:
        """Seconds of every later step."""
        return [after - before for before, after in zip(self.times[1:], self.times[2:], strict=False)]
