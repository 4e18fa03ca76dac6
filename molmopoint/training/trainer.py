"""The one subclass of transformers' Trainer: what every run of ours does otherwise.

    trainer = pointing_trainer(model, recipe, dataset, collator, Path("run"), steps=1000, score=held_out)
    trainer.train()                 goes on from run/checkpoint-000900 by itself, if it is there
    trainer.load_best()             the weights of the best score, else the newest ones

What is taught is an `Objective`: what a batch weighs, its loss, and the figures of a line of the log.
`pointing` and `reward.objective` have one each. What callers need to know:

- Every parameter that trains gets a gradient from every batch, or several processes would wait for each other.
- The loss of a step is a sum over all micro-batches of all processes, divided by the sum of their weights.
- `score` is called on all processes with the model in evaluation mode and must come to the same end on each; its "point_f1", or its
  "score" without that, decides which checkpoint is best (`best_step`), with the standard error it may have
  under that name and "_error". Randomness it uses does not change the training.
- The run ends after `steps`. If the order of the data ends before, it ends before the first step for which any process has not all its
  micro-batches: processes have different numbers of them, and none may wait for one that has stopped.

Of Trainer this uses what it documents for subclasses and callbacks. One private method is overridden,
`_save_checkpoint`; it says why.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.utils import broadcast_object_list, load_fsdp_model
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from molmopoint.errors import RecipeError, TrainingError
from molmopoint.training.metrics import RunLog, peak_flops
from molmopoint.training.optimiser import build_optimiser, build_schedule, clip_groups
from molmopoint.training.packed_dataset import ORIGINS, PROGRESS, RunDataset
from molmopoint.training.precision import resolve_precision
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import recipe_to_dict
from molmopoint.training.run_checkpoints import (
    best_step,
    check_weights,
    checkpoint_folder,
    complete_checkpoints,
    frozen_left_out,
    load_position,
    load_weights,
    newest_checkpoint,
    prune,
    randomness_kept,
    save_position,
    save_weights,
    write_whole,
)
from molmopoint.training.run_folder import RUN_FILE, check_same_run, remove_unfinished
from molmopoint.training.sharding import shard_as_launched

logger = logging.getLogger(__name__)

SCORES = ("point_f1", "score")
"""Names of the score that decides which checkpoint is best; the first one that a score has."""


class Metrics(Protocol):
    """What is summed between two lines of the log."""

    def start(self) -> None:
        """Starts a line."""
        ...

    def line(self, steps: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The figures since the last line, of all processes, with "loss" and "bad", losses that are not
        finite.
        """
        ...


class Objective(Protocol):
    """What a run teaches."""

    @property
    def metrics(self) -> Metrics:
        """Sums that become a line of the log."""
        ...

    @property
    def whole_batches(self) -> bool:
        """Whether an item of the data is a micro-batch already, not one of its rows."""
        ...

    def weight_of(self, batch: Mapping[str, Any]) -> Tensor:
        """What a micro-batch counts for in the loss of a step, float32, on the device of the batch."""
        ...

    def count(self, batch: Mapping[str, Any]) -> float:
        """Notes a micro-batch while it is on the host; returns its operations, 0 if nobody knows."""
        ...

    def loss(
        self, model: nn.Module, batch: dict[str, Any], divisor: Tensor, *, in_detail: bool
    ) -> tuple[Tensor, Any]:
        """The part of a micro-batch in the loss of the step, and the output of the model.

        Args:
            model: as Trainer wrapped it.
            batch: on its device, without `PROGRESS` and `ORIGINS`.
            divisor: sum of the weights of all micro-batches of the step, on all processes.
            in_detail: whether this step gets a line of the log, so that costly figures are worth it.
        """
        ...


