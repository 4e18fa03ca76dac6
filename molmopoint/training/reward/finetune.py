"""From a file of preferences to a reward model, in one call.

    result = finetune_reward("data.jsonl", "allenai/Molmo2-4B", "judge")
    print(result.scores_before["top1_accuracy"], result.scores_after["top1_accuracy"])

The same call again goes on where it was stopped.

The backbone that a reward model starts from.

From a trained reward model to a folder that `load_reward` reads: head and adapters beside the name of the base.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor

from molmopoint.checkpoints import registry
from molmopoint.checkpoints.locating import locate
from molmopoint.data.preferences import Preferences, read_preferences
from molmopoint.errors import ProcessingError
from molmopoint.files import write_text_whole
from molmopoint.molmo2 import is_molmo2
from molmopoint.processing import MolmoPointProcessor
from molmopoint.reward import RewardModel, RewardSettings, RowBuilder
from molmopoint.reward.files import load_processor
from molmopoint.training.export import score_table
from molmopoint.training.finetune import DTYPES, find_processes, in_words, name_of, scores_before
from molmopoint.training.packed_dataset import SkippedExample
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import load_recipe, recipe_names, recipe_to_dict
from molmopoint.training.reward.dataset import MODALITIES, ModalityOrder, PreferenceDataset, modality_of
from molmopoint.training.reward.objective import make_reward_trainable, reward_section, reward_trainer
from molmopoint.training.reward.prepare import Budget, PreferenceCollator, PreferencePreparer
from molmopoint.training.reward.scoring import JudgingScore
from molmopoint.training.run_folder import RunFolder, identity_of
from molmopoint.training.sources import Rows, Watch, split_records, unwatched
from molmopoint.training.start import copy_trained, gather_trained, load_network
from molmopoint.training.trainer import RunTrainer

CARD = """---
library_name: molmopoint
tags: [reward-model, molmopoint]
---

# {base}, as a reward model

{base} with a value head, trained with `molmopoint finetune-reward`: it reads a prompt, a picture or clip, and all answers in one pass
and gives every answer a score. Scores compare the answers of one list and mean nothing across lists.

```python
import molmopoint

judge = molmopoint.load_reward("this folder or repository")
print(judge.score("What is in the picture?", ["A cat.", "A dog."], images="picture.jpg"))
```

## Data

{data}

## Training

{steps} optimiser steps. The recipe:

```json
{recipe}
```

## Scores

On the held-out part, every list in two orders, as written and turned round. The checkpoint was chosen by its score on this same part, so
the score after training is a little too good.

{scores}

