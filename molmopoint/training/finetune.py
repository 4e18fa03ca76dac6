"""Fine-tuning from a data file to an exported model, in one call.

    result = finetune("data.jsonl", "nano", "learned", replay="synthetic")
    print(result.scores_before["point_f1"], result.scores_after["point_f1"])

The same call again goes on where it was stopped.

What a run finds before it starts: its processes, and what the model it starts from can do.

How many steps a number of passes over the data takes, before anything is packed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from molmopoint.errors import ProcessingError, RecipeError
from molmopoint.training.export import CARD, describe_data, export_model, score_table
from molmopoint.training.families import Family
from molmopoint.training.optimiser import freeze, split_output_rows
from molmopoint.training.packed_dataset import BROKEN, PackCollator, PackedDataset, SkippedExample, size_of_row
from molmopoint.training.packing import PackingLimits
from molmopoint.training.prepare import ExamplePreparer, rules_of
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import load_recipe, recipe_to_dict
from molmopoint.training.run_data import RunData, load_run_data
from molmopoint.training.run_folder import RunFolder, identity_of
from molmopoint.training.sampling import Draw, DrawOrder
from molmopoint.training.scoring import HeldOutScore
from molmopoint.training.sources import Rows, Watch, unwatched
from molmopoint.training.start import add_adapters, copy_trained, default_recipe, gather_trained, load_start

_SAMPLE = 128
"""Examples that are made to learn how large they are."""

_FILLED = 0.95
"""Part of a row that packing fills."""


def count_steps(recipe: Recipe, prepare: ExamplePreparer, share: float, num_ranks: int = 1) -> int:
    """Optimiser steps of a run: those of the recipe, or what its epochs over the first source come to.

    Args:
        recipe: of the run.
        prepare: makes the examples; up to 128 are made to measure them.
        share: part of the draws that the first source gets.
        num_ranks: processes that train together.

    Raises:
        ProcessingError: not one of the measured examples can be made.
    """
    if recipe.steps is not None:
        return recipe.steps
    total = len(prepare.sources[0])
    sizes, reason = [], ""
    for index in np.unique(np.linspace(0, total - 1, min(total, _SAMPLE)).round().astype(int)).tolist():
        try:
            sizes.append(size_of_row(prepare(Draw(index, 0, index, 0))))
        except BROKEN as error:
            reason = str(error)
    if not sizes:
        raise ProcessingError(f"expected examples that can be prepared, got only broken ones ({reason}); run `molmopoint data check`")
    tokens = float(np.mean([size.tokens for size in sizes])) / recipe.data.max_tokens
    crops = float(np.mean([size.crops for size in sizes])) / recipe.data.max_crops
    packs = total / share * max(tokens, crops) / _FILLED
    return max(1, math.ceil((recipe.epochs or 1.0) * packs / (recipe.data.rows * recipe.accumulation * num_ranks)))


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def find_processes(recipe: Recipe, folder: Path) -> Any:
    """Processes and device, as torchrun or accelerate set them up."""
    try:
        from molmopoint.training.trainer import training_arguments

        return training_arguments(recipe, folder, 1)
    except ImportError as error:
        raise RecipeError(f'expected accelerate for training, got: {error}; pip install "molmopoint[train]"') from error


def scores_before(
    folder: RunFolder, score: Callable[[nn.Module], dict[str, float]] | None, network: nn.Module, main: bool
) -> dict[str, float]:
    """Scores of the model as it comes; a run that goes on reads them."""
    known = folder.read("before.json")
    if known is not None or score is None:
        return known or {}
    scores = score(network)
    if main:
        folder.write("before.json", scores)
    return scores


def name_of(rows: Rows) -> str:
    """The file's name without its folder."""
    return Path(rows).name if isinstance(rows, str | Path) else "a data set"


def in_words(when: str, scores: Mapping[str, float]) -> str:
    """Scores in a line."""
    return f"{when}: " + (", ".join(f"{name} {value:.3f}" for name, value in scores.items()) or "nothing is held out")


@dataclass(frozen=True)
class FinetuneResult:
    """What a run came to.

    Attributes:
        folder: of the run; the model is in `folder / "model"`.
        scores_before: of the model it started from, on the held-out part; those of replay begin with "replay_".
        scores_after: of the best model, the one that is exported.
        steps: optimiser steps.
        skipped: examples that could not be prepared.
    """

    folder: Path
    scores_before: dict[str, float]
    scores_after: dict[str, float]
    steps: int
    skipped: tuple[SkippedExample, ...] = ()