def training_arguments(recipe: Recipe, out: Path, steps: int) -> TrainingArguments:
    """Arguments of Trainer for a recipe; what `RunTrainer` decides by itself is switched off in them.

    Devices, processes and sharding come from the environment, as `torchrun` and `accelerate launch` set it.

    Args:
        recipe: of the run.
        out: folder of the run.
        steps: optimiser steps.

    Raises:
        RecipeError: a tracker that is not installed.
        TrainingError: no steps.
    """
    if steps < 1:
        raise TrainingError(f"expected one or more steps, got {steps}; set steps or epochs of the recipe")
    on_cpu = not torch.accelerator.is_available()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    trackers = [name for name in _installed(recipe.logging.to) if name != "tensorboard"]
    return TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=recipe.data.rows,
        gradient_accumulation_steps=recipe.accumulation,
        seed=recipe.seed,
        bf16=resolve_precision(recipe.dtype) == torch.bfloat16,
        max_grad_norm=0.0,  # the groups have limits of their own, see `_Steps.on_pre_optimizer_step`
        logging_strategy="steps",
        logging_steps=recipe.logging.every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",  # `_Steps` says when
        eval_strategy="no",
        remove_unused_columns=False,
        ignore_data_skip=True,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if on_cpu and several else None,
        ddp_timeout=3600,
        use_cpu=on_cpu,
        report_to=trackers or "none",
    )


def _installed(trackers: tuple[str, ...]) -> tuple[str, ...]:
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f"expected the tracker {name} of logging.to to be installed, got no such package; "
                f'pip install "molmopoint[train]" or {name}, or set logging.to=[]'
            )
    return trackers


def recompute_activations(model: nn.Module) -> None:
    """Computes the activations of blocks a second time in the backward pass instead of keeping them."""
    backbone: Any = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    # The name in transformers since 5.21; the older one still works there, with a warning.
    enable = (
        getattr(backbone, "activation_checkpointing_enable", None) or backbone.gradient_checkpointing_enable
    )
    enable({"use_reentrant": False})


