"""The phases of an answer, timed in turns.

- preprocessing: a picture file's pixels to crops;
- vision: crops to image tokens (ViT and connector);
- prefill: from the prompt with its image tokens to the first token of the answer;
- decode: one token of every row per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from molmopoint.eval.speed.forced_answers import BareText, points_turn, text_turn
from molmopoint.eval.speed.subjects import Subject, picture, picture_prompt
from molmopoint.eval.speed.timing import Run, Setting, Summary, Timings, interleave, paired_ratio, seconds_of

PIXELS = ("pixel_values", "image_token_pooling")
LARGEST_BATCH_RATIO = 3.0
"""Largest cost of a step of 8 rows, in steps of one row, on the CPU."""
LARGEST_POINTING_RATIO = {"nano": 1.5, "0.1b": 1.15}
"""Largest cost of a pointing step, in steps of the bare text model, on the CPU."""

Subjects = Sequence[tuple[Subject, Setting]]
"""One model in one or two settings."""


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        batches: rows per call.
        steps: decode steps per turn.
        sizes: (width, height) of the pictures that are preprocessed.
        prompt_size: (width, height) of the picture of every prompt.
        repeats: turns.
    """

    batches: tuple[int, ...] = (1, 4, 8)
    steps: int = 32
    sizes: tuple[tuple[int, int], ...] = ((640, 480), (1920, 1080), (3840, 2160))
    prompt_size: tuple[int, int] = (640, 480)
    repeats: int = 5


@dataclass(frozen=True)
class Measurement:
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
        entry: dict[str, Any] = {
            "phase": self.phase,
            "measure": self.measure,
            "unit": self.unit,
            "batch": self.batch,
            "first": Summary.of(self.seconds[0]).to_dict(1e3),
        }
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


def measure(subjects: Subjects, plan: Plan) -> tuple[list[Measurement], list[Check]]:
    """Times all phases of one model in one or two settings, and checks the first one."""
    rows = _measure_once(subjects, plan, "preprocessing", "ms/MP", preprocessing_runs)
    rows += _measure_once(subjects, plan, "vision", "ms", vision_runs)
    rows += _measure_answers(subjects, plan)
    subject, setting = subjects[0]
    if setting.device != "cpu":
        return rows, []
    return rows, checks(subject.name, rows)


def checks(model: str, rows: Sequence[Measurement]) -> list[Check]:
    """Ratios of the first setting that have a limit."""
    steps = {(row.measure, row.batch): row.seconds[0] for row in rows if row.phase == "decode"}
    found = []
    for kind in ("pointing step", "text step"):
        if (kind, 1) in steps and (kind, 8) in steps:
            ratio = paired_ratio(steps[kind, 8], steps[kind, 1])
            found.append(Check(f"{kind}: 8 rows / 1 row", ratio, LARGEST_BATCH_RATIO))
    if model in LARGEST_POINTING_RATIO and ("pointing step", 1) in steps:
        ratio = paired_ratio(steps["pointing step", 1], steps["bare text step", 1])
        found.append(Check("pointing step / bare text step", ratio, LARGEST_POINTING_RATIO[model]))
    return found


def preprocessing_runs(subject: Subject, setting: Setting, plan: Plan) -> dict[str, Run]:
    """One run per picture size and limit of crops; seconds per megapixel of the picture."""

    def run(image: Any, crops: int) -> Timings:
        setting.activate()
        work = partial(subject.image_processor, [image], max_crops=crops, return_tensors="pt")
        megapixels = image.width * image.height / 1e6
        return {f"{image.width}x{image.height}, {crops} crops": seconds_of(work, setting) / megapixels}

    runs: dict[str, Run] = {}
    for size in plan.sizes:
        image = picture(*size)
        for crops in subject.max_crops:
            runs[f"{image.size} {crops}"] = partial(run, image, crops)
    return runs


def vision_runs(subject: Subject, setting: Setting, plan: Plan) -> dict[str, Run]:
    """ViT and connector over the crops of one prompt."""
    inputs = picture_prompt(subject, 1, *plan.prompt_size)
    pixels = {name: inputs[name] for name in PIXELS}

    def run() -> Timings:
        setting.activate()
        with torch.inference_mode():
            return {"picture": seconds_of(lambda: subject.model.get_visual_features(**pixels), setting)}

    return {"vision": run}


def seen_prompt(subject: Subject, plan: Plan, batch: int) -> dict[str, Any]:
    """Arguments of `generate` for a batch whose pictures were seen already."""
    inputs: dict[str, Any] = dict(picture_prompt(subject, batch, *plan.prompt_size))
    pixels = {name: inputs.pop(name) for name in PIXELS}
    with torch.inference_mode():
        inputs["visual_features"] = subject.model.get_visual_features(**pixels)
    return inputs


def answer_runs(subject: Subject, setting: Setting, plan: Plan) -> dict[tuple[int, str], Run]:
    """(rows, kind) -> decoding of points, beside steps of the bare text model, and prefill and decoding of
    text.
    """

    def points(inputs: dict[str, Any], bare: BareText) -> Timings:
        setting.activate()
        return points_turn(subject, setting, inputs, plan.steps, bare)

    def text(inputs: dict[str, Any]) -> Timings:
        setting.activate()
        return text_turn(subject, setting, inputs, plan.steps)

    runs: dict[tuple[int, str], Run] = {}
    for batch in plan.batches:
        inputs = seen_prompt(subject, plan, batch)
        bare = BareText(subject, setting, batch, inputs["input_ids"].shape[1])
        runs[batch, "points"] = partial(points, inputs, bare)
        runs[batch, "text"] = partial(text, inputs)
    return runs


MakeRuns = Callable[[Subject, Setting, Plan], dict[Any, Run]]


def _measure_once(subjects: Subjects, plan: Plan, phase: str, unit: str, make: MakeRuns) -> list[Measurement]:
    """Of a phase whose runs have names of their own for what they measure."""
    values = interleave(_runs_in_turn(make, subjects, plan), plan.repeats)
    by_setting: list[dict[str, list[float]]] = [{} for _ in subjects]
    for (number, _), measured in values.items():
        by_setting[number] |= measured
    rows = []
    for name in by_setting[0]:
        seconds = tuple(measured[name] for measured in by_setting)
        rows.append(Measurement(phase, name, unit, 1, seconds))
    return rows


def _measure_answers(subjects: Subjects, plan: Plan) -> list[Measurement]:
    """Prefill and decoding, by the rows of a batch."""
    values = interleave(_runs_in_turn(answer_runs, subjects, plan), plan.repeats)
    rows = []
    for number, key in values:
        if number:
            continue  # stands in the row of the first setting
        batch, _ = key
        for name in values[0, key]:
            seconds = tuple(values[i, key][name] for i in range(len(subjects)))
            if name == "prefill":
                rows.append(Measurement("prefill", "prompt", "ms", batch, seconds))
            else:
                rows.append(Measurement("decode", name, "ms", batch, seconds))
    return rows


def _runs_in_turn(make: MakeRuns, subjects: Subjects, plan: Plan) -> dict[tuple[int, Any], Run]:
    """(number of the setting, key) -> run, those of equal keys next to each other: what is compared follows
    directly.
    """
    of_settings = [make(subject, setting, plan) for subject, setting in subjects]
    runs: dict[tuple[int, Any], Run] = {}
    for key in of_settings[0]:
        for number, of_setting in enumerate(of_settings):
            runs[number, key] = of_setting[key]
    return runs
