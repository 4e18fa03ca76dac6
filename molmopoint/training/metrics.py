"""What a training run reports: losses, accuracies, throughput and fill, summed on the device between two
lines.

One line costs one transfer to the host. Losses by source and accuracies need the logits again, so they come
from the steps that are logged alone. Letters: B rows, S tokens, R supervised tokens, M supervised selections
of one kind, V + A vocabulary.

The lines of a run in a file: one JSON object per line, gone on with where a resumed run starts.

How much of a GPU a training step uses: the products the model needs, over what the GPU could do.

A weight costs 2 operations per position forward and 4 backward (2 if it is frozen; none in a frozen ViT,
before which nothing trains), attention 12 * width * length per position and layer. Recomputed activations
count once, and masked attention and padding in full, so the figure is model FLOPs use, not hardware FLOPs
use. Source: PaLM report (arXiv 2204.02311), appendix B.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from molmopoint.files import write_text_whole
from molmopoint.losses import IGNORED, Supervision
from molmopoint.tokens import NO_MORE_POINTS
from molmopoint.training.optimiser import FROZEN, group_of
from molmopoint.training.vocabulary_rows import EMBEDDING, HEAD

PEAK_TERAFLOPS = {
    "B200": 2250.0, "B100": 1750.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "H800": 989.0, "A100": 312.0, "A800": 312.0,
    "L40S": 362.0, "L4": 121.0, "A10G": 70.0, "RTX 4090": 165.2, "RTX 3090": 71.0,
}  # fmt: skip
"""Dense bfloat16 products of GPUs by a part of their name, from the data sheets of the maker."""


def peak_flops(device: torch.device) -> float | None:
    """What a device could do per second; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((tera * 1e12 for part, tera in PEAK_TERAFLOPS.items() if part in name), None)


class StepFlops:
    """Operations of a batch, forward and backward; made before the weights are sharded.

    Args:
        model: with its frozen parameters marked.
    """

    def __init__(self, model: nn.Module) -> None:
        self._per_place: dict[str, float] = dict.fromkeys(("vit", "connector", "llm", "head"), 0.0)
        for name, parameter in model.named_parameters():
            is_product = parameter.ndim > 1 and EMBEDDING not in name and "positional_embedding" not in name
            if not is_product:
                continue
            group = "head" if HEAD in name else group_of(name)
            if parameter.requires_grad:
                operations = 6
            elif group == "vit":
                operations = 2  # nothing before it trains: no backward pass
            else:
                operations = 4
            place = "llm" if group in ("point", FROZEN) else group
            self._per_place[place] += parameter.numel() * operations
        config: Any = next(module.config for module in model.modules() if hasattr(module, "config"))
        text = config.get_text_config()
        vision = config.vision_config
        layers = getattr(vision, "num_hidden_layers", None) or vision.depth  # as the ViTs of Qwen call it
        width = getattr(vision, "embed_dim", None) or vision.hidden_size
        self._attention = {
            "llm": 12 * text.num_hidden_layers * text.hidden_size,
            "vit": 12 * layers * width,
        }

    def __call__(self, batch: Mapping[str, Any]) -> float:
        """Operations of one micro-step over a batch."""
        rows, length = batch["input_ids"].shape
        total = rows * length * (self._per_place["llm"] + self._attention["llm"] * length)
        total += float((batch["loss_weights"] > 0).sum()) * self._per_place["head"]
        if (pixels := batch.get("pixel_values")) is not None:
            crops, patches = pixels.shape[:2]
            seen = float(crops * patches**2)
            if (
                patches == 1 and "image_grids" in batch
            ):  # pictures of any size, of which each patch sees all others
                table = batch["image_token_pooling"]
                in_pictures = batch["image_grids"].unflatten(1, (2, 2)).prod(2).sum(1) * table.shape[1]
                seen = float(in_pictures.double().square().sum())
            total += crops * patches * self._per_place["vit"] + self._attention["vit"] * seen
            total += len(batch["image_token_pooling"]) * self._per_place["connector"]
        return total


LOG_FILE = "log.jsonl"


