"""The one training loop of the examples: data from shards, optimiser steps, checkpoints, a log.

A stage says what is trained and adds the gradients of one batch (`Stage`); `train` does the rest. A
checkpoint holds all that the next step depends on: weights, moments of the optimiser, random state, and the
place in the data. So a run that was stopped or killed goes on as if nothing had happened, on one thread to
the last bit.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from transformers import get_cosine_with_min_lr_schedule_with_warmup, get_wsd_schedule

from molmopoint.files import written_whole

_FLOOR = 0.02
"""Where the learning rate ends, as a part of its peak."""
_BLOCKS = ".layers."
"""In the names of parameters of repeated blocks."""
_NONE: Mapping[str, torch.optim.Optimizer] = {}

S = TypeVar("S", bound=Sized)


@dataclass(frozen=True)
class LoopSettings:
    """Numbers that every stage shares.

    Attributes:
        warmup: steps of linear warm-up.
        falling: part of a stage at whose end the learning rate falls in a straight line to nothing; None for
            half a cosine over all of it.
        muon: rate of Muon for the matrices of blocks, as a multiple of their module's rate; None trains them
            with AdamW like the others.
        weight_decay: of all matrices.
        clip: largest gradient norm.
        save_minutes: between checkpoints.
    """

    warmup: int = 200
    falling: float | None = None
    muon: float | None = None
    weight_decay: float = 0.05
    clip: float = 1.0
    save_minutes: float = 8.0


class ShardStream(Generic[S]):
    """Rows of shards in random order, for ever; shards that appear later join in.

    Args:
        folders: visited equally often; one without shards is passed over.
        pattern: names of shards.
        open_shard: reads one; its length is the number of its rows.
        part: of the rows of a shard, taken before the next one is opened.
        newest: share of the visits that go to the newer half of a folder, which was seen least.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        pattern: str,
        open_shard: Callable[[Path], S],
        part: float = 1.0,
        newest: float = 0.0,
    ) -> None:
        self.folders, self.pattern, self.open_shard = tuple(folders), pattern, open_shard
        self.part, self.newest = part, newest
        self._path: Path | None = None
        self._shard: S
        self._rows: list[int] = []

    def take(self, count: int, rng: np.random.Generator) -> tuple[S, list[int]]:
        """A shard and `count` of its rows that were not taken on this visit; fewer only if the shard has
        fewer.

        Raises:
            FileNotFoundError: there is no shard.
        """
        if len(self._rows) < count:
            self._visit(rng)
        chosen, self._rows = self._rows[:count], self._rows[count:]
        return self._shard, chosen

    @property
    def place(self) -> dict[str, Any]:
        """Where the stream stands, for JSON."""
        if self._path is None:
            return {}
        return {"folder": self._path.parent.name, "shard": self._path.name, "rows": self._rows}

    def go_to(self, place: dict[str, Any]) -> None:
        """Goes on from where another stream of the same folders stood."""
        if not place:
            return
        (folder,) = (folder for folder in self.folders if folder.name == place["folder"])
        self._open(folder / place["shard"])
        self._rows = list(place["rows"])

    def _visit(self, rng: np.random.Generator) -> None:
        found = [shards for folder in self.folders if (shards := sorted(folder.glob(self.pattern)))]
        if not found:
            raise FileNotFoundError(
                f"expected shards {self.pattern} in {', '.join(map(str, self.folders))}, got none; draw "
                "some first"
            )
        shards = found[int(rng.integers(len(found)))]
        if rng.random() < self.newest:
            shards = shards[len(shards) // 2 :]
        self._open(shards[int(rng.integers(len(shards)))])
        order = rng.permutation(len(self._shard))
        self._rows = order[: math.ceil(self.part * len(order))].tolist()

    def _open(self, path: Path) -> None:
        self._path, self._shard = path, self.open_shard(path)


class Stage:
    """What is trained, on what, and how the gradients of a step come about.

    Attributes:
        modules: what a checkpoint holds, by name.
        rates: trained modules with their peak learning rates; where two share a parameter, the first one
            counts.
        clipped: the module whose gradients are kept short.
        streams: of data, by name.
        items: examples of a step, for the speed in the log.
        notes: further values that a checkpoint keeps, for JSON.
    """

    modules: dict[str, nn.Module]
    rates: Sequence[tuple[nn.Module, float]]
    clipped: nn.Module
    streams: dict[str, ShardStream[Any]]
    items: int
    notes: dict[str, Any]

    def __init__(self) -> None:
        self.streams, self.notes = {}, {}

    def begin(self) -> None:
        """Called before the first step, and not when a run is resumed."""

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Adds the gradients of a batch; returns numbers for the log, NaN for what did not occur.

        Args:
            step: that were made before.
            steps: of the whole stage.
            rng: everything random comes from here.
        """
        raise NotImplementedError

    def after_step(self, step: int, steps: int) -> None:
        """Called when the weights have moved; `step` is counted from 1."""

    def check(self) -> dict[str, float]:
        """A look at the model at every checkpoint; its numbers get a line of the log."""
        return {}


def train(
    stage: Stage, path: Path, settings: LoopSettings, steps: int, seed: int, log_every: int = 25
) -> int:
    """Runs or resumes a stage until it has made `steps` optimiser steps or is asked to stop (Ctrl-C,
    SIGTERM).

    Args:
        stage: what is trained.
        path: its files but for their endings: PATH.safetensors is the checkpoint, PATH.jsonl the log.
        settings: numbers of the loop.
        steps: of the whole stage; they set the learning rate.
        seed: of everything random.
        log_every: steps per line of the log.

    Returns:
        Steps that the stage has made by now.
    """
    checkpoint = path.with_name(path.name + ".safetensors")
    log = Log(path.with_name(path.name + ".jsonl"))
    optimisers = build_optimisers(stage.rates, settings)
    step, rng = _resume(stage, checkpoint, optimisers, seed)
    schedules = [build_schedule(optimiser, settings, steps, step) for optimiser in optimisers.values()]
    saved = time.monotonic()
    with StopRequest() as stop:
        while step < steps and not stop.asked:
            numbers = stage.add_gradients(step, steps, rng)
            norm = clip_grad_norm_(stage.clipped.parameters(), settings.clip)
            for optimiser, schedule in zip(optimisers.values(), schedules, strict=True):
                optimiser.step()
                schedule.step()
                optimiser.zero_grad()
            step += 1
            stage.after_step(step, steps)
            log.add({"norm": float(norm), **numbers})
            if step % log_every == 0:
                log.write(step, log_every * stage.items)
            is_due = time.monotonic() - saved > 60 * settings.save_minutes
            if is_due or step == steps or stop.asked:
                save_checkpoint(checkpoint, stage.modules, _progress(stage, step, steps, rng), optimisers)
                if numbers := stage.check():
                    log.write(step, 0, **numbers)
                saved = time.monotonic()
    return step


def build_optimisers(
    rates: Iterable[tuple[nn.Module, float]], settings: LoopSettings
) -> dict[str, torch.optim.Optimizer]:
    """AdamW and, if the settings ask for it, Muon, by name, with a learning rate per module; only matrices
    decay, embeddings do not.

    Muon (K. Jordan 2024; its rate scaled as in arXiv 2502.16982, so that a step is as long as one of AdamW)
    is for the matrices of repeated blocks, which map hidden states to hidden states; what reads from or
    writes to anything else stays with AdamW.
    """
    adamw: list[dict[str, Any]] = []
    muon: list[dict[str, Any]] = []
    taken: set[nn.Parameter] = set()
    for module, rate in rates:
        in_blocks, matrices, others = [], [], []
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or parameter in taken:
                continue
            taken.add(parameter)
            if parameter.ndim != 2 or "embed" in name:
                others.append(parameter)
            elif settings.muon is not None and _BLOCKS in f".{name}":
                in_blocks.append(parameter)
            else:
                matrices.append(parameter)
        for parameters, decay in ((matrices, settings.weight_decay), (others, 0.0)):
            if parameters:
                adamw.append(_group(parameters, rate, decay))
        if in_blocks and settings.muon is not None:
            muon.append(_group(in_blocks, settings.muon * rate, settings.weight_decay))
    optimisers: dict[str, torch.optim.Optimizer] = {
        "optimiser": torch.optim.AdamW(adamw, betas=(0.9, 0.98), fused=True)
    }
    if muon:
        optimisers["muon"] = torch.optim.Muon(muon, adjust_lr_fn="match_rms_adamw")
    return optimisers


def build_schedule(
    optimiser: torch.optim.Optimizer, settings: LoopSettings, steps: int, done: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rates of a stage of `steps` steps of which some are done."""
    if settings.falling is None:
        return get_cosine_with_min_lr_schedule_with_warmup(
            optimiser, settings.warmup, steps, min_lr_rate=_FLOOR, last_epoch=done - 1
        )
    falling = round(settings.falling * steps)
    return get_wsd_schedule(
        optimiser,
        settings.warmup,
        falling,
        num_training_steps=steps,
        decay_type="linear",
        last_epoch=done - 1,
    )


def _group(parameters: list[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}


def save_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    progress: dict[str, Any],
    optimisers: Mapping[str, torch.optim.Optimizer] = _NONE,
) -> None:
    """Weights, moments of the optimisers, torch's random state and progress in one safetensors file, whole or
    not at all.
    """
    tensors: dict[str, Tensor] = {"random.torch": torch.get_rng_state()}
    for name, module in modules.items():
        for key, weight in module.state_dict().items():
            tensors[f"{name}.{key}"] = weight.detach().contiguous().clone()
    for name, optimiser in optimisers.items():
        for index, of_parameter in optimiser.state_dict()["state"].items():
            for key, moment in of_parameter.items():
                tensors[f"{name}.{index}.{key}"] = moment
    with written_whole(path) as beside:
        save_file(tensors, beside, {"progress": json.dumps(progress)})


def load_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimisers: Mapping[str, torch.optim.Optimizer] = _NONE
) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote into modules and optimisers; returns the progress. Torch's random
    state stays as it is.
    """
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        for module_name, module in modules.items():
            prefix = f"{module_name}."
            module.load_state_dict(
                {
                    name.removeprefix(prefix): file.get_tensor(name)
                    for name in names
                    if name.startswith(prefix)
                }
            )
        for optimiser_name, optimiser in optimisers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for name in names:
                if name.startswith(f"{optimiser_name}."):
                    _, index, key = name.split(".")
                    moments.setdefault(int(index), {})[key] = file.get_tensor(name)
            optimiser.load_state_dict(
                {"state": moments, "param_groups": optimiser.state_dict()["param_groups"]}
            )
    return read_progress(path)


def read_progress(path: Path) -> dict[str, Any]:
    """How far the run of a checkpoint has come."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["progress"])


