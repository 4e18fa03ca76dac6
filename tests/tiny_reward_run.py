"""A training run of a tiny reward model on made-up preferences, some about pictures and some about nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from tiny_reward import random_reward

from molmopoint.data.preferences import PreferenceRecord
from molmopoint.reward import RowBuilder
from molmopoint.training.recipe import (
    Data,
    Groups,
    GroupSettings,
    Logging,
    Lora,
    Optimiser,
    Recipe,
    Reward,
    Saving,
    Scoring,
)
from molmopoint.training.reward.dataset import ModalityOrder, PreferenceDataset, modality_of
from molmopoint.training.reward.objective import make_reward_trainable, reward_trainer
from molmopoint.training.reward.prepare import Budget, PreferenceCollator, PreferencePreparer

_OFF, _ON = GroupSettings(0.0), GroupSettings(3e-3, 0)
LORA = Lora(rank=4, alpha=4, dropout=0.1)
RECIPE = Recipe(
    steps=6, epochs=None, dtype="float32", gradient_checkpointing=False, seed=3, groups=Groups(_OFF, _OFF, _ON, _OFF, _ON),
    optimiser=Optimiser(betas=(0.9, 0.999), eps=1e-8, shape="linear", floor=0.0, clip_together=True),
    lora=LORA, reward=Reward(head_width=16, crops=(4, 1), margin=0),
    data=Data(rows=2, seed=1, max_tokens=600), logging=Logging(every=1, to=()), saving=Saving(every=2, keep=2),
    scoring=Scoring(every=0),
)  # fmt: skip
"""The published recipe in small."""

ANSWERS = ("good good", "good", "so so", "bad", "bad bad")


def records(folder: Path, number: int = 12) -> list[PreferenceRecord]:
    """Lists of 2 to 4 answers, the more good the better; every other one has a picture, one of them a broken
    one.
    """
    made = []
    for row in range(number):
        answers = ANSWERS[row % 2 : row % 2 + 2 + row % 3]
        name = f"{row}.png"
        if row % 2 and not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (150 + row, 200), (20 * row, 0, 0)).save(folder / name)
        made.append(
            PreferenceRecord(
                row + 1, "How?", answers, tuple(range(1, len(answers) + 1)), (name,) if row % 2 else ()
            )
        )
    (folder / "5.png").write_bytes(b"no picture")
    return made


def tiny_reward_trainer(out: Path, recipe: Recipe = RECIPE, *, rank: int = 0, num_ranks: int = 1, **options):
    model, processor = random_reward(seed=5)
    assert recipe.reward is not None
    with torch.no_grad():
        for parameter in model.value.parameters():
            parameter.mul_(0.05)
    make_reward_trainable(model, recipe)
    rows = records(out.parent / "pictures")
    budget = Budget(
        recipe.data.max_tokens, 300, recipe.reward.margin, recipe.reward.crops, recipe.reward.frames
    )
    preparer = PreferencePreparer(
        rows, out.parent / "pictures", RowBuilder(processor, model.settings), budget
    )
    order = ModalityOrder(
        [modality_of(row) for row in rows], recipe.data.rows * num_ranks, seed=recipe.data.seed
    )
    dataset = PreferenceDataset(order, preparer, rank=rank, num_ranks=num_ranks)
    collator = PreferenceCollator(processor.tokenizer.pad_token_id)
    return reward_trainer(model, recipe, dataset, collator, out, steps=recipe.steps or 1, **options)


def train_to_be_killed(out: str, workers: str, steps: str) -> None:
    """A run that tests start as a process of its own, to kill it."""
    recipe = replace(
        RECIPE, steps=int(steps), accumulation=2, data=replace(RECIPE.data, workers=int(workers))
    )
    tiny_reward_trainer(Path(out), recipe).train()


def train_together(out: str, rows: str, accumulation: str) -> None:
    """One of several processes, or all rows in one."""
    rank, num_ranks = (
        int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))
    )
    recipe = replace(
        RECIPE,
        accumulation=int(accumulation),
        data=replace(RECIPE.data, rows=int(rows)),
        lora=replace(LORA, dropout=0.0),
    )
    tiny_reward_trainer(Path(out), recipe, rank=rank, num_ranks=num_ranks).train()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads would end the process with an abort now and then


if __name__ == "__main__":
    {"kill": train_to_be_killed, "together": train_together}[sys.argv[1]](*sys.argv[2:])
