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

from molmopoint.eval.speed.settings import Setting

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


def now(setting: Setting) -> float:
    """Seconds on the clock of a setting, once its device has finished what it was given."""
    if setting.device.startswith("cuda"):
        torch.cuda.synchronize(setting.device)
    return time.perf_counter() if setting.clock == "wall" else time.process_time()


def seconds_of(work: Callable[[], object], setting: Setting) -> float:
    """How long some work takes."""
    start = now(setting)
    work()
    return now(setting) - start


class StepClock(BaseStreamer):
    """A streamer of `generate` that only notes when tokens come: first the prompt, then one token of every
    row per step.

    Args:
        setting: clock and device.
        between: called with the number of tokens so far before the clock goes on; its time does not count.
    """

    def __init__(self, setting: Setting, between: Callable[[int], None]) -> None:
        self.setting, self.between = setting, between
        self.ends: list[float] = []
        self.starts: list[float] = []
        self.rows: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        """Called with the prompt, and after every step."""
        self.ends.append(now(self.setting))
        self.rows.append(value)
        self.between(len(self.ends) - 1)
        self.starts.append(now(self.setting))

    def end(self) -> None:
        """Nothing is held back."""

    @property
    def tokens(self) -> Tensor:
        """(B, tokens) extended ids of the answers."""
        return torch.stack(self.rows[1:], 1)

    @property
    def first(self) -> float:
        """Seconds from the prompt to its first token."""
        return self.ends[1] - self.starts[0]

    @property
    def steps(self) -> list[float]:
        """Seconds of every later step."""
        return [end - start for start, end in zip(self.starts[1:], self.ends[2:], strict=False)]
