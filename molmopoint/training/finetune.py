"""Fine-tuning from a data file to an exported model that points, in one call.

    result = finetune("data.jsonl", "nano", "learned", replay="synthetic")
    print(result.scores_before["point_f1"], result.scores_after["point_f1"])

The steps are those of `run`; here is what pointing does its own way: its sources, its packed rows, and its
export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from molmopoint.backends import Backend
from molmopoint.data.records import Record
from molmopoint.errors import ProcessingError, RecipeError
from molmopoint.training.augmentation import AugmentedSource
from molmopoint.training.export import export_model, model_card
from molmopoint.training.measuring import count_steps
from molmopoint.training.optimiser import freeze
from molmopoint.training.packed_dataset import PackCollator, PackedDataset
from molmopoint.training.packing import PackingLimits
from molmopoint.training.precision import resolve_precision, settle_precision
from molmopoint.training.prepare import ExamplePreparer, rules_of
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.run import FinetuneResult, Score, name_of, name_of_model, run
from molmopoint.training.run_folder import RunFolder
from molmopoint.training.sampling import DrawOrder
from molmopoint.training.scoring import HeldOutScore, can_be_scored
from molmopoint.training.sources import (
    REPLAY_SEED,
    GroupSource,
    OnProgress,
    Rows,
    SceneSource,
    Source,
    check_apart,
    load_rows,
    no_progress,
    split_records,
)
from molmopoint.training.start import add_adapters, default_recipe, load_start
from molmopoint.training.trees import group_records
from molmopoint.training.vocabulary_rows import split_output_rows

SYNTHETIC = "synthetic"
"""Replay of the scenes that the embedded model was trained on."""

_SHOWN = 12
"""Labels that a card names."""


def finetune(
    data: Rows,
    model: str | Path = "nano",
    out: str | Path = "finetuned",
    recipe: Recipe | str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    held_out: Rows | None = None,
    replay: Rows | None = None,
    on_progress: OnProgress = no_progress,
    log: Callable[[str], None] = lambda text: None,
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
        on_progress: shows how far a preparation is.
        log: gets what happens, in words.

    Raises:
        RecipeError: a faulty recipe.
        ProcessingError: faulty data; the message names the row.
        CheckpointError: a model that cannot be fine-tuned.
        TrainingError: a folder of another run or in use by one, a loss that is not finite, or a checkpoint
            that cannot be written.
    """
    given = recipe if isinstance(recipe, Recipe) else load_recipe(recipe or default_recipe(model), overrides)
    settings = settle_precision(given)
    if settings.reward is not None:
        raise RecipeError(
            "expected a recipe for pointing, got one with a table [reward]; use finetune-reward, or another "
            "recipe"
        )
    return run(PointingTask(settings, model, data, held_out, replay, on_progress), out, log)