class RunTrainer(Trainer):
    """Trains on the rows of this process; see the module for what callers need to know.

    Args:
        model: ready to train: adapters in it, the rest frozen.
        objective: what is taught.
        recipe: of the run.
        args: of Trainer, see `training_arguments`; `output_dir` is the folder of the run, one for all
            processes.
        dataset: rows of this process; `rank` and `num_ranks` are those of the environment.
        collator: of its rows; what it returns holds `PROGRESS` and `ORIGINS` beside the arguments of the
            model.
        score: of the model on held-out data.
        callbacks: further ones of transformers.
        identity: what else must be the same when a run goes on, such as the name of the model; goes into
            JSON.

    Raises:
        TrainingError: rows of another process.
    """

    loss_is_scaled_for_ga = True  # by `num_items_in_batch`, over all micro-batches
    model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        recipe: Recipe,
        args: TrainingArguments,
        dataset: RunDataset,
        collator: Callable[[Any], dict[str, Any]],
        *,
        score: Callable[[nn.Module], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if (dataset.rank, dataset.num_ranks) != (args.process_index, args.world_size):
            raise TrainingError(
                f"expected the rows of process {args.process_index} of {args.world_size}, got those of "
                f"{dataset.rank} of "
                f"{dataset.num_ranks}; make the dataset with the rank of the environment"
            )
        if recipe.gradient_checkpointing:
            recompute_activations(model)
        self.objective = objective
        self.recipe = recipe
        self.dataset = dataset
        self.score = score
        self.out = Path(cast(str, args.output_dir))
        depends_on = {
            "recipe": recipe_to_dict(recipe),
            "steps": args.max_steps,
            "data": dataset.fingerprint(),
        }
        # As it comes back from a file.
        self.identity = json.loads(json.dumps({**depends_on, **(identity or {})}))
        self._steps = _Steps(self)
        log = RunLog(self.out, tensorboard="tensorboard" in recipe.logging.to)
        super().__init__(
            model=model,
            args=args,
            data_collator=cast(Any, collator),
            train_dataset=cast(Any, dataset),
            callbacks=[log, self._steps, *callbacks],
        )

    # Data

    def get_train_dataloader(self) -> DataLoader:
        """The loader as `RunDataset` wants it: nothing divides or repeats the batches again."""
        return DataLoader(
            cast(Any, self.dataset),
            batch_size=1 if self.objective.whole_batches else self.recipe.data.rows,
            num_workers=self.recipe.data.workers,
            collate_fn=self.data_collator,
            pin_memory=self.args.device.type == "cuda",
            # Of its own: starting to load must not move the randomness of dropout.
            generator=torch.Generator().manual_seed(self.recipe.seed),
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | None]:
        """The micro-batches of a step, and the sum of their loss weights over all processes."""
        batches: list[dict[str, Any]] = []
        weight = torch.zeros(())
        while len(batches) < num_batches and (batch := next(epoch_iterator, None)) is not None:
            batches.append(batch)
            weight = weight + self.objective.weight_of(batch)
        is_short = torch.tensor(float(len(batches) < num_batches))
        divisor, num_short = self.sum_over_processes(torch.stack([weight, is_short]).to(device))

        # An endless order has no end to look for, and looking would make the device wait.
        if self.dataset.ends and num_short > 0:
            step = self.state.global_step + 1
            logger.warning(
                "the data ends before step %d of %d; the run ends here", step, self.state.max_steps
            )
            self._steps.out_of_data = True
            self.control.should_training_stop = True
            return [], None
        for batch in batches:
            self._steps.begin_batch(batch.pop(PROGRESS), batch.pop(ORIGINS))
        return batches, divisor.clamp(min=torch.finfo(torch.float32).tiny)

    # A step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The part of a micro-batch in the loss of the step, times the processes whose gradients are
        averaged.
        """
        divisor = self.objective.weight_of(inputs) if num_items_in_batch is None else num_items_in_batch
        loss, output = self.objective.loss(model, inputs, divisor, in_detail=self._steps.in_detail)
        self._steps.note_loss(loss)
        loss = loss * self.args.world_size
        return (loss, output) if return_outputs else loss

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> float:
        """Operations of a micro-batch, which is counted for the log at the same time."""
        return self.objective.count(inputs)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """AdamW over the groups, on weights that are sharded first where the launch asked for it."""
        if self.optimizer is None:
            model = self.model if model is None else model
            shard_as_launched(model, self.accelerator)
            self.optimizer = build_optimiser(model, self.recipe)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LambdaLR:
        """The schedule of the groups."""
        self.lr_scheduler = build_schedule(optimizer or self.optimizer, self.recipe, num_training_steps)
        return self.lr_scheduler

    # Log and scores

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Writes a line; that of the steps since the last one gets the figures of the objective.

        Raises:
            TrainingError: a loss of these steps was not finite; nothing of them is saved then.
        """
        self.state.epoch = self.dataset.passes
        if "loss" in logs:
            logs = self._steps.line(logs.get("grad_norm"))
        super().log(logs)

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Scores the model and logs it; asks for a checkpoint if this is the best step so far."""
        scores = {}
        self.model.eval()
        with randomness_kept(), torch.no_grad(), self.accelerator.autocast():
            if self.score is not None:
                scores = dict(self.score(self.model))
        self.model.train()
        (scores,) = broadcast_object_list([scores])
        deciding = next((name for name in SCORES if name in scores), None)
        if deciding is None:
            raise TrainingError(
                f"expected a score with point_f1 or score, got {sorted(scores)}; return one of them"
            )

        scores = {f"score/{name}": float(value) for name, value in scores.items()}
        self.log(scores)
        best = best_step(self.state.log_history, f"score/{deciding}")
        if best is not None:
            self.state.best_global_step, self.state.best_metric = best
        if self.state.best_global_step == self.state.global_step:
            self.control.should_save = True
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    # Checkpoints

    def train(self, *_args: Any, **_kwargs: Any) -> TrainOutput:
        """Trains to the end, from the newest complete checkpoint of the folder if there is one.

        Raises:
            TrainingError: a checkpoint of another run, a loss that is not finite, or a checkpoint that cannot
                be written.
        """
        if self.args.should_save:
            self.out.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.out)
        self.all_agree(True)  # nobody looks for checkpoints before the folder is in order
        self.objective.metrics.start()
        newest = newest_checkpoint(self.out)
        if newest is None:
            return super().train()

        started = json.loads((newest / RUN_FILE).read_text(encoding="utf-8"))
        check_same_run(newest, started["identity"], self.identity)
        load_position(self.dataset, newest, self.recipe.data.workers)
        state = TrainerState.load_from_json(str(newest / TRAINER_STATE_NAME))
        self._steps.go_on_after(state.global_step)
        if started["finished"]:
            self.state = state
            self._load_trained(newest)
            return TrainOutput(state.global_step, 0.0, {})
        logger.info("going on from %s", newest)
        if not self.is_fsdp_enabled:
            check_weights(self.model, newest)
        with frozen_left_out(self.model):
            return super().train(resume_from_checkpoint=str(newest))

    def load_best(self) -> Path | None:
        """Puts the weights of the best step into the model, of the newest checkpoint if nothing was scored;
        returns the folder.
        """
        folders = complete_checkpoints(self.out)
        folder = folders.get(self.state.best_global_step or -1, newest_checkpoint(self.out))
        if folder is not None:
            self._load_trained(folder)
        return folder

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes what trains; sharded weights are written together with the optimiser."""
        if self.args.should_save and not self.is_fsdp_enabled:
            save_weights(self.model, Path(output_dir or self.out))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Everything a run needs to go on, whole or not at all.

        Private in Trainer, and overridden because no event comes before its first file and none after a
        failure: it fills a folder of its final name in place, so a killed run would leave half of one, and
        where one process of several finds no room the others wait for it for ever. Here it fills a folder
        beside; all processes agree that theirs is written, and it is renamed.
        """
        step = self.state.global_step
        name = f"checkpoint-{step}"  # Trainer's own
        kept = self.args.output_dir

        def fill(folder: Path) -> None:
            self.args.output_dir = str(folder)
            try:
                super(RunTrainer, self)._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = kept
            save_position(self.dataset, folder / name)
            if self.args.should_save:
                finished = step >= self.state.max_steps or self._steps.out_of_data
                run = {"identity": self.identity, "finished": finished}
                (folder / name / RUN_FILE).write_text(json.dumps(run, indent=1), encoding="utf-8")

        target = checkpoint_folder(self.out, step)
        write_whole(target, fill, inside=name, main=self.args.should_save, all_agree=self.all_agree)
        if self.args.should_save:
            prune(self.out, self.recipe.saving.keep, self.state.best_global_step)

    def _load_trained(self, folder: Path) -> None:
        """The weights of a checkpoint."""
        if self.is_fsdp_enabled:
            load_fsdp_model(self.accelerator.state.fsdp_plugin, self.accelerator, self.model, str(folder))
        else:
            load_weights(self.model, folder)

    # Several processes

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """The sum of what every process has."""
        return cast(Tensor, self.accelerator.reduce(values, "sum"))

    def all_agree(self, ok: bool) -> bool:
        """Waits for all processes; whether all of them say so."""
        failures = self.sum_over_processes(torch.tensor(float(not ok), device=self.args.device))
        return bool(failures == 0)


class _Steps(TrainerCallback):
    """What happens around a step: clipping, the position in the data, and what is due after it.

    Args:
        trainer: that calls it.
    """

    def __init__(self, trainer: RunTrainer) -> None:
        self.trainer = trainer
        self.out_of_data = False
        self.positions: list[Any] = []
        """Of the data after the step that is made."""
        self.origins: deque[Any] = deque()
        """Rows of its micro-batches whose loss is not computed yet."""
        self.losses: list[tuple[int, Any, Tensor]] = []
        """Step, rows and loss of every micro-batch since the last line."""
        self.pace: dict[str, Any] = {}
        """Rates and norms of the groups in the last step."""
        self.logged = 0
        """Step of the last line."""
        self.scored = -1
        """Step of the last score."""

    @property
    def in_detail(self) -> bool:
        """Whether the step that is made gets a line of the log."""
        step = self.trainer.state.global_step + 1
        return step == 1 or step % self.trainer.recipe.logging.every == 0

    def go_on_after(self, step: int) -> None:
        """Goes on behind a checkpoint, which closed a line and was scored if its step had to be."""
        self.logged = step
        self.scored = step

    def begin_batch(self, progress: Sequence[Any], origins: Any) -> None:
        """Notes where a micro-batch comes from."""
        self.positions += progress
        self.origins.append(origins)

    def note_loss(self, loss: Tensor) -> None:
        """Remembers the loss of a micro-batch and its rows, until a line of the log has shown that it was
        finite.
        """
        rows = self.origins.popleft() if self.origins else None
        self.losses.append((self.trainer.state.global_step + 1, rows, loss.detach()))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clips each group to its own limit."""
        optimiser: Optimizer = kwargs["optimizer"]
        norms = clip_groups(optimiser, together=self.trainer.recipe.optimiser.clip_together)
        self.pace = {f"lr/{group['name']}": group["lr"] for group in optimiser.param_groups}
        self.pace |= {f"grad_norm/{name}": norm for name, norm in norms.items()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Notes what was trained on, and says what is due: a line, a score, a checkpoint. Trainer does them
        in this order.
        """
        self.trainer.dataset.record(self.positions)
        self.positions = []
        recipe = self.trainer.recipe
        step = state.global_step
        is_last = control.should_training_stop
        is_time_to_score = recipe.scoring.every > 0 and step % recipe.scoring.every == 0
        self._ask_for(
            control, step, score=is_last or is_time_to_score, save=is_last or step % recipe.saving.every == 0
        )

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Closes a run that ran out of data: that a step was the last one is known only after it was saved."""
        if self.out_of_data:
            self._ask_for(control, state.global_step, score=True, save=True)

    def _ask_for(self, control: TrainerControl, step: int, *, score: bool, save: bool) -> None:
        """Has the model scored and saved after the line is closed: a checkpoint holds no sums of half a line."""
        control.should_evaluate = score and self.trainer.score is not None and step > self.scored
        control.should_save = save
        control.should_log = control.should_log or control.should_evaluate or control.should_save

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the clock of a line anew; scoring is not timed."""
        self.scored = state.global_step
        self.trainer.objective.metrics.start()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the clock of a line anew; saving is not timed."""
        self.trainer.objective.metrics.start()

    def line(self, grad_norm: float | None) -> dict[str, float]:
        """The figures of the steps since the last line.

        Raises:
            TrainingError: a loss was not finite.
        """
        trainer = self.trainer
        step = trainer.state.global_step
        line = trainer.objective.metrics.line(step - self.logged, trainer.sum_over_processes)
        if line.pop("bad"):
            raise TrainingError(self._where_not_finite())
        self.logged = step
        self.losses.clear()

        if grad_norm is not None:
            line["grad_norm"] = grad_norm
        for name, value in self.pace.items():
            line[name] = float(value)
        line["skipped"] = len(trainer.dataset.skipped)
        flops = line.pop("flops_per_s", 0.0)
        device = trainer.args.device
        if device.type == "cuda":
            line["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
            if (peak := peak_flops(device)) is not None:
                line["mfu"] = flops / (peak * trainer.args.world_size)
        return line

    def _where_not_finite(self) -> str:
        """The message about a loss that is no number: step and rows, and where the run can go on."""
        where = "another process"
        for step, rows, loss in self.losses:
            if not torch.isfinite(loss):
                where = f"step {step}, in a batch with the (source, row) pairs {rows}"
                break
        newest = newest_checkpoint(self.trainer.out)
        last = "none" if newest is None else newest.name
        return (
            f"expected a finite loss, got nan or inf in {where}; the last checkpoint, {last}, is from "
            "before. Look at those rows, "
            "lower the peaks or raise the warm-ups of recipe.groups, or train with dtype=float32"
        )
