"""What a run of a reward model reports: loss, accuracy, margin and the range of scores, summed on the device between two lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from molmopoint.training.reward.losses import ABSENT, is_right, margins

_SUMS = ("loss", "bad", "rows", "right", "margin", "lowest", "mean", "highest", "tokens", "places", "crops", "text")


class RewardMetrics:
    """Sums between two logged lines, of this process; `line` adds up all processes.

    Args:
        device: where the sums live.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start()

    def start(self) -> None:
        """Starts a line: nothing counted, and the clock at 0."""
        self._sums = {name: torch.zeros((), device=self.device) for name in _SUMS}
        self._since = time.perf_counter()

    def count(self, batch: Mapping[str, Any]) -> None:
        """Counts a batch while it is on the host."""
        mask, crops = batch["attention_mask"], batch.get("pixel_values")
        counted = {"tokens": float(mask.sum()), "places": mask.numel(), "crops": 0 if crops is None else len(crops)}
        for name, value in counted.items():
            self._sums[name] += value

    @torch.no_grad()
    def add(self, scores: Tensor, ranks: Tensor, losses: Tensor, divisor: Tensor, text_losses: Tensor | None = None) -> None:
        """Adds a micro-step.

        Args:
            scores: (B, N).
            ranks: (B, N) 0 where there is no answer.
            losses: (B,).
            divisor: rows of the step, of all processes and micro-steps.
            text_losses: (B,) of the words of an answer, if they are learned.
        """
        absent = ranks == ABSENT
        total = losses.sum()
        added = {
            "loss": total / divisor,
            "bad": (~torch.isfinite(total)).float(),
            "rows": torch.tensor(float(len(scores)), device=self.device),
            "right": is_right(scores, ranks).float().sum(),
            "margin": margins(scores, ranks).sum(),
            "lowest": scores.masked_fill(absent, torch.inf).min(1).values.sum(),
            "mean": (scores.masked_fill(absent, 0.0).sum(1) / (~absent).sum(1)).sum(),
            "highest": scores.masked_fill(absent, -torch.inf).max(1).values.sum(),
        }
        if text_losses is not None:
            added |= {"text": text_losses.sum(), "bad": (~torch.isfinite(total + text_losses.sum())).float()}
        for name, value in added.items():
            self._sums[name] += value

    def line(self, steps: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The figures since the last line, of all processes; starts anew.

        Args:
            steps: made since then.
            reduce: sum over processes.

        Returns:
            "loss" (of the scores), "text_loss" (of the words of an answer, 0 unless they are learned), "bad" (micro-steps without a finite
            loss), "top1_accuracy", "margin" (best answer minus the best of the others), "min_reward", "mean_reward" and "max_reward" of a
            list, "fill/tokens", and rows, tokens, crops and steps per second.
        """
        total: dict[str, float] = dict(zip(_SUMS, reduce(torch.stack(list(self._sums.values()))).tolist(), strict=True))
        seconds = max(time.perf_counter() - self._since, 1e-9)
        self.start()
        rows = max(total["rows"], 1.0)
        named = {
            "text_loss": "text",
            "top1_accuracy": "right",
            "margin": "margin",
            "min_reward": "lowest",
            "mean_reward": "mean",
            "max_reward": "highest",
        }
        line = {"loss": total["loss"] / max(steps, 1), "bad": total["bad"], **{name: total[of] / rows for name, of in named.items()}}
        line |= {"fill/tokens": total["tokens"] / max(total["places"], 1.0), "steps_per_s": steps / seconds}
        return line | {f"{name}_per_s": total[name] / seconds for name in ("rows", "tokens", "crops")}
