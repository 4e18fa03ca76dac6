"""From a file of preferences to a reward model, in one call.

    result = finetune_reward("data.jsonl", "allenai/Molmo2-4B", "judge")
    print(result.scores_before["top1_accuracy"], result.scores_after["top1_accuracy"])

The steps are those of `run`; here is what judging does its own way: its rows, its network, and its export,
which writes head and adapters beside the name of the base.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from molmopoint.checkpoints import registry
from molmopoint.checkpoints.locating import locate
from molmopoint.data.preferences import Preferences, read_preferences
from molmopoint.errors import ProcessingError
from molmopoint.files import write_text_whole
from molmopoint.reward import RewardModel, RewardSettings, RowBuilder
from molmopoint.reward.files import load_processor
from molmopoint.training.export import model_card
from molmopoint.training.precision import resolve_precision, settle_precision
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import load_recipe, recipe_names
from molmopoint.training.reward.dataset import MODALITIES, ModalityOrder, PreferenceDataset, modality_of
from molmopoint.training.reward.objective import make_reward_trainable, reward_section, reward_trainer
from molmopoint.training.reward.prepare import Budget, PreferenceCollator, PreferencePreparer
from molmopoint.training.reward.scoring import JudgingScore
from molmopoint.training.run import FinetuneResult, Score, name_of, name_of_model, run
from molmopoint.training.run_folder import RunFolder
from molmopoint.training.sources import OnProgress, Rows, no_progress, split_records
from molmopoint.training.start import load_network
from molmopoint.training.trainer import RunTrainer


def finetune_reward(
    data: Rows,
    model: str | Path = "nano",
    out: str | Path = "judge",
    recipe: Recipe | str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    held_out: Rows | None = None,
    on_progress: OnProgress = no_progress,
    log: Callable[[str], None] = lambda text: None,
) -> FinetuneResult:
    """Trains a reward model on preferences and writes the best one to `out / "model"`.

    Args:
        data: a JSONL file, or a data set with the same columns, see `molmopoint.data.preferences`.
        model: the backbone: zoo name, hub id or folder of a MolmoPoint or Molmo2.
        out: folder of the run; one of an earlier run goes on.
        recipe: a recipe with a section `reward`, its name or its file; None for that of the model.
        overrides: changes of a named recipe as `key=value`.
        held_out: rows to score on; None holds a part of the pictures, clips and text prompts out.
        on_progress: shows how far a preparation is.
        log: gets what happens, in words.

    Raises:
        RecipeError: a faulty recipe.
        ProcessingError: faulty data; the message names the row.
        CheckpointError: a model that cannot be fine-tuned.
        TrainingError: a folder of another run or in use by one, a loss that is not finite, or a checkpoint
            that cannot be written.
    """
    given = (
        recipe
        if isinstance(recipe, Recipe)
        else load_recipe(recipe or default_reward_recipe(model), overrides)
    )
    settings = settle_precision(given)
    reward_section(settings)
    return run(JudgingTask(settings, model, data, held_out, on_progress), out, log)


def default_reward_recipe(model: str | Path) -> str:
    """The recipe of a model that is named without one: its own if there is one, else the published one."""
    entry = registry.find(str(model))
    own = "" if entry is None else f"{entry.name}-reward"
    return own if own in recipe_names() else "reward"


@dataclass
class JudgingTask:
    """How a model is taught to judge; a `Task` of `training.run`.

    Attributes:
        recipe: of the run, with a section `reward`.
        model: the backbone.
        data: rows of preferences.
        held_out: rows to score on, None for a part of the data.
        on_progress: shows how far a preparation is.
    """

    recipe: Recipe
    model: str | Path
    data: Rows
    held_out: Rows | None = None
    on_progress: OnProgress = no_progress

    _trained: Preferences = field(init=False)
    _kept: Preferences = field(init=False)
    _builder: RowBuilder = field(init=False)

    @property
    def files(self) -> Mapping[str, Rows | None]:
        """Its data by use."""
        return {"train": self.data, "held_out": self.held_out}

    @property
    def is_rounded(self) -> bool:
        """No: with adapters no frozen weight is exported."""
        return False

    def read_data(self) -> str:
        """Reads and divides the rows; returns what there is, in words."""
        read = self._read(self.data)
        if self.held_out is None:
            trained, kept = split_records(read.records, self.recipe.data.held_out, self.recipe.data.seed)
            left_out = {"dropped": read.dropped, "single": read.single, "undecided": read.undecided}
            self._trained = Preferences(tuple(trained), read.folder, **left_out)
            self._kept = Preferences(tuple(kept), read.folder)
        else:
            self._trained = read
            self._kept = self._read(self.held_out)
            _check_apart(self._trained, self._kept)
        return f"trained on: {self._trained.describe()}; held out: {len(self._kept.records)} rows"

    def _read(self, rows: Rows) -> Preferences:
        return read_preferences(
            rows, on_progress=lambda lines: self.on_progress(lines, f"checking {name_of(rows)}")
        )

    def load_network(self) -> RewardModel:
        """The network made ready, on the CPU; its adapters and its head know nothing yet."""
        network, self._builder = new_network(self.model, self.recipe)
        return network

    def held_out_score(self) -> Score | None:
        """How often the best answer of a held-out row gets the highest score, None without any."""
        if not self._kept.records:
            return None
        scoring = self.recipe.scoring
        preparer = self._preparer(self._kept)
        return JudgingScore(
            preparer, scoring.examples, scoring.batch_size, resolve_precision(self.recipe.dtype)
        )

    def make_trainer(self, network: Any, folder: Path, score: Score | None, processes: Any) -> RunTrainer:
        """The trainer on lists of answers."""
        return new_trainer(network, self._preparer(self._trained), self.recipe, folder, score, processes)

    def _preparer(self, data: Preferences) -> PreferencePreparer:
        return PreferencePreparer(data.records, data.folder, self._builder, budget_of(self.recipe))

    def fresh_network(self) -> RewardModel:
        """The network made ready once more, not sharded."""
        network, _ = new_network(self.model, self.recipe)
        return network

    def export(self, network: Any, folder: RunFolder, result: FinetuneResult) -> None:
        """Writes what was trained alone where there are adapters, else all of the model, and the card."""
        if self.recipe.lora is None:
            network.save_pretrained(folder.model, self._builder.processor, merged=True)
        else:
            # Of a base that is a folder the way there from the new one is kept.
            is_folder = Path(self.model).is_dir()
            network.base = os.path.relpath(self.model, folder.model) if is_folder else str(self.model)
            network.save_pretrained(folder.model)
        write_text_whole(folder.model / "README.md", self._card(result))

    def _card(self, result: FinetuneResult) -> str:
        base = name_of_model(self.model)
        kinds = [modality_of(record) for record in self._trained.records]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in MODALITIES if kind in kinds)
        return model_card(
            title=f"{base}, as a reward model",
            header="tags: [reward-model, molmopoint]",
            about=(
                f"{base} with a value head, trained with `molmopoint finetune-reward`: it reads a prompt, a "
                "picture or clip, and all "
                "answers in one pass\nand gives every answer a score. Scores compare the answers of one "
                "list and mean nothing across lists."
            ),
            usage=(
                'judge = molmopoint.load_reward("this folder or repository")\n'
                'print(judge.score("What is in the picture?", ["A cat.", "A dog."], images="picture.jpg"))'
            ),
            data=f"`{name_of(self.data)}`: {self._trained.describe()} ({counted}); {len(self._kept.records)} rows held out.",
            recipe=self.recipe,
            steps=result.steps,
            scored="On the held-out part, every list in two orders, as written and turned round.",
            before=result.scores_before,
            after=result.scores_after,
        )


def _check_apart(trained: Preferences, held_out: Preferences) -> None:
    """Refuses held-out rows on what is trained on: their score would mean nothing."""
    known = dict(_subjects(trained))
    for subject, row in _subjects(held_out):
        if subject in known:
            raise ProcessingError(
                f"row {row} of the held-out data: expected a picture, clip or text prompt that is not "
                "trained on, got that of row "
                f"{known[subject]} of the training data; remove one of them, or leave the held-out file out "
                "and let a part be held out"
            )


def _subjects(data: Preferences) -> Iterator[tuple[Any, int]]:
    """What each row is about: its files, or its prompt."""
    for record in data.records:
        has_files = bool(record.images) or record.video is not None
        for name in record.media:
            subject = (data.folder / name).resolve() if has_files else name
            yield subject, record.row


def new_network(model: str | Path, recipe: Recipe) -> tuple[RewardModel, RowBuilder]:
    """The model that is trained, adapters in it, and what makes its rows.

    Raises:
        CheckpointError: there is no such model, or it is of another family.
    """
    section = reward_section(recipe)
    names = ("layout", "opening", "attention", "pooling", "begin", "head_width", "activation")
    settings = RewardSettings(**{name: getattr(section, name) for name in names})
    source, revision = locate(model)
    backbone = load_network(source, revision, recipe)
    processor = load_processor(source, backbone, revision=revision)
    builder = RowBuilder(processor, settings)
    network = RewardModel(backbone, settings, builder.separator_id, separator=section.separator)
    make_reward_trainable(network, recipe)
    return network, builder


def budget_of(recipe: Recipe) -> Budget:
    """What a row may hold."""
    section = reward_section(recipe)
    crops_per_image = recipe.data.crops_per_image
    return Budget(
        max_tokens=recipe.data.max_tokens,
        vision_tokens=section.vision_tokens,
        margin=section.margin,
        crops=section.crops if crops_per_image is None else (crops_per_image,),
        frames=section.frames,
        folder_frames=section.folder_frames,
    )


def new_trainer(
    network: RewardModel,
    preparer: PreferencePreparer,
    recipe: Recipe,
    folder: Path,
    score: Score | None,
    processes: Any,
) -> RunTrainer:
    """The trainer of a run.

    Args:
        network: with its adapters, see `new_network`.
        preparer: of the rows to train on.
        recipe: of the run.
        folder: of the run.
        score: of the model on held-out rows.
        processes: what `run.find_processes` found.
    """
    data = recipe.data
    kinds = [modality_of(record) for record in preparer.records]
    order = ModalityOrder(kinds, data.rows * processes.world_size, seed=data.seed)
    steps = recipe.steps
    if steps is None:
        batches = (recipe.epochs or 1.0) * order.batches_per_epoch
        steps = max(1, round(batches / recipe.accumulation))
    dataset = PreferenceDataset(
        order,
        preparer,
        rank=processes.process_index,
        num_ranks=processes.world_size,
        identity={"budget": asdict(preparer.budget)},
    )
    collator = PreferenceCollator(preparer.builder.processor.tokenizer.pad_token_id)
    return reward_trainer(network, recipe, dataset, collator, folder, steps=steps, score=score)