def finetune(
    data: Rows,
    model: str | Path = "nano",
    out: str | Path = "finetuned",
    recipe: Recipe | str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    held_out: Rows | None = None,
    replay: Rows | None = None,
    watch: Watch = unwatched,
    say: Callable[[str], None] = lambda text: None,
) -> FinetuneResult:
    """Trains a model on a user's rows and writes the best one to `out / "model"`.

    Args:
        data: a JSONL file, or a data set with the same columns.
        model: zoo name, hub id or folder.
        out: folder of the run; one of an earlier run goes on.
        recipe: a recipe, its name or its file; None for that of the model.
        overrides: changes of a named recipe as `key=value`.
        held_out: rows to score on; None holds a part of the data out.
        replay: rows of old skills to mix in, or "synthetic" for the scenes of the embedded model.
        watch: shows how far a preparation is.
        say: told what happens, in words.

    Raises:
        RecipeError: a faulty recipe.
        ProcessingError: faulty data; the message names the row.
        CheckpointError: a model that cannot be fine-tuned.
        TrainingError: a folder of another run or in use by one, a loss that is not finite, or a checkpoint that cannot be written.
    """
    settings = recipe if isinstance(recipe, Recipe) else load_recipe(recipe or default_recipe(model), overrides)
    if settings.reward is not None:
        raise RecipeError("expected a recipe for pointing, got one with a table [reward]; use finetune-reward, or another recipe")
    folder = RunFolder(Path(out))
    identity = identity_of(settings, model, {"train": data, "held_out": held_out, "replay": replay})
    processes = find_processes(settings, folder.path)
    if processes.should_save:
        folder.check(identity)
    with folder.alone(main=processes.should_save):
        if processes.should_save:
            folder.check(identity)  # nobody else can start here any more
        run_data = load_run_data(data, held_out, replay, settings, watch)
        network, family = load_start(model, settings)
        if processes.should_save:
            folder.claim(identity)
        score = HeldOutScore(run_data.score, family, settings.scoring, DTYPES[settings.dtype]) if run_data.score else None
        before = scores_before(folder, score, network.to(processes.device), processes.should_save)
        say(in_words("before", before))
        trainer = _trainer(network, family, run_data, settings, folder, score, processes)
        trainer.train()
        trainer.load_best()
        after = {} if score is None else score(trainer.model)
        result = FinetuneResult(folder.path, before, after, trainer.state.global_step, tuple(trainer.dataset.skipped))
        network = _whole(trainer.model, model, settings, processes.should_save)
        if processes.should_save:
            card = _card(data, model, replay, settings, run_data, result)
            adapter = None if settings.lora is None else folder.adapter
            export_model(network, family.processor, folder.model, card, adapter=adapter, dtype=DTYPES[settings.dtype])
            folder.write("result.json", {"before": before, "after": after, "steps": result.steps, "skipped": len(result.skipped)})
        return result


def _trainer(
    network: Any, family: Family, data: RunData, recipe: Recipe, folder: RunFolder, score: HeldOutScore | None, processes: Any
) -> Any:
    """The trainer of a run, with the model made ready."""
    from molmopoint.training.pointing import pointing_trainer

    make_trainable(network, recipe)
    limits = PackingLimits(
        recipe.data.max_tokens,
        recipe.data.max_crops,
        recipe.data.pool,
        recipe.data.crop_weight,
        max(recipe.data.max_stay, recipe.data.pool),
    )
    prepare = ExamplePreparer(data.train, family, rules_of(recipe.data), recipe.data.max_tokens)
    order = DrawOrder([len(source) for source in data.train], data.rates, seed=recipe.data.seed)
    steps = count_steps(recipe, prepare, data.own_share, processes.world_size)
    dataset = PackedDataset(order, prepare, limits, rank=processes.process_index, num_ranks=processes.world_size)
    collator = PackCollator(family.patch_token_id, family.processor.tokenizer.pad_token_id)
    names = [source.name for source in data.train]
    return pointing_trainer(network, recipe, dataset, collator, folder.path, steps=steps, score=score, sources=names)


def make_trainable(network: nn.Module, recipe: Recipe) -> None:
    """Splits the vocabulary tables, adds the adapters of the recipe, and freezes what it does not train."""
    split_output_rows(network)
    if recipe.lora is not None:
        add_adapters(network, recipe.lora)
    freeze(network, recipe)
    for parameter in network.parameters():
        if recipe.bf16_weights and not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(torch.bfloat16)


def _whole(network: nn.Module, model: str | Path, recipe: Recipe, main: bool) -> nn.Module:
    """The trained model in one piece and unrounded: what trained, on what the run started from. Of use on the main process."""
    rounded = recipe.bf16_weights or (recipe.lora is not None and recipe.lora.bits < 16)
    if not rounded and not any(isinstance(parameter, DTensor) for parameter in network.parameters()):
        return network
    trained = gather_trained(network)
    if not main:
        return network
    unrounded = replace(recipe, bf16_weights=False, lora=None if recipe.lora is None else replace(recipe.lora, bits=16))
    fresh, _ = load_start(model, unrounded)
    make_trainable(fresh, unrounded)
    copy_trained(trained, fresh)
    return fresh


def _card(data: Rows, model: str | Path, replay: Rows | None, recipe: Recipe, run_data: RunData, result: FinetuneResult) -> str:
    """The model card; names of files, but no paths of this machine."""
    base = Path(model).name if Path(model).is_dir() else str(model)
    return CARD.format(
        base=base,
        example=run_data.labels[0] if run_data.labels else "the red circles",
        data=describe_data(name_of(data), run_data, None if replay is None else name_of(replay)),
        steps=result.steps,
        recipe=json.dumps(recipe_to_dict(recipe), indent=2),
        tolerance=recipe.scoring.tolerance,
        scores=score_table(result.scores_before, result.scores_after),
    )
