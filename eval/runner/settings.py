"""How a benchmark asks in one run: its own settings, with changes, for one model; and what a manifest says of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from numbers import Integral
from typing import Any

from molmopoint.backends.options import fill_template
from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Benchmark, GenerationSettings, Item
from molmopoint.eval.runner.data import BenchmarkData
from molmopoint.files import max_picture_pixels

STEERABLE = ("drawn", "text", "none")
"""Ways of telling the point that a question of Point-Bench refers to."""

_LEAST_AREA = 28 * 28
"""Pixels of a picture with one image token."""

_LATER_SETTINGS = {
    "orders": None,
    "sample_mode": "uniform_last_frame",
    "min_crops": None,
    "steerable": None,
    "zoom": False,
    "picture_area": None,
}
"""Settings that were added later, with the values that stand for how it was before."""


def check_rule(benchmark: Benchmark, rule: str | None) -> str:
    """The rule to score by.

    Raises:
        EvaluationError: the benchmark has no such rule.
    """
    if rule is None:
        return benchmark.rules[0]
    if rule not in benchmark.rules:
        raise EvaluationError(
            f"expected one of the rules of {benchmark.name}, {', '.join(benchmark.rules)}, got {rule!r}"
        )
    return rule


def changed_settings(
    benchmark: Benchmark, changes: Mapping[str, Any], spelled: Callable[[str], str] = str
) -> GenerationSettings:
    """How a benchmark asks, with changes; those that would change nothing are refused.

    Args:
        benchmark: to be run.
        changes: value by field of `GenerationSettings`; None leaves it as it is.
        spelled: how a field is written in messages.

    Raises:
        EvaluationError: the benchmark does not know a setting, or a value is not one that can be set.
        ProcessingError: a template without a place for what is named.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    theirs: tuple[str, ...] = ("orders",)
    if benchmark.needs == "points":
        theirs = ("max_crops", "max_new_tokens", "single", "zoom")
        if benchmark.generation.template is not None:
            theirs += ("template",)
        theirs += benchmark.own_settings
    if given.get("steerable", STEERABLE[0]) not in STEERABLE:
        raise EvaluationError(
            f"expected {spelled('steerable')} with one of {', '.join(STEERABLE)}, got {given['steerable']!r}"
        )
    _check_area(given.get("picture_area"), spelled)
    if "template" in given:
        fill_template(str(given["template"]), "cups")
    others = [spelled(name) for name in given if name not in theirs]
    if others:
        ours = ", ".join(map(spelled, theirs))
        raise EvaluationError(
            f"expected of {ours} for {benchmark.name}, which wants {benchmark.needs}, got "
            f"{', '.join(others)}; leave it out"
        )
    return replace(benchmark.generation, **given)


def _check_area(area: Any, spelled: Callable[[str], str]) -> None:
    """Refuses an area of pictures that is none, or larger than pictures may be.

    Raises:
        EvaluationError: as said.
    """
    if area is None:
        return
    most = max_picture_pixels()
    is_whole = isinstance(area, Integral) and not isinstance(area, bool)
    if not is_whole or not _LEAST_AREA <= int(area) <= most:
        raise EvaluationError(
            f"expected {spelled('picture_area')} as pixels (width times height) in {_LEAST_AREA}..{most}, got {area!r}"
        )


def check_zoom(settings: GenerationSettings, items: Sequence[Item]) -> None:
    """Refuses to look again where that is not possible.

    Raises:
        EvaluationError: an item is a clip, or about several pictures.
    """
    if not settings.zoom:
        return
    for item in items:
        if item.clip is not None or len(item.images) != 1:
            what = "a clip" if item.clip is not None else f"{len(item.images)} pictures"
            raise EvaluationError(
                f"expected items of one picture each with zoom, got {what} in {item.item_id}; leave --zoom out"
            )


def with_crops(settings: GenerationSettings, model: Any) -> GenerationSettings:
    """How to ask this very model: with the processor's crops, or as many as the benchmark wants at least."""
    backend = getattr(model, "backend", None)
    if backend is not None and not backend.takes_crops:
        return replace(settings, max_crops=None, min_crops=None)
    if settings.min_crops is None:
        return settings
    processor = getattr(getattr(model, "processor", None), "image_processor", None)
    of_processor = int(getattr(processor, "max_crops", None) or 0)
    most = settings.max_crops or max(of_processor, settings.min_crops)
    return replace(settings, max_crops=most, min_crops=None)


def manifest_settings(
    benchmark: Benchmark, settings: GenerationSettings, data: BenchmarkData, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Whatever changes answers: which model, which items, how they are asked."""
    asked = asdict(settings)
    for name, before in _LATER_SETTINGS.items():
        # Folders of before there were these settings go on.
        if asked[name] == before:
            del asked[name]
    return {
        "task": benchmark.name,
        "task_version": benchmark.version,
        "data": data.digest,
        "asking": asked,
        **identity,
    }
