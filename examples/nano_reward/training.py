"""The training of the embedded reward model: that of `finetune-reward`, on pictures that were seen before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from molmopoint.data.preferences import Preferences, read_preferences
from molmopoint.training.holdout import split_records
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.reward.dataset import PreferenceDataset
from molmopoint.training.reward.finetune import new_network
from molmopoint.training.reward.order import ModalityOrder, modality_of
from molmopoint.training.reward.prepare import Budget, PreferenceCollator
from molmopoint.training.reward.scoring import JudgingScore
from molmopoint.training.reward.trainer import RewardTrainer, reward_section
from nano_reward.adapters import add_up_first
from nano_reward.pictures import SeenPreparer, see_pictures

BASE, RECIPE = "nano", "nano-reward"


def train(data: Path, folder: Path, changes: list[str]) -> dict[str, float]:
    """Trains on the rows of `data`, goes on where it was stopped, and writes the best model to `folder / "model"`.

    Returns:
        Scores on the pictures that are held out.
    """
    recipe = load_recipe(RECIPE, changes)
    section = reward_section(recipe)
    network, builder = new_network(BASE, recipe)
    add_up_first(network.backbone)
    read = read_preferences(data)
    names = sorted({str(record.images[0]) for record in read.records})
    features = see_pictures(data.parent / "features.pt", read.folder, names, network.backbone, builder)
    budget = Budget(recipe.data.max_tokens, section.vision_tokens, section.margin, section.crops, section.frames)
    learned, kept = (Preferences(tuple(part), read.folder) for part in split_records(read.records, recipe.data.held_out, recipe.data.seed))
    preparers = [SeenPreparer(features, names, part.records, part.folder, builder, budget) for part in (learned, kept)]
    order = ModalityOrder([modality_of(record) for record in learned.records], recipe.data.rows, seed=recipe.data.seed)
    steps = recipe.steps or round((recipe.epochs or 1.0) * order.batches_per_epoch)
    collator: Any = PreferenceCollator(builder.processor.tokenizer.pad_token_id)
    score = JudgingScore(preparers[1], recipe.scoring.examples, recipe.scoring.batch_size, torch.bfloat16)
    trainer = RewardTrainer(network, recipe, PreferenceDataset(order, preparers[0]), collator, folder, steps=steps, score=score)
    trainer.train()
    trainer.load_best()
    network.base = BASE
    network.save_pretrained(folder / "model")
    return score(network)
