"""The table and the plot of what the runs found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from efficiency.answers import ABLATIONS, FORMATS
from efficiency.plan import Plan

_NAMES = {"grounding": "grounding tokens", "text": "text coordinates"}
_COLOURS = {"grounding": "#c2185b", "text": "#1565c0"}
_PANELS = {"f1": "all questions", "f1_present": "questions with something to find"}
NOT_RUN = "not run"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Results of all runs that are complete, in order of their names."""
    return [json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*.json"))]


def of_arm(
    results: Sequence[dict[str, Any]], size: int, ablation: str = "none", format: str = "grounding"
) -> list[dict[str, Any]]:
    """The arm's runs of a size, one per seed."""
    wanted = {"role": "arm", "format": format, "ablation": ablation, "size": size}
    return [result for result in results if wanted.items() <= result.items()]


def table_of(results: Sequence[dict[str, Any]], plan: Plan) -> str:
    """Markdown tables: mean over seeds and, in brackets, every seed; then the lead of grounding tokens at
    each size.
    """
    lines = [
        "| Pictures | Answers | F1 | F1, something there | Exact count | Too many points | Seeds |",
        "|---:|---|---|---|---|---|---:|",
    ]
    for size in plan.sizes:
        lines += [
            _line(f"{size:,}", _NAMES[format], of_arm(results, size, format=format)) for format in FORMATS
        ]
    lines += [
        _line(f"{plan.search_size:,}", f"grounding tokens, {name}", of_arm(results, plan.search_size, name))
        for name in ABLATIONS
    ]
    lines += [
        "",
        "| Pictures | Lead of grounding tokens in F1, 95 % interval over pairs of seeds | Pairs |",
        "|---:|---|---:|",
    ]
    for size in plan.sizes:
        leads = leads_of(results, size)
        lines.append(f"| {size:,} | {_interval(leads)} | {len(leads)} |")
    return "\n".join(lines) + "\n"


def leads_of(results: Sequence[dict[str, Any]], size: int) -> list[float]:
    """F1 of grounding tokens less that of text coordinates, of each seed that both were run with."""
    by_format: dict[str, dict[int, float]] = {}
    for format in FORMATS:
        by_format[format] = {run["seed"]: run["scores"]["f1"] for run in of_arm(results, size, format=format)}
    both = sorted(by_format["grounding"].keys() & by_format["text"].keys())
    return [by_format["grounding"][seed] - by_format["text"][seed] for seed in both]


def _interval(differences: Sequence[float]) -> str:
    """Mean and 95 % interval by Student's t; the mean alone for one difference."""
    if not differences:
        return NOT_RUN
    mean = float(np.mean(differences))
    if len(differences) == 1:
        return f"{mean:.3f}"
    reach = float(stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1))
    return f"{mean:.3f} ({mean - reach:.3f} to {mean + reach:.3f})"


def plot(results: Sequence[dict[str, Any]], plan: Plan, path: Path) -> None:
    """F1 against examples: a line through the means, a mark per seed.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'the plot needs matplotlib; install it with: pip install "molmopoint[viz]"'
        ) from error
    figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), _PANELS.items(), strict=True):
        for format in FORMATS:
            runs = {
                size: [run["scores"][key] for run in of_arm(results, size, format=format)]
                for size in plan.sizes
            }
            _draw_arm(axes, {size: values for size, values in runs.items() if values}, format)
        axes.set_xscale("log", base=2)
        axes.set_xticks(plan.sizes, [f"{size:,}" for size in plan.sizes])
        axes.set(xlabel="pictures to learn from", ylabel="mean F1, unseen scenes", ylim=(0, 1), title=title)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    figure.savefig(path, metadata={"Software": None})


def _draw_arm(axes: Any, runs: dict[int, list[float]], format: str) -> None:
    """A line through the means of one format, given values per size, and a mark per run."""
    colour = _COLOURS[format]
    axes.plot(list(runs), [np.mean(values) for values in runs.values()], color=colour, label=_NAMES[format])
    axes.fill_between(
        list(runs),
        [min(v) for v in runs.values()],
        [max(v) for v in runs.values()],
        color=colour,
        alpha=0.15,
        lw=0,
    )
    marks = [(size, value) for size, values in runs.items() for value in values]
    axes.scatter([size for size, _ in marks], [value for _, value in marks], color=colour, s=18, zorder=3)


def _line(size: str, name: str, runs: Sequence[dict[str, Any]]) -> str:
    cells = [
        _cell([run["scores"][key] for run in runs]) for key in ("f1", "f1_present", "exact_count", "too_many")
    ]
    return f"| {size} | {name} | {' | '.join(cells)} | {len(runs)} |"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return NOT_RUN
    each = f" ({', '.join(f'{value:.3f}' for value in values)})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{each}"
