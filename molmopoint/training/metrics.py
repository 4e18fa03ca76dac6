"""What a training run reports: losses, accuracies, throughput and fill, summed on the device between two lines.

One line costs one transfer to the host. Losses by source and accuracies need the logits again, so they come from the steps that
are logged alone. Letters: B rows, S tokens, R supervised tokens, M supervised selections of one kind, V + A vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from molmopoint.losses import IGNORED, Supervision
from molmopoint.tokens import NO_MORE_POINTS

KINDS = ("text", "patch", "subpatch", "location")
"""What has a loss and an accuracy."""

COUNTS = ("tokens", "places", "loss_tokens", "weight", "crops", "crop_places", "flops")
"""What is counted on the host, batch by batch."""


def weight_of(batch: Mapping[str, Any]) -> Tensor:
    """Sum of the loss weights of a batch, float32: the divisor of its loss."""
    supervised = batch["shift_labels"] != IGNORED
    weights = batch.get("loss_weights")
    return supervised.sum().float() if weights is None else (weights.float() * supervised).clamp(min=0).sum()


class TrainingMetrics:
    """Sums between two logged lines, of this process; `line` adds up all processes.

    Args:
        sources: names of the sources of the data.
        device: where the sums live.
        max_tokens: of a row.
        max_crops: of a row.
    """

    def __init__(self, sources: Sequence[str], device: torch.device, max_tokens: int, max_crops: int) -> None:
        self.sources = tuple(sources)
        self.device = device
        self.max_tokens = max_tokens
        self.max_crops = max_crops
        self.start()

    def start(self) -> None:
        """Starts a line: nothing counted, and the clock at 0. What happens between two lines, such as saving, is then not timed."""
        self._counts: dict[str, float] = dict.fromkeys(COUNTS, 0.0)
        names = ["loss", "bad"]
        for kind in (*KINDS, "z"):
            names += [f"loss/{kind}", f"weight/{kind}"]
        for kind in KINDS:
            names += [f"right/{kind}", f"asked/{kind}"]
        self._sums = {name: torch.zeros((), device=self.device) for name in names}
        self._by_source = torch.zeros(2, len(self.sources), device=self.device)
        self._since = time.perf_counter()

    def count(self, batch: Mapping[str, Any], flops: float = 0.0) -> None:
        """Counts a batch while it is on the host."""
        examples = batch.get("example_ids")
        tokens = (examples >= 0).sum() if examples is not None else batch["attention_mask"].sum()
        rows, crops = len(batch["input_ids"]), batch.get("pixel_values")
        counted = {
            "tokens": float(tokens),
            "places": rows * self.max_tokens,
            "loss_tokens": float((batch["shift_labels"] != IGNORED).sum()),
            "weight": float(weight_of(batch)),
            "crops": 0 if crops is None else len(crops),
            "crop_places": rows * self.max_crops,
            "flops": flops,
        }
        for name, value in counted.items():
            self._counts[name] += value

    def add(self, output: Any, divisor: Tensor) -> None:
        """Adds the losses of a micro-step, and remembers whether one of them was not finite."""
        sums = {kind: value.detach() for kind, value in output.loss_sums.items()}
        for kind, value in sums.items():
            self._sums[f"loss/{kind}"] += value
        total = torch.stack(list(sums.values())).sum()
        self._sums["loss"] += total / divisor
        self._sums["bad"] += (~torch.isfinite(total)).float()
        self._sums["weight/text"] += output.weight_sum.detach()
        if "z" in sums:
            self._sums["weight/z"] += output.weight_sum.detach()
        for kind in KINDS[1:]:
            logits = getattr(output, f"{kind}_logits", None)
            self._sums[f"weight/{kind}"] += 0 if logits is None else len(logits)

    @torch.no_grad()
    def add_details(self, output: Any, batch: Mapping[str, Tensor], source_ids: Tensor, config: Any, *, weighted: bool) -> None:
        """Adds accuracies and losses by source.

        Args:
            output: of the forward pass.
            batch: its arguments, with plain ids.
            source_ids: (B, S) source of each token.
            config: of the model; of MolmoPoint models it names the grounding tokens.
            weighted: whether selection losses count as much as their tokens.
        """
        for kind, (rows, columns), logits, targets, weights in _asked(output, batch, config):
            if not len(targets):
                continue
            losses = functional.cross_entropy(logits.float(), targets, reduction="none")
            if kind == "text" or weighted:
                losses = losses * weights
            of_source = source_ids[rows, columns].clamp(min=0)
            self._by_source[0].index_add_(0, of_source, losses)
            if kind == "text":
                self._by_source[1].index_add_(0, of_source, weights)
            self._sums[f"right/{kind}"] += (logits.argmax(-1) == targets).sum()
            self._sums[f"asked/{kind}"] += len(targets)

    def line(self, steps: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The figures since the last line, of all processes; starts anew.

        Args:
            steps: made since then.
            reduce: sum over processes.

        Returns:
            "loss", "loss/KIND", "accuracy/KIND", "loss/source/NAME", "bad" (micro-steps without a finite loss), "tokens_per_s",
            "loss_tokens_per_s", "crops_per_s", "flops_per_s", "fill/tokens", "fill/crops" and "steps_per_s". What did not occur
            is left out.
        """
        totals, by_source = self._reduced(reduce)
        seconds = max(time.perf_counter() - self._since, 1e-9)
        self.start()

        figures = Ratios()
        for kind in (*KINDS, "z"):
            figures.add(f"loss/{kind}", totals[f"loss/{kind}"], totals[f"weight/{kind}"])
        for kind in KINDS:
            figures.add(f"accuracy/{kind}", totals[f"right/{kind}"], totals[f"asked/{kind}"])
        for name, (loss, weight) in by_source.items():
            figures.add(f"loss/source/{name}", loss, weight)
        figures.add("fill/tokens", totals["tokens"], totals["places"])
        figures.add("fill/crops", totals["crops"], totals["crop_places"])

        # What did not occur in these steps has no denominator and is left out of the line.
        line = figures.where_defined()
        line["loss"] = totals["loss"] / max(steps, 1)
        line["bad"] = totals["bad"]
        line["steps_per_s"] = steps / seconds
        for name in ("tokens", "loss_tokens", "crops", "flops"):
            line[f"{name}_per_s"] = totals[name] / seconds
        return line

    def _reduced(self, reduce: Callable[[Tensor], Tensor]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Sums and counts of all processes by name, and (loss, weight) by source; one reduction and one transfer to the host."""
        sums = torch.stack(list(self._sums.values()))
        # The host adds counts up in float64; devices without float64 get their sums.
        counts = torch.tensor(list(self._counts.values()), dtype=torch.float64).to(self.device, torch.float32)
        packed = torch.cat([sums, counts, self._by_source.flatten()])
        values = reduce(packed).tolist()

        names = [*self._sums, *self._counts]
        totals = dict(zip(names, values, strict=False))
        of_sources = values[len(names) :]
        losses = of_sources[: len(self.sources)]
        weights = of_sources[len(self.sources) :]
        by_source = {}
        for name, loss, weight in zip(self.sources, losses, weights, strict=True):
            by_source[name] = (loss, weight)
        return totals, by_source


class Ratios:
    """Figures that are a numerator over a denominator."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[float, float]] = {}

    def add(self, name: str, numerator: float, denominator: float) -> None:
        """One figure."""
        self._parts[name] = (numerator, denominator)

    def where_defined(self) -> dict[str, float]:
        """The figures whose denominator is above 0."""
        defined = {}
        for name, (numerator, denominator) in self._parts.items():
            if denominator > 0:
                defined[name] = numerator / denominator
        return defined


def _asked(output: Any, batch: Mapping[str, Tensor], config: Any) -> list[tuple[str, tuple[Tensor, Tensor], Tensor, Tensor, Tensor]]:
    """Kind, places, logits, targets and weights of everything that is supervised; the places are in row-major order, as the logits."""
    labels = batch["shift_labels"]  # (B, S)
    weights = batch.get("loss_weights")  # (B, S)
    if weights is None:
        weights = torch.ones_like(labels, dtype=torch.float32)
    if not hasattr(output, "patch_logits"):  # a model without grounding tokens
        supervised = (labels != IGNORED) & (weights > 0)
        rows, columns = supervised.nonzero(as_tuple=True)  # (R,) each
        return [("text", (rows, columns), output.logits, labels[rows, columns], weights[rows, columns].float())]

    supervision = Supervision.of(batch["input_ids"], batch["selection_ids"], labels, weights, config)
    places_of_text = (supervision.rows, supervision.columns)
    found = [("text", places_of_text, output.logits, supervision.labels, supervision.weights)]
    for kind in KINDS[1:]:
        logits = getattr(output, f"{kind}_logits")  # (M, classes)
        if logits is None:
            continue
        places = supervision.predictors[kind]
        targets = supervision.selections[kind]  # (M,)
        if kind == "patch":
            # "No more points" is the class behind all patches.
            targets = torch.where(targets == NO_MORE_POINTS, logits.shape[1] - 1, targets)
        found.append((kind, places, logits, targets, weights[places].float()))
    return found