class RunLog(TrainerCallback):
    """Appends every logged line to `log.jsonl`; lines behind the checkpoint a run goes on from are removed
    first.

    Args:
        out: folder of the run.
        tensorboard: write event files to the folder `tensorboard` as well.
    """

    def __init__(self, out: Path, *, tensorboard: bool = False) -> None:
        self.file = out / LOG_FILE
        self.events = out / "tensorboard" if tensorboard else None
        self.board: TensorBoardCallback | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes the lines of steps that will be made again out of the file."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_log(self.file) if line["step"] <= state.global_step]
        write_text_whole(self.file, "".join(f"{json.dumps(line)}\n" for line in kept))
        if self.events is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = board = TensorBoardCallback(
                SummaryWriter(str(self.events), purge_step=state.global_step + 1)
            )
            board.on_train_begin(args, state, control, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Appends a line."""
        if not state.is_world_process_zero:
            return
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")
        if self.board is not None:
            self.board.on_log(args, state, control, logs=logs, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Closes the event files."""
        if self.board is not None:
            self.board.on_train_end(args, state, control, **kwargs)


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log, in order; a last line that was cut off is left out."""
    if not file.exists():
        return []
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


KINDS = ("text", "patch", "subpatch", "location")
"""What has a loss and an accuracy."""

COUNTS = ("tokens", "places", "loss_tokens", "weight", "crops", "crop_places", "flops")
"""What is counted on the host, batch by batch."""


def weight_of(batch: Mapping[str, Any]) -> Tensor:
    """Sum of the loss weights of a batch, float32: the divisor of its loss."""
    supervised = batch["shift_labels"] != IGNORED
    weights = batch.get("loss_weights")
    return supervised.sum().float() if weights is None else (weights.float() * supervised).clamp(min=0).sum()


class RunningSums:
    """Sums of this process since the last line of the log.

    What is summed on the device makes no step wait; what is known on the host is counted there, in float64.

    Args:
        device: where the sums live.
        sums: numbers that are summed on the device, by name; how many belong to each.
        counts: names of what is counted on the host.
    """

    def __init__(self, device: torch.device, sums: Mapping[str, int], counts: Sequence[str]) -> None:
        self.device = device
        self._sizes = dict(sums)
        self._names = tuple(counts)
        self.start()

    def start(self) -> None:
        """Starts a line: nothing counted, and the clock at 0. What happens between two lines, such as saving,
        is then not timed.
        """
        self.sums = {name: torch.zeros(size, device=self.device) for name, size in self._sizes.items()}
        self.counts = dict.fromkeys(self._names, 0.0)
        self._since = time.perf_counter()

    def close(self, reduce: Callable[[Tensor], Tensor]) -> tuple[dict[str, list[float]], float]:
        """The sums of all processes by name, and the seconds they took; starts anew. One reduction and one
        transfer to the host.

        Args:
            reduce: sum over processes.
        """
        # Devices without float64 get the sums of the host.
        counts = torch.tensor(list(self.counts.values()), dtype=torch.float64).to(self.device, torch.float32)
        packed = torch.cat([*self.sums.values(), counts])
        values = reduce(packed).tolist()
        seconds = max(time.perf_counter() - self._since, 1e-9)
        self.start()

        totals = {}
        first = 0
        for name, size in (self._sizes | dict.fromkeys(self._names, 1)).items():
            totals[name] = values[first : first + size]
            first += size
        return totals, seconds


class TrainingMetrics:
    """What a run that learns to point reports, see the module.

    Args:
        sources: names of the sources of the data.
        device: where the sums live.
        max_tokens: of a row.
        max_crops: of a row.
    """

    def __init__(self, sources: Sequence[str], device: torch.device, max_tokens: int, max_crops: int) -> None:
        self.sources = tuple(sources)
        self.max_tokens = max_tokens
        self.max_crops = max_crops
        sums = {"loss": 1, "bad": 1, "loss/sources": len(self.sources), "weight/sources": len(self.sources)}
        for kind in (*KINDS, "z"):
            sums |= {f"loss/{kind}": 1, f"weight/{kind}": 1}
        for kind in KINDS:
            sums |= {f"right/{kind}": 1, f"asked/{kind}": 1}
        self._running = RunningSums(device, sums, COUNTS)

    def start(self) -> None:
        """Starts a line."""
        self._running.start()

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
            "crops": 0 if crops is None else _num_crops(batch),
            "crop_places": rows * self.max_crops,
            "flops": flops,
        }
        for name, value in counted.items():
            self._running.counts[name] += value

    def add(self, output: Any, divisor: Tensor) -> None:
        """Adds the losses of a micro-step, and remembers whether one of them was not finite."""
        sums = self._running.sums
        losses = {kind: value.detach() for kind, value in output.loss_sums.items()}
        for kind, value in losses.items():
            sums[f"loss/{kind}"] += value
        total = torch.stack(list(losses.values())).sum()
        sums["loss"] += total / divisor
        sums["bad"] += (~torch.isfinite(total)).float()
        sums["weight/text"] += output.weight_sum.detach()
        if "z" in losses:
            sums["weight/z"] += output.weight_sum.detach()
        for kind in KINDS[1:]:
            logits = getattr(output, f"{kind}_logits", None)  # (M, classes)
            if logits is not None:
                sums[f"weight/{kind}"] += len(logits)

    @torch.no_grad()
    def add_details(
        self, output: Any, batch: Mapping[str, Tensor], source_ids: Tensor, config: Any, *, weighted: bool
    ) -> None:
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
            sums = self._running.sums
            of_source = source_ids[rows, columns].clamp(min=0)  # (M,)
            sums["loss/sources"].index_add_(0, of_source, losses)
            if kind == "text":
                sums["weight/sources"].index_add_(0, of_source, weights)
            sums[f"right/{kind}"] += (logits.argmax(-1) == targets).sum()
            sums[f"asked/{kind}"] += len(targets)

    def line(self, steps: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The figures since the last line, of all processes; starts anew.

        Args:
            steps: made since then.
            reduce: sum over processes.

        Returns:
            "loss", "loss/KIND", "accuracy/KIND", "loss/source/NAME", "bad" (micro-steps without a finite
            loss), "tokens_per_s", "loss_tokens_per_s", "crops_per_s", "flops_per_s", "fill/tokens",
            "fill/crops" and "steps_per_s". What did not occur is left out.
        """
        sums, seconds = self._running.close(reduce)
        of_sources = list(
            zip(self.sources, sums.pop("loss/sources"), sums.pop("weight/sources"), strict=True)
        )
        totals = {name: total for name, (total,) in sums.items()}

        figures = Ratios()
        for kind in (*KINDS, "z"):
            figures.add(f"loss/{kind}", totals[f"loss/{kind}"], totals[f"weight/{kind}"])
        for kind in KINDS:
            figures.add(f"accuracy/{kind}", totals[f"right/{kind}"], totals[f"asked/{kind}"])
        for name, loss, weight in of_sources:
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


def _num_crops(batch: Mapping[str, Tensor]) -> int:
    """Crops and frames of a batch; pictures, where a model takes them in any size."""
    pixels = batch["pixel_values"]
    if pixels.shape[1] == 1 and "image_grids" in batch:
        return len(batch["image_grids"])
    return len(pixels)


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


def _asked(
    output: Any, batch: Mapping[str, Tensor], config: Any
) -> list[tuple[str, tuple[Tensor, Tensor], Tensor, Tensor, Tensor]]:
    """Kind, places, logits, targets and weights of everything that is supervised; the places are in row-major
    order, as the logits.
    """
    labels = batch["shift_labels"]  # (B, S)
    weights = batch.get("loss_weights")  # (B, S)
    if weights is None:
        weights = torch.ones_like(labels, dtype=torch.float32)
    if not hasattr(output, "patch_logits"):  # a model without grounding tokens
        supervised = (labels != IGNORED) & (weights > 0)
        rows, columns = supervised.nonzero(as_tuple=True)  # (R,) each
        return [
            ("text", (rows, columns), output.logits, labels[rows, columns], weights[rows, columns].float())
        ]

    supervision = Supervision.of(
        batch["input_ids"], batch["selection_ids"], labels, weights, config.grounding
    )
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
