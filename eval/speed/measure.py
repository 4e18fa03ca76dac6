"""Runs the phases in turns and turns their seconds into rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from molmopoint.eval.speed import phases
from molmopoint.eval.speed.models import Subject
from molmopoint.eval.speed.phases import Plan
from molmopoint.eval.speed.settings import Setting
from molmopoint.eval.speed.timing import Summary, interleave, paired_ratio

LARGEST_BATCH_RATIO = 3.0
"""Largest cost of a step of 8 rows, in steps of one row, on the CPU."""
LARGEST_POINTING_RATIO = {"nano": 1.5, "0.1b": 1.15}
"""Largest cost of a pointing step, in steps of the bare text model, on the CPU."""


@dataclass(frozen=True)
class Row:
    """One measure of one model.

    Attributes:
        phase, measure, unit: what was measured; the unit is "ms" or "ms/MP".
        batch: rows of the call.
        seconds: per unit, one value per turn and setting.
    """

    phase: str
    measure: str
    unit: str
    batch: int
    seconds: tuple[Sequence[float], ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, in milliseconds; with two settings also the second and its ratio to the first."""
        entry: dict[str, Any] = {"phase": self.phase, "measure": self.measure, "unit": self.unit, "batch": self.batch}
        entry["first"] = Summary.of(self.seconds[0]).to_dict(1e3)
        if len(self.seconds) == 2:
            entry["second"] = Summary.of(self.seconds[1]).to_dict(1e3)
            entry["ratio"] = paired_ratio(self.seconds[1], self.seconds[0]).to_dict()
        return entry


@dataclass(frozen=True)
class Check:
    """A ratio with a limit."""

    name: str
    ratio: Summary
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the median is within the limit."""
        return self.ratio.median <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "ratio": self.ratio.to_dict(), "limit": self.limit, "holds": self.holds}


def measure(subjects: Sequence[tuple[Subject, Setting]], plan: Plan) -> tuple[list[Row], list[Check]]:
    """Times all phases of one model in one or two settings, and checks the first one."""
    rows: list[Row] = []
    for phase, unit, make in (("preprocessing", "ms/MP", phases.preprocessing_runs), ("vision", "ms", phases.vision_runs)):
        values = interleave(_by_turn(_runs_of(make, subjects, plan)), plan.repeats)
        merged = [_merged(values, i) for i in range(len(subjects))]
        rows += [Row(phase, name, unit, 1, tuple(m[name] for m in merged)) for name in merged[0]]
    values = interleave(_by_turn(_runs_of(phases.answer_runs, subjects, plan)), plan.repeats)
    for index, key in [place for place in values if place[0] == 0]:
        for name in values[index, key]:
            phase = "prefill" if name == "prefill" else "decode"
            seconds = tuple(values[i, key][name] for i in range(len(subjects)))
            rows.append(Row(phase, "prompt" if phase == "prefill" else name, "ms", key[0], seconds))
    subject, setting = subjects[0]
    return rows, checks(subject.name, rows) if setting.device == "cpu" else []


def checks(model: str, rows: Sequence[Row]) -> list[Check]:
    """Ratios of the first setting that have a limit."""
    steps = {(row.measure, row.batch): row.seconds[0] for row in rows if row.phase == "decode"}
    found = []
    for kind in ("pointing step", "text step"):
        if (kind, 1) in steps and (kind, 8) in steps:
            found.append(Check(f"{kind}: 8 rows / 1 row", paired_ratio(steps[kind, 8], steps[kind, 1]), LARGEST_BATCH_RATIO))
    if model in LARGEST_POINTING_RATIO and ("pointing step", 1) in steps:
        ratio = paired_ratio(steps["pointing step", 1], steps["bare text step", 1])
        found.append(Check("pointing step / bare text step", ratio, LARGEST_POINTING_RATIO[model]))
    return found


def _runs_of(make: Callable[..., dict[Any, phases.Run]], subjects: Sequence[tuple[Subject, Setting]], plan: Plan) -> dict[Any, phases.Run]:
    """(number of the setting, key) -> run."""
    return {(i, key): run for i, (subject, setting) in enumerate(subjects) for key, run in make(subject, setting, plan).items()}


def _by_turn(runs: dict[tuple[int, Any], Any]) -> dict[tuple[int, Any], Any]:
    """The same runs, those of equal keys next to each other: what is compared follows directly."""
    order = {key: place for place, key in enumerate(dict.fromkeys(key for _, key in runs))}
    return dict(sorted(runs.items(), key=lambda item: (order[item[0][1]], item[0][0])))


def _merged(values: Mapping[tuple[int, Any], dict[str, list[float]]], index: int) -> dict[str, list[float]]:
    return {name: seconds for (i, _), measured in values.items() if i == index for name, seconds in measured.items()}