@dataclass
class PointingTask:
    """How a model is taught to point; a `Task` of `run`.

    Attributes:
        recipe: of the run.
        model: what it starts from.
        data: the user's rows.
        held_out: rows to score on, None for a part of the data.
        replay: rows of old skills, or "synthetic".
        on_progress: shows how far a preparation is.
    """

    recipe: Recipe
    model: str | Path
    data: Rows
    held_out: Rows | None = None
    replay: Rows | None = None
    on_progress: OnProgress = no_progress

    _rows: RunData = field(init=False)
    _backend: Backend = field(init=False)

    @property
    def files(self) -> Mapping[str, Rows | None]:
        """Its data by use."""
        return {"train": self.data, "held_out": self.held_out, "replay": self.replay}

    @property
    def is_rounded(self) -> bool:
        """Whether frozen weights are kept in fewer bits while others train; all of them are exported."""
        lora = self.recipe.lora
        return self.recipe.bf16_weights or (lora is not None and lora.bits < 16)

    def read_data(self) -> str:
        """Reads and divides the rows; returns what there is, in words."""
        self._rows = load_run_data(self.data, self.held_out, self.replay, self.recipe, self.on_progress)
        return f"trained on: {self._rows.num_train} rows; held out: {self._rows.num_held_out} rows"

    def load_network(self) -> nn.Module:
        """The network as it comes, on the CPU."""
        network, self._backend = load_start(self.model, self.recipe)
        return network

    def held_out_score(self) -> Score | None:
        """Points of `generate` against those of the held-out rows, None without any."""
        if not self._rows.score:
            return None
        return HeldOutScore(
            self._rows.score, self._backend, self.recipe.scoring, resolve_precision(self.recipe.dtype)
        )

    def make_trainer(self, network: nn.Module, folder: Path, score: Score | None, processes: Any) -> Any:
        """The trainer on packed rows, with the network made ready."""
        # Imported when it is known that accelerate is there.
        from molmopoint.training.pointing import pointing_trainer

        recipe, data = self.recipe, self._rows
        make_trainable(network, recipe)
        prepare = ExamplePreparer(data.train, self._backend, rules_of(recipe.data), recipe.data.max_tokens)
        steps = count_steps(recipe, prepare, data.own_share, processes.world_size)

        order = DrawOrder([len(source) for source in data.train], data.rates, seed=recipe.data.seed)
        limits = PackingLimits(
            recipe.data.max_tokens,
            recipe.data.max_crops,
            recipe.data.pool,
            recipe.data.crop_weight,
            max(recipe.data.max_stay, recipe.data.pool),
        )
        dataset = PackedDataset(
            order, prepare, limits, rank=processes.process_index, num_ranks=processes.world_size
        )
        collator = PackCollator(self._backend.patch_token_id, self._backend.processor.tokenizer.pad_token_id)
        names = [source.name for source in data.train]
        return pointing_trainer(
            network, recipe, dataset, collator, folder, steps=steps, sources=names, score=score
        )

    def fresh_network(self) -> nn.Module:
        """The network made ready once more, its frozen weights neither rounded nor sharded."""
        lora = self.recipe.lora
        whole_lora = None if lora is None else replace(lora, bits=16)
        recipe = replace(self.recipe, bf16_weights=False, lora=whole_lora)
        network, _ = load_start(self.model, recipe)
        make_trainable(network, recipe)
        return network

    def export(self, network: nn.Module, folder: RunFolder, result: FinetuneResult) -> None:
        """Writes model, adapters and card."""
        adapter = None if self.recipe.lora is None else folder.adapter
        dtype = resolve_precision(self.recipe.dtype)
        export_model(
            network, self._backend.processor, folder.model, self._card(result), adapter=adapter, dtype=dtype
        )

    def _card(self, result: FinetuneResult) -> str:
        labels = self._rows.labels
        example = labels[0] if labels else "the red circles"
        base = name_of_model(self.model)
        return model_card(
            title=f"{base}, fine-tuned",
            header="pipeline_tag: image-text-to-text\ntags: [pointing, grounding, molmopoint]",
            about=f"{base}, fine-tuned with `molmopoint finetune`.",
            usage=(
                f'pointer = molmopoint.load("this folder or repository")\nprint(pointer.point("picture.jpg", "{example}").points)'
            ),
            data=self._describe_data(),
            recipe=self.recipe,
            steps=result.steps,
            scored=(
                "Measured on the held-out part with `generate`; a point is right if it lies within "
                f"{self.recipe.scoring.tolerance:.0%} "
                "of the picture's longer side from\na target (inside its mask where there are masks). Means "
                "over expressions."
            ),
            before=result.scores_before,
            after=result.scores_after,
        )

    def _describe_data(self) -> str:
        """Sentences about the data for the card; names of files, but no paths of this machine."""
        rows = self._rows
        sentences = [
            f"`{name_of(self.data)}`: {rows.num_train} rows trained on, {rows.num_held_out} rows held out."
        ]
        if rows.labels:
            shown = ", ".join(f"`{label}`" for label in rows.labels[:_SHOWN])
            more = ", ..." if len(rows.labels) > _SHOWN else ""
            sentences.append(f"Labels: {shown}{more}.")
        if self.replay is not None:
            sentences.append(f"Replayed beside it: `{name_of(self.replay)}`.")
        return " ".join(sentences)


