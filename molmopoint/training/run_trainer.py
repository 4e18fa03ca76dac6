"""The part of transformers' Trainer that every run of ours does otherwise: data, checkpoints, scores and the log.

`PointingTrainer` and `RewardTrainer` say what is left: which weights train, what a batch weighs, and its loss.

What callers need to know:

- Every parameter that trains gets a gradient from every batch, or several processes would wait for each other.
- `score` is called on all processes with the model in evaluation mode and must come to the same end on each; its "point_f1", or
  its "score" without that, decides which checkpoint is best (`best_step`), with the standard error it may have under that name and
  "_error". Randomness it uses does not change the training.
- The run ends after `steps`. If the order of the data ends before, it ends before the first step for which any process has not all
  its micro-batches: processes have different numbers of them, and none may wait for one that has stopped.

A recipe in the words of transformers' Trainer.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from molmopoint.errors import RecipeError, TrainingError
from molmopoint.training.metrics import RunLog, peak_flops
from molmopoint.training.optimiser import build_optimiser, build_schedule, clip_groups
from molmopoint.training.packed_dataset import ORIGINS, PROGRESS, RunDataset
from molmopoint.training.recipe import Recipe
from molmopoint.training.run_folder import (
    best_step,
    checkpoint_folder,
    complete_checkpoints,
    newest_checkpoint,
    prune,
    remove_unfinished,
    write_whole,
)
from molmopoint.training.run_state import (
    RUN,
    capture_randomness,
    check_identity,
    load_position,
    load_weights,
    restore_randomness,
    run_identity,
    save_weights,
)
from molmopoint.training.sharding import shard_as_launched


def training_arguments(recipe: Recipe, out: Path, steps: int) -> TrainingArguments:
    """Arguments of the Trainer for a recipe; what `PointingTrainer` does by itself is switched off in them.

    Devices, processes and sharding come from the environment, as `torchrun` and `accelerate launch` set it.

    Args:
        recipe: of the run.
        out: folder of the run.
        steps: optimiser steps.
    """
    on_cpu = not torch.accelerator.is_available()
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=recipe.data.rows,
        gradient_accumulation_steps=recipe.accumulation,
        seed=recipe.seed,
        bf16=recipe.dtype == "bfloat16",
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if recipe.gradient_checkpointing else None,
        max_grad_norm=1.0,  # any value above 0: the limits are those of the groups
        logging_strategy="steps",
        logging_steps=recipe.logging.every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps" if recipe.saving.every else "no",
        save_steps=max(recipe.saving.every, 1),
        eval_strategy="no",
        average_tokens_across_devices=True,
        remove_unused_columns=False,
        ignore_data_skip=True,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if on_cpu and together else None,
        ddp_timeout=3600,
        use_cpu=on_cpu,
        report_to=[name for name in _installed(recipe.logging.to) if name != "tensorboard"] or "none",
    )


def _installed(trackers: tuple[str, ...]) -> tuple[str, ...]:
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f'expected the tracker {name} of logging.to to be installed, got no such package; pip install "molmopoint[train]" '
                f"or {name}, or set logging.to=[]"
            )
    return trackers


logger = logging.getLogger(__name__)


class Metrics(Protocol):
    """What is summed between two lines of the log."""

    def start(self) -> None:
        """Starts a line."""
        ...

    def line(self, steps: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The figures since the last line, of all processes, with "loss" and "bad", losses that are not finite."""
        ...


