"""From rows to an exported model in one call: the steps that teaching to point and teaching to judge share.

    check the folder, read the data, score the model as it comes, train, score the best one, export it with a
    card

The same call again goes on where it was stopped. What differs is a `Task`; `finetune` and `reward.finetune`
have one each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from molmopoint.errors import RecipeError
from molmopoint.training.packed_dataset import SkippedExample
from molmopoint.training.recipe import Recipe
from molmopoint.training.run_folder import RunFolder, identity_of
from molmopoint.training.sources import Rows

if TYPE_CHECKING:
    from molmopoint.training.trainer import RunTrainer

Score = Callable[[nn.Module], dict[str, float]]
"""Scores of a model on what is held out, by name."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a run came to.

    Attributes:
        folder: of the run; the model is in `folder / "model"`.
        scores_before: of the model it started from, on the held-out part; of pointing those of replay begin
            with "replay_", of judging the head knows nothing yet.
        scores_after: of the best model, the one that is exported.
        steps: optimiser steps.
        data: what was trained on, held out and left out, in words.
        skipped: examples that could not be prepared.
    """

    folder: Path
    scores_before: dict[str, float]
    scores_after: dict[str, float]
    steps: int
    data: str
    skipped: tuple[SkippedExample, ...] = ()


class Task(Protocol):
    """What a run does in its own way. The methods are called in the order in which they stand here."""

    recipe: Recipe
    model: str | Path
    """What the run starts from."""

    @property
    def files(self) -> Mapping[str, Rows | None]:
        """Its data by use; another one is another run."""
        ...

    @property
    def is_rounded(self) -> bool:
        """Whether frozen weights that are exported are kept in fewer bits while others train."""
        ...

    def read_data(self) -> str:
        """Reads and divides the rows; returns what there is, in words."""
        ...

    def load_network(self) -> nn.Module:
        """The network as it comes, on the CPU."""
        ...

    def held_out_score(self) -> Score | None:
        """The score, None if nothing is held out."""
        ...

    def make_trainer(
        self, network: nn.Module, folder: Path, score: Score | None, processes: Any
    ) -> RunTrainer:
        """The trainer, with the network made ready."""
        ...

    def fresh_network(self) -> nn.Module:
        """The network made ready once more, its frozen weights neither rounded nor sharded."""
        ...

    def export(self, network: nn.Module, folder: RunFolder, result: FinetuneResult) -> None:
        """Writes the trained network and its card."""
        ...


def run(task: Task, out: str | Path, log: Callable[[str], None]) -> FinetuneResult:
    """Makes a run, or goes on with it.

    Args:
        task: what is taught, and from what.
        out: folder of the run.
        log: gets what happens, in words.

    Raises:
        ProcessingError: faulty data; the message names the row.
        CheckpointError: a model that cannot be fine-tuned.
        TrainingError: a folder of another run or in use by one, a loss that is not finite, or a checkpoint
            that cannot be written.
    """
    folder = RunFolder(Path(out))
    identity = identity_of(task.recipe, task.model, task.files)
    processes = find_processes(task.recipe, folder.path)
    is_main = processes.should_save
    if is_main:
        folder.check(identity)
    with folder.alone(main=is_main):
        if is_main:
            folder.check(identity)  # nobody else can start here any more
        data = task.read_data()
        log(data)
        network = task.load_network()
        if is_main:
            folder.claim(identity)
        score = task.held_out_score()
        before = _scores_before(folder, score, network.to(processes.device), is_main=is_main)
        log(_in_words(before))

        trainer = task.make_trainer(network, folder.path, score, processes)
        _tell_in_rows(trainer, task.recipe, log, scored=score is not None)
        trainer.train()
        trainer.load_best()
        after = {} if score is None else score(trainer.model)

        skipped = tuple(trainer.dataset.skipped)
        result = FinetuneResult(folder.path, before, after, trainer.state.global_step, data, skipped)
        network = _whole(trainer.model, task, is_main=is_main)
        if is_main:
            task.export(network, folder, result)
            folder.write(
                "result.json",
                {"before": before, "after": after, "steps": result.steps, "skipped": len(skipped)},
            )
        return result


def _tell_in_rows(trainer: RunTrainer, recipe: Recipe, log: Callable[[str], None], *, scored: bool) -> None:
    """Tells a run in rows, in place of what Trainer prints."""
    from transformers import PrinterCallback, ProgressCallback

    from molmopoint.training.run_table import RunTable

    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    trainer.add_callback(RunTable(log, every=recipe.scoring.every, scored=scored))


def find_processes(recipe: Recipe, folder: Path) -> Any:
    """Processes and device, as torchrun or accelerate set them up: arguments of Trainer, good for nothing
    else.

    Raises:
        RecipeError: accelerate is missing.
    """
    try:
        from molmopoint.training.trainer import training_arguments

        return training_arguments(recipe, folder, 1)
    except ImportError as error:
        raise RecipeError(
            f'expected accelerate for training, got: {error}; pip install "molmopoint[train]"'
        ) from error


def _scores_before(
    folder: RunFolder, score: Score | None, network: nn.Module, *, is_main: bool
) -> dict[str, float]:
    """Scores of the model as it comes; a run that goes on reads them."""
    known = folder.read("before.json")
    if known is not None:
        return known
    if score is None:
        return {}
    scores = score(network)
    if is_main:
        folder.write("before.json", scores)
    return scores


def _in_words(before: Mapping[str, float]) -> str:
    if not before:
        return "before: nothing is held out"
    scores = ", ".join(f"{name} {value:.3f}" for name, value in before.items())
    return f"before: {scores}"


def _whole(network: nn.Module, task: Task, *, is_main: bool) -> nn.Module:
    """The trained model in one piece and unrounded: what trained, on what the run started from. Of use on the
    main process.
    """
    is_sharded = any(isinstance(parameter, DTensor) for parameter in network.parameters())
    if not task.is_rounded and not is_sharded:
        return network
    trained = gather_trained(network)
    if not is_main:
        return network
    fresh = task.fresh_network()
    copy_trained(trained, fresh)
    return fresh


def gather_trained(model: nn.Module) -> dict[str, Tensor]:
    """What trains, whole and on the CPU; every process that holds a shard must call it."""
    trained = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        tensor = parameter.detach()
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        trained[name] = whole.cpu()
    return trained


def copy_trained(trained: Mapping[str, Tensor], target: nn.Module) -> None:
    """Copies what trained to a model of the same make, whose other weights are neither sharded nor rounded."""
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if name in trained:
                parameter.copy_(trained[name])


def name_of(rows: Rows) -> str:
    """A data file's name without its folder."""
    return Path(rows).name if isinstance(rows, str | Path) else "a data set"


def name_of_model(model: str | Path) -> str:
    """A model's name as it may be published: no paths of this machine."""
    return Path(model).name if Path(model).is_dir() else str(model)