def _progress(stage: Stage, step: int, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    places = {name: stream.place for name, stream in stage.streams.items()}
    return {
        "step": step,
        "steps": steps,
        "random": rng.bit_generator.state,
        "streams": places,
        "notes": stage.notes,
    }


def _resume(
    stage: Stage, checkpoint: Path, optimisers: Mapping[str, torch.optim.Optimizer], seed: int
) -> tuple[int, np.random.Generator]:
    """Brings a stage to where its checkpoint is; returns the steps made and the random state."""
    if not checkpoint.exists():
        stage.begin()
        return 0, np.random.default_rng([seed, 0])
    progress = load_checkpoint(checkpoint, stage.modules, optimisers)
    rng = np.random.default_rng([seed, progress["step"]])
    # Checkpoints from before 2026-12 end here: they hold neither random state nor place in the data.
    if "random" in progress:
        rng.bit_generator.state = progress["random"]
        with safe_open(checkpoint, framework="pt") as file:
            torch.set_rng_state(file.get_tensor("random.torch"))
        for name, stream in stage.streams.items():
            stream.go_to(progress["streams"][name])
        stage.notes.update(progress["notes"])
    return progress["step"], rng


class StopRequest:
    """Inside, SIGTERM and Ctrl-C only set `asked`, so that a run can save before it ends."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> StopRequest:
        self.asked = False
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.asked = True


class Log:
    """Appends JSON lines and prints them; numbers are means since the last line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._start()

    def _start(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.since = time.perf_counter()

    def add(self, numbers: dict[str, float]) -> None:
        """Takes the numbers of one step; NaN does not count."""
        for key, number in numbers.items():
            if not math.isnan(number):
                self.sums[key] = self.sums.get(key, 0.0) + number
                self.counts[key] = self.counts.get(key, 0) + 1

    def write(self, step: int, items: int, **more: float) -> None:
        """Writes a line about the steps since the last one, which saw `items` examples."""
        line: dict[str, float] = {"step": step, "per_second": items / (time.perf_counter() - self.since)}
        for key, total in self.sums.items():
            line[key] = total / self.counts[key]
        line |= more
        text = json.dumps(
            {key: number if isinstance(number, int) else round(number, 4) for key, number in line.items()}
        )
        with self.path.open("a") as file:
            file.write(text + "\n")
        print(time.strftime("%H:%M:%S"), text, flush=True)
        self._start()