Licence: that of the model it was made from and of the data; to be filled in by whoever publishes it.
"""


def export_reward(model: RewardModel, processor: Any, folder: Path, card: str, *, base: str | Path, recipe: Recipe) -> None:
    """Writes a trained reward model: with adapters what was trained alone, else all of it.

    Args:
        model: as trained, in one piece.
        processor: written where all of the model is.
        folder: where the model goes.
        card: text of its README.md.
        base: what the training started from; of a folder the way there from the new one is kept.
        recipe: of the run.
    """
    if recipe.lora is None:
        model.save_pretrained(folder, processor, merged=True)
    else:
        model.base = os.path.relpath(base, folder) if Path(base).is_dir() else str(base)
        model.save_pretrained(folder)
    write_text_whole(folder / "README.md", card)


def default_reward_recipe(model: str | Path) -> str:
    """The recipe of a model that is named without one: its own if there is one, else the published one."""
    entry = registry.find(str(model))
    own = "" if entry is None else f"{entry.name}-reward"
    return own if own in recipe_names() else "reward"


def load_reward_start(model: str | Path, recipe: Recipe) -> tuple[Any, MolmoPointProcessor]:
    """Backbone in training precision on the CPU, and its processor.

    Raises:
        CheckpointError: there is no such model, or it is of another family.
    """
    source, revision = locate(model)
    network = load_network(source, revision, recipe)
    return network, load_processor(source, is_molmo2(network.config), revision=revision)


@dataclass(frozen=True)
class RewardResult:
    """What a run came to.

    Attributes:
        folder: of the run; the model is in `folder / "model"`.
        scores_before: on the held-out part, of the model before training, whose head knows nothing.
        scores_after: of the best model, the one that is exported.
        steps: optimiser steps.
        data: what was read and what was left out, in words.
        skipped: rows that could not be trained on.
    """

    folder: Path
    scores_before: dict[str, float]
    scores_after: dict[str, float]
    steps: int
    data: str
    skipped: tuple[SkippedExample, ...] = ()


def finetune_reward(
    data: Rows,
    model: str | Path = "nano",
    out: str | Path = "judge",
    recipe: Recipe | str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    held_out: Rows | None = None,
    watch: Watch = unwatched,
    say: Callable[[str], None] = lambda text: None,
) -> RewardResult:
    """Trains a reward model on preferences and writes the best one to `out / "model"`.

    Args:
        data: a JSONL file, or a data set with the same columns, see `molmopoint.data.preferences`.
        model: the backbone: zoo name, hub id or folder of a MolmoPoint or Molmo2.
        out: folder of the run; one of an earlier run goes on.
        recipe: a recipe with a section `reward`, its name or its file; None for that of the model.
        overrides: changes of a named recipe as `key=value`.
        held_out: rows to score on; None holds a part of the pictures, clips and text prompts out.
        watch: shows how far a preparation is.
        say: told what happens, in words.

    Raises:
        RecipeError: a faulty recipe.
        ProcessingError: faulty data; the message names the row.
        CheckpointError: a model that cannot be fine-tuned.
        TrainingError: a folder of another run or in use by one, a loss that is not finite, or a checkpoint that cannot be written.
    """
    settings = recipe if isinstance(recipe, Recipe) else load_recipe(recipe or default_reward_recipe(model), overrides)
    reward_section(settings)
    folder = RunFolder(Path(out))
    identity = identity_of(settings, model, {"train": data, "held_out": held_out})
    processes = find_processes(settings, folder.path)
    if processes.should_save:
        folder.check(identity)
    with folder.alone(main=processes.should_save):
        if processes.should_save:
            folder.check(identity)  # nobody else can start here any more
        train, kept = _split(data, held_out, settings, watch)
        say(f"trained on: {train.describe()}; held out: {len(kept.records)} rows")
        network, builder = new_network(model, settings)
        if processes.should_save:
            folder.claim(identity)
        score = None
        if kept.records:
            scoring, dtype = settings.scoring, DTYPES[settings.dtype]
            score = JudgingScore(_preparer(kept, builder, settings), scoring.examples, scoring.batch_size, dtype)
        before = scores_before(folder, score, network.to(processes.device), processes.should_save)
        say(in_words("before", before))
        trainer = new_trainer(network, _preparer(train, builder, settings), settings, folder.path, score, processes)
        trainer.train()
        trainer.load_best()
        after = {} if score is None else score(trainer.model)
        result = RewardResult(folder.path, before, after, trainer.state.global_step, train.describe(), tuple(trainer.dataset.skipped))
        network = _whole(trainer.model, model, settings, processes.should_save)
        if processes.should_save:
            card = _card(data, model, settings, train, kept, result)
            export_reward(network, builder.processor, folder.model, card, base=model, recipe=settings)
            folder.write("result.json", {"before": before, "after": after, "steps": result.steps, "skipped": len(result.skipped)})
        return result


def _split(data: Rows, held_out: Rows | None, recipe: Recipe, watch: Watch) -> tuple[Preferences, Preferences]:
    """Rows to train on, and rows to score on."""
    read = read_preferences(data, watch=lambda rows: watch(rows, f"checking {name_of(data)}"))
    if held_out is not None:
        kept = read_preferences(held_out, watch=lambda rows: watch(rows, f"checking {name_of(held_out)}"))
        _check_apart(read, kept)
        return read, kept
    trained, rest = split_records(read.records, recipe.data.held_out, recipe.data.seed)
    told = {"dropped": read.dropped, "single": read.single, "undecided": read.undecided}
    return Preferences(tuple(trained), read.folder, **told), Preferences(tuple(rest), read.folder)


def _check_apart(trained: Preferences, held_out: Preferences) -> None:
    """Refuses held-out rows on what is trained on: their score would mean nothing."""

    def subjects(data: Preferences) -> Iterator[tuple[Any, int]]:
        for record in data.records:
            has_files = record.images or record.video is not None
            yield from (((data.folder / name).resolve() if has_files else name, record.row) for name in record.media)

    known = dict(subjects(trained))
    for subject, row in subjects(held_out):
        if subject in known:
            raise ProcessingError(
                f"row {row} of the held-out data: expected a picture, clip or text prompt that is not trained on, got that of row "
                f"{known[subject]} of the training data; remove one of them, or leave the held-out file out and let a part be held out"
            )


def new_network(model: str | Path, recipe: Recipe) -> tuple[RewardModel, RowBuilder]:
    """The model that is trained, adapters in it, and what makes its rows."""
    section = reward_section(recipe)
    names = ("layout", "opening", "attention", "pooling", "begin", "head_width", "activation")
    settings = RewardSettings(**{name: getattr(section, name) for name in names})
    backbone, processor = load_reward_start(model, recipe)
    builder = RowBuilder(processor, settings)
    network = RewardModel(backbone, settings, builder.separator_id, separator=section.separator)
    make_reward_trainable(network, recipe)
    return network, builder


def _whole(network: Any, model: str | Path, recipe: Recipe, main: bool) -> RewardModel:
    """The trained model in one piece: what trained, on what the run started from. Of use on the main process."""
    if not any(isinstance(parameter, DTensor) for parameter in network.parameters()):
        return network
    trained = gather_trained(network)
    fresh, _ = new_network(model, recipe) if main else (network, None)
    if main:
        copy_trained(trained, fresh)
    return fresh


def budget_of(recipe: Recipe) -> Budget:
    """What a row may hold."""
    section = reward_section(recipe)
    crops = section.crops if recipe.data.crops_per_image is None else (recipe.data.crops_per_image,)
    return Budget(recipe.data.max_tokens, section.vision_tokens, section.margin, crops, section.frames, section.folder_frames)


def _preparer(data: Preferences, builder: RowBuilder, recipe: Recipe) -> PreferencePreparer:
    return PreferencePreparer(data.records, data.folder, builder, budget_of(recipe))


def new_trainer(
    network: RewardModel, preparer: PreferencePreparer, recipe: Recipe, folder: Path, score: JudgingScore | None, processes: Any
) -> RunTrainer:
    """The trainer of a run.

    Args:
        network: with its adapters, see `new_network`.
        preparer: of the rows to train on.
        recipe: of the run.
        folder: of the run.
        score: of the model on held-out rows.
        processes: what `find_processes` found.
    """
    order = ModalityOrder([modality_of(r) for r in preparer.records], recipe.data.rows * processes.world_size, seed=recipe.data.seed)
    steps = recipe.steps or max(1, round((recipe.epochs or 1.0) * order.batches_per_epoch / recipe.accumulation))
    dataset = PreferenceDataset(
        order, preparer, rank=processes.process_index, num_ranks=processes.world_size, identity={"budget": asdict(preparer.budget)}
    )
    collator = PreferenceCollator(preparer.builder.processor.tokenizer.pad_token_id)
    return reward_trainer(network, recipe, dataset, collator, folder, steps=steps, score=score)


def _card(data: Rows, model: str | Path, recipe: Recipe, train: Preferences, kept: Preferences, result: RewardResult) -> str:
    """The model card; names of files, but no paths of this machine."""
    kinds = [modality_of(record) for record in train.records]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in MODALITIES if kind in kinds)
    return CARD.format(
        base=Path(model).name if Path(model).is_dir() else str(model),
        data=f"`{name_of(data)}`: {train.describe()} ({counted}); {len(kept.records)} rows held out.",
        steps=result.steps,
        recipe=json.dumps(recipe_to_dict(recipe), indent=2),
        scores=score_table(result.scores_before, result.scores_after),
    )