class RunTrainer(Trainer):
    """Trains on the rows of this process; see the module for what callers need to know.

    Args:
        model: ready to train: adapters in it, the rest frozen.
        recipe: of the run.
        dataset: rows of this process; `rank` and `num_ranks` are those of the environment.
        collator: of its rows; what it returns holds `PROGRESS` and `ORIGINS` beside the arguments of the model.
        out: folder of the run, one for all processes: checkpoints, `log.jsonl`, event files.
        steps: optimiser steps.
        score: of the model on held-out data.
        callbacks: further ones of transformers.
        identity: what else must be the same when a run goes on, such as the name of the model; goes into JSON.
    """

    loss_is_scaled_for_ga = True
    model: nn.Module
    metrics: Metrics

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        dataset: RunDataset,
        collator: Callable[[Any], dict[str, Any]],
        out: Path,
        *,
        steps: int,
        score: Callable[[nn.Module], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if steps < 1:
            raise TrainingError(f"expected one or more steps, got {steps}; set steps or epochs of the recipe")
        args = training_arguments(recipe, out, steps)
        if (dataset.rank, dataset.num_ranks) != (args.process_index, args.world_size):
            raise TrainingError(
                f"expected the rows of process {args.process_index} of {args.world_size}, got those of {dataset.rank} of "
                f"{dataset.num_ranks}; make the dataset with the rank of the environment"
            )
        log = RunLog(out, tensorboard="tensorboard" in recipe.logging.to)
        self.recipe, self.dataset, self.out, self.score = recipe, dataset, out, score
        self.identity = run_identity(recipe, dataset, steps, identity or {})
        rows: Any = dataset
        super().__init__(model=model, args=args, data_collator=collator, train_dataset=rows, callbacks=[log, *callbacks])
        self._pending: list[Any] = []
        self._origins: list[Any] = []
        self._watched: list[tuple[int, Any, Tensor]] = []
        self._pace: dict[str, Any] = {}
        self._scored = self._saved = -1
        self._out_of_data = False

    def weight_of(self, batch: Mapping[str, Any]) -> Tensor:
        """What a micro-batch counts for in the loss of a step, float32; the loss is a sum over it divided by the sum of these."""
        raise NotImplementedError("expected a trainer that says what its batches weigh; use PointingTrainer or RewardTrainer")

    @property
    def items_per_batch(self) -> int:
        """Items of the data that the loader puts into a micro-batch: its rows, unless the data makes whole batches."""
        return self.recipe.data.rows

    def count(self, batch: Mapping[str, Any]) -> None:
        """Notes a micro-batch while it is on the host; nothing by default."""

    def train(self, *_args: Any, **_kwargs: Any) -> TrainOutput:
        """Trains to the end, from the newest complete checkpoint of the folder if there is one.

        Raises:
            TrainingError: a checkpoint of another run, a loss that is not finite, or a checkpoint that cannot be written.
        """
        if self.args.should_save:
            self.out.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.out)
        self._agree(True)
        self.metrics.start()
        newest = newest_checkpoint(self.out)
        if newest is None:
            return super().train()
        check_identity(newest, self.identity)
        load_position(self.dataset, newest, self.recipe.data.workers)
        state = TrainerState.load_from_json(str(newest / TRAINER_STATE_NAME))
        self._saved = self._scored = state.global_step
        logger.info("going on from %s", newest)
        if not json.loads((newest / RUN).read_text(encoding="utf-8"))["finished"]:
            return super().train(resume_from_checkpoint=str(newest))
        self.state = state
        load_weights(self.model, newest)
        return TrainOutput(state.global_step, 0.0, {})

    def load_best(self) -> Path | None:
        """Puts the weights of the best step into the model, of the newest checkpoint if nothing was scored; returns the folder."""
        folders = complete_checkpoints(self.out)
        folder = folders.get(self.state.best_global_step or -1, newest_checkpoint(self.out))
        if folder is not None:
            self._load_from_checkpoint(str(folder), self.model_wrapped if self.is_fsdp_enabled else self.model)
        return folder

    def get_train_dataloader(self) -> DataLoader:
        """The loader as `RunDataset` wants it: nothing divides or repeats the batches again."""
        workers = self.recipe.data.workers
        rows: Any = self.dataset
        return DataLoader(
            rows,
            batch_size=self.items_per_batch,
            num_workers=workers,
            collate_fn=self.data_collator,
            pin_memory=self.args.device.type == "cuda",
            # Of its own: starting to load must not move the randomness of dropout.
            generator=torch.Generator().manual_seed(self.recipe.seed),
        )

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Tensor | None]:
        """The micro-batches of a step, and the sum of their loss weights over all processes."""
        batches = []
        while len(batches) < num_batches and (batch := next(epoch_iterator, None)) is not None:
            batches.append(batch)
        weight = torch.stack([self.weight_of(batch) for batch in batches]).sum() if batches else torch.zeros(())
        told = torch.stack([weight, torch.tensor(float(len(batches) < num_batches))])
        told = self._sum(told.to(device))
        # An endless order has no end to look for, and looking would make the device wait.
        if self.dataset.ends and told[1] > 0:
            logger.warning("the data ends before step %d of %d; the run ends here", self.state.global_step + 1, self.state.max_steps)
            self._out_of_data = self.control.should_training_stop = True
            return [], None
        for batch in batches:
            self._pending += batch.pop(PROGRESS)
            self.count(batch)
        self._origins = [batch.pop(ORIGINS) for batch in batches]
        return batches, told[0].clamp(min=torch.finfo(torch.float32).tiny)

    def watch(self, loss: Tensor) -> None:
        """Remembers the loss of a micro-step and the rows it came from, until a line of the log has shown that it was finite."""
        self._watched.append((self.state.global_step + 1, self._origins.pop(0) if self._origins else None, loss.detach()))

    @property
    def in_detail(self) -> bool:
        """Whether the step that is made gets a line of the log."""
        step = self.state.global_step + 1
        return step == 1 or step % self.recipe.logging.every == 0

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the groups."""
        if self.optimizer is None:
            model = self.model if model is None else model
            shard_as_launched(model, self.accelerator)
            self.optimizer = build_optimiser(model, self.recipe)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The schedule of the groups."""
        if self.lr_scheduler is None:
            self.lr_scheduler = build_schedule(optimizer or self.optimizer, self.recipe, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Counted with the batches, on the host."""
        return 0

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clips group by group; the norm of everything is for the log."""
        norms = clip_groups(self.optimizer, together=self.recipe.optimiser.clip_together)
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        self._pace = {f"lr/{name}": rate for name, rate in rates.items()} | {f"grad_norm/{name}": norm for name, norm in norms.items()}
        return torch.linalg.vector_norm(torch.stack([norm.to(self.args.device) for norm in norms.values()]))

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Tensor | float | None, *args: Any, **kwargs: Any) -> None:
        """After a step: notes what was trained on, then logs, scores and saves what is due. Saving closes a line of the log."""
        self.dataset.record(self._pending)
        self._pending = []
        step, last = self.state.global_step, self.control.should_training_stop
        every = self.recipe.scoring.every
        scoring = self.score is not None and step > self._scored and (last or (every > 0 and step % every == 0))
        # What ends a run that ran out of data is only known after its last step was saved.
        saving = self._out_of_data or (step > self._saved and (last or self.control.should_save))
        if step > self._globalstep_last_logged and (self.control.should_log or scoring or saving):
            self._log_line(tr_loss, grad_norm)
        best = scoring and self._score_model()
        if saving or best:
            self._save_checkpoint(self.model, None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        if scoring or saving:
            self.metrics.start()

    def _log_line(self, tr_loss: Tensor, grad_norm: Tensor | float | None) -> None:
        steps = self.state.global_step - self._globalstep_last_logged
        line = self.metrics.line(steps, self._sum)
        self._check_finite(line.pop("bad"))
        pace = {"grad_norm": grad_norm, **self._pace}
        line |= {name: float(value) for name, value in pace.items() if value is not None}
        line["skipped"] = len(self.dataset.skipped)
        device, flops = self.args.device, line.pop("flops_per_s", 0.0)
        if device.type == "cuda":
            line["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
            if (peak := peak_flops(device)) is not None:
                line["mfu"] = flops / (peak * self.args.world_size)
        tr_loss.zero_()
        self._total_loss_scalar += line["loss"] * steps
        self._globalstep_last_logged = self.state.global_step
        self._watched.clear()
        self.state.epoch = self.dataset.passes
        self.store_flos()
        self.log(line)

    def _check_finite(self, bad: float) -> None:
        """Stops a run whose loss is not a number, before anything of it is saved."""
        if not bad:
            return
        found = [(step, rows) for step, rows, loss in self._watched if not torch.isfinite(loss)]
        where = f"step {found[0][0]}, in a batch with the (source, row) pairs {found[0][1]}" if found else "another process"
        last = newest_checkpoint(self.out)
        raise TrainingError(
            f"expected a finite loss, got nan or inf in {where}; the last checkpoint, {last.name if last else 'none'}, is from before. "
            "Look at those rows, lower the peaks or raise the warm-ups of recipe.groups, or train with dtype=float32"
        )

    def _score_model(self) -> bool:
        """Scores the model and logs it; whether this is the best step so far."""
        kept = capture_randomness()
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            result = self.score(self.model) if self.score is not None else {}
        self.model.train()
        restore_randomness(kept)
        (result,) = broadcast_object_list([dict(result)])
        metric = next((name for name in ("point_f1", "score") if name in result), None)
        if metric is None:
            raise TrainingError(f"expected a score with point_f1 or score, got {sorted(result)}; return one of them")
        self._scored = self.state.global_step
        self.log({f"score/{name}": float(value) for name, value in result.items()})
        self.state.best_global_step, self.state.best_metric = best_step(self.state.log_history, f"score/{metric}") or (None, None)
        return self.state.best_global_step == self.state.global_step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes what trains; sharded weights are written together with the optimiser."""
        if self.args.should_save and not self.is_fsdp_enabled:
            save_weights(self.model, Path(output_dir or self.out))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Everything a run needs to go on, whole or not at all."""
        step = self.state.global_step
        finished = step >= self.state.max_steps or self._out_of_data

        def write(folder: Path) -> None:
            self.save_model(str(folder), _internal_call=True)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
            position = json.dumps(self.dataset.state_dict())
            (folder / f"position-{self.dataset.rank}.json").write_text(position, encoding="utf-8")
            if self.args.should_save:
                told = {"identity": self.identity, "finished": finished}
                (folder / RUN).write_text(json.dumps(told, indent=1), encoding="utf-8")
                self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

        write_whole(checkpoint_folder(self.out, step), write, main=self.args.should_save, agree=self._agree)
        self._saved = step
        if self.args.should_save:
            prune(self.out, self.recipe.saving.keep, self.state.best_global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.model if model is None else model, Path(resume_from_checkpoint))

    def _sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values if self.args.world_size == 1 else cast(Tensor, self.accelerator.reduce(values, "sum"))

    def _agree(self, ok: bool) -> bool:
        """Waits for all processes; whether all of them say so."""
        return ok if self.args.world_size == 1 else bool(self._sum(torch.tensor(float(not ok), device=self.args.device)) == 0)
