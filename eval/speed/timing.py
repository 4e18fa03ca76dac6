"""How something is timed: settings of a measurement, clocks, turns and statistics. Nothing here knows models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("float32", "bfloat16", "float16"),
    "attn": ("sdpa", "eager", "flex_attention", "flash_attention_2"),
    "cache": ("dynamic", "static", "compiled"),
    "clock": ("wall", "processor"),
}


@dataclass(frozen=True)
class Setting:
    """One way to run a model.

    Attributes:
        device: as torch names it.
        dtype: of weights and activations.
        attn: attention backend of the text model.
        threads: of torch, on the CPU.
        cache: "dynamic", "static", or "compiled": steps are graphs, as with `load(..., compile=True)`.
        clock: "wall", or "processor": processor time of all threads, which other processes on a busy machine
            do not lengthen.
    """

    device: str = "cpu"
    dtype: str = "float32"
    attn: str = "sdpa"
    threads: int = 1
    cache: str = "dynamic"
    clock: str = "wall"

    def __post_init__(self) -> None:
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise ValueError(f"expected {name} {' or '.join(options)}, got {getattr(self, name)!r}")
        if self.clock == "processor" and self.device != "cpu":
            raise ValueError(
                f"expected clock=wall on {self.device}, got processor; its work takes no processor time"
            )
        if self.threads < 1:
            raise ValueError(f"expected at least 1 thread, got {self.threads}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch has it."""
        return getattr(torch, self.dtype)

    def changed(self, text: str) -> Setting:
        """This setting with the changes of a text such as "dtype=bfloat16,threads=2".

        Raises:
            ValueError: the text is not of that form, or names something that cannot be set.
        """
        names = [field.name for field in fields(self)]
        changes: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not value or name not in names:
                raise ValueError(
                    f"expected changes such as dtype=bfloat16,threads=2 of {', '.join(names)}, got "
                    f"{part.strip()!r}"
                )
            if name == "threads" and not value.isdigit():
                raise ValueError(f"expected a number of threads, got {value!r}")
            changes[name] = int(value) if name == "threads" else value
        return replace(self, **changes)

    def activate(self) -> None:
        """Sets what is global in torch."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)

    def generate_arguments(self) -> dict[str, Any]:
        """Arguments of `generate` for the cache."""
        if self.cache == "static":
            return {"cache_implementation": "static", "disable_compile": True}
        return {}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


Timings = dict[str, float]
"""What one run measures: name of a measure -> seconds per unit."""

Run = Callable[[], Timings]
"""Something that measures itself."""


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
        return {
            "median": self.median * factor,
            "low": self.low * factor,
            "high": self.high * factor,
            "repeats": self.count,
        }


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Summary:
    """Ratios of what was measured in the same turn.

    Raises:
        ValueError: a different number of turns.
    """
    if len(above) != len(below):
        raise ValueError(f"expected as many turns above as below, got {len(above)} and {len(below)}")
    return Summary.of([a / b for a, b in zip(above, below, strict=True)])


def interleave(runs: Mapping[Any, Run], repeats: int, warm_up: int = 1) -> dict[Any, dict[str, list[float]]]:
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
        keys = list(runs)
        if turn % 2:
            keys.reverse()
        for key in keys:
            timings = runs[key]()
            if turn < 0:
                continue
            for measure, seconds in timings.items():
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
