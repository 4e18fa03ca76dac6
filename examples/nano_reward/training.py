"""The training of the embedded reward model: that of `finetune-reward`, on pictures that were seen before."""

from __future__ import annotations

from pathlib import Path

import torch

from molmopoint.data.preferences import read_preferences
from molmopoint.training.finetune import find_processes
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.reward.finetune import budget_of, new_network, new_trainer
from molmopoint.training.reward.scoring import JudgingScore
from molmopoint.training.sources import split_records
from nano_reward.adapters import add_up_first
from nano_reward.pictures import SeenPreparer, see_pictures

BASE, RECIPE = "nano", "nano-reward"


def train(data: Path, folder: Path, changes: list[str]) -> dict[str, float]:
    """Trains on the rows of `data`, goes on where it was stopped, and writes the best model to `folder / "model"`.

    Returns:
        Scores on the pictures that are held out.
    """
    recipe = load_recipe(RECIPE, changes)
    network, builder = new_network(BASE, recipe)
    add_up_first(network.backbone)
    read = read_preferences(data)
    names = sorted({str(record.images[0]) for record in read.records})
    features = see_pictures(data.parent / "features.pt", read.folder, names, network.backbone, builder)
    parts = split_records(read.records, recipe.data.held_out, recipe.data.seed)
    learned, kept = (SeenPreparer(features, names, part, read.folder, builder, budget_of(recipe)) for part in parts)
    score = JudgingScore(kept, recipe.scoring.examples, recipe.scoring.batch_size, torch.bfloat16)
    trainer = new_trainer(network, learned, recipe, folder, score, find_processes(recipe, folder))
    trainer.train()
    trainer.load_best()
    network.base = BASE
    network.save_pretrained(folder / "model")
    return score(network)