def make_trainable(network: nn.Module, recipe: Recipe) -> None:
    """Splits the vocabulary tables, adds the adapters of the recipe, and freezes what it does not train."""
    split_output_rows(network)
    if recipe.lora is not None:
        add_adapters(network, recipe.lora)
    freeze(network, recipe)
    for parameter in network.parameters():
        if recipe.bf16_weights and not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(torch.bfloat16)


# What a run trains on and what it is scored on


@dataclass(frozen=True, eq=False)
class RunData:
    """Sources of a run.

    Attributes:
        train: the user's rows, and what is replayed.
        score: what is asked, by the prefix of its scores: "" for the user's own, "replay_" for old skills.
        rates: share of the draws of each source; None where there is one.
        num_train: the user's rows that are trained on.
        num_held_out: the user's rows that are held out.
        labels: of the rows trained on, each once.
    """

    train: list[Source]
    score: dict[str, Source]
    rates: list[float] | None
    num_train: int
    num_held_out: int
    labels: tuple[str, ...]

    @property
    def own_share(self) -> float:
        """Part of the draws that the user's rows get."""
        return 1.0 if self.rates is None else self.rates[0]


def load_run_data(
    data: Rows, held_out: Rows | None, replay: Rows | None, recipe: Recipe, on_progress: OnProgress
) -> RunData:
    """Checked data, split by picture unless there are held-out rows.

    Raises:
        ProcessingError: a fault of the data, pictures that are both trained and scored on, or nothing to
            train on.
    """
    records, folder = load_rows(data, on_progress=on_progress)
    if held_out is None:
        records, kept = split_records(records, recipe.data.held_out, recipe.data.seed)
        kept_folder = folder
    else:
        kept, kept_folder = load_rows(held_out, on_progress=on_progress)
        check_apart(records, kept, (folder, kept_folder))
        if not any(map(can_be_scored, kept)):
            raise ProcessingError(
                "expected rows with points in the held-out data, got none; scores are about points"
            )

    own = _group_source("data", records, folder, recipe)
    train: list[Source] = [AugmentedSource(own, recipe.augmentation, recipe.data.seed)]
    score: dict[str, Source] = {}
    if any(map(can_be_scored, kept)):
        score[""] = _group_source("held_out", kept, kept_folder, recipe)

    rates = None
    if replay is not None and recipe.data.replay > 0:
        replayed, asked = _replay(replay, recipe, on_progress)
        train.append(replayed)
        rates = [1 - recipe.data.replay, recipe.data.replay]
        if asked is not None and score:
            score["replay_"] = asked
    labels = dict.fromkeys(record.label for record in records if record.label)
    return RunData(train, score, rates, len(records), len(kept), tuple(labels))


def _replay(replay: Rows, recipe: Recipe, on_progress: OnProgress) -> tuple[Source, Source | None]:
    """What is mixed in, and what shows that it is not forgotten."""
    if replay == SYNTHETIC:
        return SceneSource(), SceneSource("replay", REPLAY_SEED + 1, held_out=True)
    records, folder = load_rows(replay, on_progress=on_progress)
    records, kept = split_records(records, recipe.data.held_out, recipe.data.seed)
    trained = _group_source("replay", records, folder, recipe)
    if not any(map(can_be_scored, kept)):
        return trained, None
    return trained, _group_source("replay", kept, folder, recipe)


def _group_source(name: str, records: Sequence[Record], folder: Path, recipe: Recipe) -> GroupSource:
    return GroupSource(name, group_records(records, recipe.data.max_points), folder)
