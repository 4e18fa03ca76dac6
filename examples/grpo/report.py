"""What the runs came to: rewards of the first and the last fifth, and a picture of reward, accuracy and
length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CURVES = {
    "reward": "rewards/judge/mean",
    "accuracy": "rewards/accuracy/mean",
    "length": "completions/mean_length",
}
"""What is drawn, by its name in TRL's log; the length is in tokens."""


def curves_of(log: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The curves of a run from the log of its trainer."""
    lines = [line for line in log if CURVES["reward"] in line]
    return {name: [float(line[key]) for line in lines] for name, key in CURVES.items()}


def fifths(curves: Sequence[Mapping[str, Sequence[float]]], name: str) -> dict[str, float]:
    """Means of the first and the last fifth of the steps over all seeds, and their difference with its
    standard error over seeds.
    """
    edges = [
        (np.mean(values[: max(len(values) // 5, 1)]), np.mean(values[-max(len(values) // 5, 1) :]))
        for values in (c[name] for c in curves)
    ]
    first, last = np.array(edges).T
    rise = last - first
    error = float(rise.std(ddof=1) / np.sqrt(len(rise))) if len(rise) > 1 else float("nan")
    return {
        "first": float(first.mean()),
        "last": float(last.mean()),
        "rise": float(rise.mean()),
        "standard_error": error,
    }


def rises(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What is known of unseen questions before and after: means over seeds, and the smallest and the largest
    difference of a seed.
    """
    found = {}
    for name in runs[0]["before"]:
        before = np.array([run["before"][name] for run in runs])
        after = np.array([run["after"][name] for run in runs])
        found[name] = {
            "before": float(before.mean()),
            "after": float(after.mean()),
            "least_rise": float((after - before).min()),
            "most_rise": float((after - before).max()),
        }
    return found


def plot(curves: Sequence[Mapping[str, Sequence[float]]], path: Path, window: int = 10) -> None:
    """Reward, accuracy and length beside each other, a line per seed, smoothed over `window` steps.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'the plot needs matplotlib; install it with: pip install "molmopoint[viz]"'
        ) from error
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    titles = {"reward": "reward above the anchor", "accuracy": "right answers", "length": "length, tokens"}
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for seed, run in enumerate(curves):
            smooth = np.convolve(run[name], np.ones(window) / window, mode="valid")
            axes.plot(np.arange(len(smooth)) + window, smooth, label=f"seed {seed}")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
