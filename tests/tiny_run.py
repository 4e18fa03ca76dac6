"""A training run of the tiny model on made-up rows, some without pictures and some without points."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny import PATCHES_PER_CROP, Rows, random_model, tiny_config
from tiny_training import ANSWER, conversation, row

from molmopoint.errors import ProcessingError
from molmopoint.processing.rows import Row
from molmopoint.training.packed_dataset import PackCollator, PackedDataset
from molmopoint.training.packing import PackingLimits
from molmopoint.training.pointing import pointing_trainer
from molmopoint.training.recipe import Data, Groups, GroupSettings, Logging, Recipe, Saving, Scoring
from molmopoint.training.sampling import Draw, DrawOrder

CONFIG = tiny_config()
RECIPE = Recipe(
    steps=6, epochs=None, dtype="float32", gradient_checkpointing=False, residual_dropout=0.1, seed=3,
    groups=Groups(*(GroupSettings(1e-3, 2) for _ in range(4))), data=Data(rows=1, seed=1),
    logging=Logging(every=1, to=()), saving=Saving(every=2, keep=2), scoring=Scoring(every=0),
)  # fmt: skip
SIZES = (14, 10)


def training_row(draw: Draw, *, points: bool = True) -> Row:
    """Rows of source 1 have no picture; of source 0 every third has a picture and no points."""
    if draw.source == 0 and draw.index == 5:
        raise ProcessingError("expected a picture, got a cup")
    seed = 100 * draw.source + draw.index
    maker = Rows(CONFIG, seed)
    (sample,) = maker.prompts([["image"] if draw.source == 0 else []], words=[0])
    triples = ANSWER[seed % 2] if draw.source == 0 and draw.index % 3 and points else ()
    words = maker.words(4 + seed % 5)
    spoken = conversation(CONFIG, words, triples)
    if not triples:
        spoken = (
            words,
            [-1] * len(words),
            [*[-100] * (len(words) - 3), 7, 8, 2],
            [*[0.0] * (len(words) - 3), 0.5, 1.0, 1.0],
        )
    columns: dict[str, Any] = {
        name: torch.tensor(values) for name, values in row(CONFIG, sample, [spoken]).items()
    }
    types = torch.isin(columns["input_ids"], torch.tensor(CONFIG.vision_token_ids)).long()
    crops, table = (sample["parts"][0][1][1], sample["parts"][0][1][2]) if sample["parts"] else (None, None)
    assert crops is None or crops.shape[1] == PATCHES_PER_CROP
    return Row(**columns, mm_token_type_ids=types, pixel_values=crops, pooling=table)


def alternating_row(draw: Draw) -> Row:
    """Even draws have a picture and points, odd ones neither; so the second of two processes has no points at
    all.
    """
    return training_row(replace(draw, source=draw.number % 2, index=(1, 2, 4, 7)[draw.number // 2 % 4]))


def uneven_row(draw: Draw) -> Row:
    """Five of the rows of the second of two processes are broken."""
    if draw.number in (1, 3, 5, 7, 9):
        raise ProcessingError("expected a picture, got none")
    return alternating_row(draw)


def tiny_trainer(
    out: Path,
    recipe: Recipe = RECIPE,
    *,
    model=None,
    rank=0,
    num_ranks=1,
    epochs=None,
    prepare=training_row,
    pool=4,
    **options,
):
    order = DrawOrder(SIZES, seed=recipe.data.seed, epochs=epochs)
    limits = PackingLimits(120, 4, pool_size=pool, max_stay=8)
    dataset = PackedDataset(order, prepare, limits, rank=rank, num_ranks=num_ranks)
    collator = PackCollator(CONFIG.patch_token_id, 0)
    model = random_model(7) if model is None else model
    options = {"steps": recipe.steps, "sources": ("pictures", "words"), **options}
    return pointing_trainer(model, recipe, dataset, collator, out, **options)


def curve(out: Path) -> list[tuple[int, float]]:
    """Step and loss of every logged step."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def train_to_be_killed(out: str, workers: str, steps: str) -> None:
    """A run that tests start as a process of its own, to kill it."""
    recipe = replace(
        RECIPE,
        accumulation=2,
        data=replace(RECIPE.data, workers=int(workers)),
        saving=Saving(every=3, keep=2),
    )
    tiny_trainer(Path(out), recipe, steps=int(steps)).train()


def train_together(out: str, rows: str, accumulation: str, epochs: str) -> None:
    """One of several processes, or all rows in one: each example is a row of its own, so all of them train on
    the same.
    """
    rank, num_ranks = (
        int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))
    )
    recipe = replace(
        RECIPE,
        accumulation=int(accumulation),
        residual_dropout=0.0,
        data=replace(RECIPE.data, rows=int(rows)),
    )
    options = (
        {"epochs": 1, "steps": 50, "prepare": uneven_row}
        if epochs == "1"
        else {"steps": 2, "prepare": alternating_row}
    )
    tiny_trainer(Path(out), recipe, rank=rank, num_ranks=num_ranks, pool=1, **options).train()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads would end the process with an abort now and then


if __name__ == "__main__":
    {"kill": train_to_be_killed, "together": train_together}[sys.argv[1]](*sys.argv[2:])
