"""Runs of the reward trainer on a tiny model: it learns, goes on bit by bit after a stop, and several
processes equal one.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_reward import random_reward
from tiny_reward_run import LORA, RECIPE, records, tiny_reward_trainer
from tiny_run import curve
from transformers import TrainerCallback

from molmopoint.errors import ProcessingError
from molmopoint.reward import RowBuilder
from molmopoint.training.metrics import read_log
from molmopoint.training.recipe import GroupSettings
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.reward.losses import reward_losses
from molmopoint.training.reward.prepare import BEST, RANKS, Budget, PreferencePreparer, join_rows
from molmopoint.training.reward.scoring import JudgingScore
from molmopoint.training.run_checkpoints import checkpoint_folder, newest_checkpoint
from molmopoint.training.sampling import Draw

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:accelerate"),
]

TESTS = Path(__file__).resolve().parent.parent


def preparer(folder, *, max_tokens=600, vision=300, crops=(4, 1), attention="causal"):
    model, processor = random_reward(seed=5, attention=attention)
    budget = Budget(max_tokens, vision, 0, crops, 4)
    return model, PreferencePreparer(records(folder), folder, RowBuilder(processor, model.settings), budget)


def test_answers_come_in_a_new_order_every_time_and_ranks_follow(tmp_path):
    _, prepare = preparer(tmp_path)
    prepare.records = [
        replace(record, responses=("a", "b", "c", "d"), rankings=(1, 1, 3, 4)) for record in prepare.records
    ]
    rows = [prepare(Draw(0, 0, 2, epoch)) for epoch in range(40)]
    assert len({tuple(row.ranks.tolist()) for row in rows}) > 8
    decode = prepare.builder.processor.tokenizer.decode
    tied = set()
    for row in rows:
        spans = zip(row.row.response_starts.tolist(), row.row.response_positions.tolist(), strict=True)
        texts = [decode(row.row.input_ids[start : end + 1]).strip()[0] for start, end in spans]
        assert [{"a": 1, "b": 1, "c": 3, "d": 4}[text] for text in texts] == row.ranks.tolist()
        assert row.ranks[row.best] == 1
        tied.add(texts[row.best])
    assert tied == {"a", "b"}
    again = prepare(Draw(9, 0, 2, 7))
    assert torch.equal(again.row.input_ids, rows[7].row.input_ids) and again.best == rows[7].best


def test_what_does_not_fit_gets_fewer_crops_or_is_refused(tmp_path):
    def tokens(**settings):
        _, prepare = preparer(tmp_path, **settings)
        return int(prepare(Draw(0, 1, 9, 0)).row.mm_token_type_ids.sum())

    most, fewest = tokens(crops=(4,)), tokens(crops=(1,))
    assert fewest < most
    assert tokens(vision=most) == most and tokens(vision=most - 1) == fewest
    with pytest.raises(
        ProcessingError,
        match=r"row 10: expected at most 600 tokens, 3 of them of pictures, got \d+ and \d+ with the fewest",
    ):
        tokens(vision=3)
    with pytest.raises(ProcessingError, match="row 10: expected at most 20 tokens"):
        tokens(max_tokens=20)


def test_a_fresh_head_costs_the_logarithm_of_the_number_and_padding_has_no_say(tmp_path):
    model, prepare = preparer(tmp_path)
    with torch.no_grad():
        for parameter in model.value.parameters():
            parameter.mul_(0.001)
    rows = [
        prepare(Draw(0, 0, index, 0)) for index in (0, 1, 2)
    ]  # 2, 3 and 4 answers, one of them with a picture
    batch = join_rows(rows, 0)
    ranks, best = batch.pop(RANKS), batch.pop(BEST)
    losses = reward_losses("ce", model(**batch).scores, ranks, best)
    assert losses.tolist() == pytest.approx([math.log(2), math.log(3), math.log(4)], abs=1e-2)
    losses.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.value.parameters())


def test_a_score_judges_in_both_orders(tmp_path):
    model, prepare = preparer(tmp_path, attention="block")
    scores = JudgingScore(prepare, 12, 4)(model)
    assert scores["order_consistency"] == 1.0  # answers that do not see each other
    assert scores["score"] == scores["top1_accuracy"] and 0 <= scores["score"] <= 1
    by_hand = []
    for record in prepare.records:
        if "5.png" not in record.images:
            row = prepare.builder.row(prepare.prompt(record), record.responses)
            batch = join_rows([type(prepare(Draw(0, 0, 0, 0)))(row, torch.tensor(record.rankings), 0)], 0)
            del batch[RANKS], batch[BEST]
            with torch.no_grad():
                by_hand.append(float(model(**batch).scores.argmax() == 0))
    assert scores["score"] == pytest.approx(sum(by_hand) / len(by_hand))


class StopAfter(TrainerCallback):
    """Dies in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_a_run_that_stops_goes_on_bit_by_bit(tmp_path):
    through = tiny_reward_trainer(tmp_path / "through")
    through.train()
    with pytest.raises(KeyboardInterrupt):
        tiny_reward_trainer(tmp_path / "stopped", callbacks=[StopAfter(3)]).train()
    again = tiny_reward_trainer(tmp_path / "stopped")
    again.train()
    assert (
        curve(tmp_path / "stopped") == curve(tmp_path / "through") and len(curve(tmp_path / "stopped")) == 6
    )
    ours, theirs = weights(again), weights(through)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {name.split(".")[0] for name in ours} == {"value", "backbone"} and all(
        "lora" in name for name in ours if "value" not in name
    )
    line = read_log(tmp_path / "through" / "log.jsonl")[0]
    assert {
        "loss",
        "top1_accuracy",
        "margin",
        "min_reward",
        "mean_reward",
        "max_reward",
        "lr/llm",
        "lr/value",
        "skipped",
    } <= set(line)
    assert line["lr/llm"] == pytest.approx(3e-3)  # no warm-up, and then down to nothing in a line


@pytest.mark.parametrize("learns_along", [False, True])
def test_words_of_the_best_answer_are_learned_beside_the_scores(tmp_path, learns_along):
    section = RECIPE.reward
    assert section is not None
    learned = replace(section, text=1.0, train_text_head=learns_along)
    recipe = replace(
        RECIPE,
        steps=24,
        reward=learned,
        data=replace(RECIPE.data, rows=4),
        logging=replace(RECIPE.logging, every=8),
    )
    trainer = tiny_reward_trainer(tmp_path / "out", recipe)
    network: Any = trainer.model
    table = network.backbone.lm_head.weight
    before = table.detach().clone()
    trainer.train()
    lines = [line for line in read_log(tmp_path / "out" / "log.jsonl") if "loss" in line]
    assert lines[-1]["text_loss"] < 0.95 * lines[0]["text_loss"]
    assert torch.equal(before, table) != learns_along
    network.base = "toy"
    network.save_pretrained(tmp_path / "model")
    stored = [name for file in (tmp_path / "model").glob("*.safetensors") for name in load_file(file)]
    assert stored and not any("lm_head" in name for name in stored)


def test_it_learns_what_is_better(tmp_path):
    faster = GroupSettings(1e-2, 0)
    recipe = replace(
        RECIPE,
        steps=80,
        groups=replace(RECIPE.groups, llm=faster, value=faster),
        lora=replace(LORA, dropout=0.0),
        data=replace(RECIPE.data, rows=4),
        logging=replace(RECIPE.logging, every=20),
        saving=replace(RECIPE.saving, every=80),
    )
    trainer = tiny_reward_trainer(tmp_path / "out", recipe)
    trainer.train()
    lines = [line for line in read_log(tmp_path / "out" / "log.jsonl") if "loss" in line]
    assert (
        lines[-1]["top1_accuracy"] > 0.8
        and lines[-1]["loss"] < 0.7 * lines[0]["loss"]
        and lines[-1]["margin"] > 0
    )
    assert [row.index for row in trainer.dataset.skipped] == [5]


def test_the_recipes_are_as_published():
    recipe = load_recipe("reward")
    assert recipe.reward is not None and recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout, recipe.epochs) == (128, 16, 0.05, 3)
    assert (recipe.reward.loss, recipe.reward.head_width, recipe.reward.activation, recipe.reward.crops) == (
        "ce",
        1024,
        "silu",
        (8, 4, 2, 1),
    )
    assert (
        recipe.data.max_tokens,
        recipe.reward.vision_tokens,
        recipe.reward.margin,
        recipe.data.rows * recipe.accumulation,
    ) == (
        24576,
        16384,
        256,
        8,
    )
    assert {recipe.groups.vit.peak, recipe.groups.connector.peak, recipe.groups.point.peak} == {0.0}
    assert recipe.groups.llm == recipe.groups.value and (
        recipe.groups.llm.peak,
        recipe.groups.llm.warmup,
    ) == (1e-4, 0)
    assert (
        recipe.optimiser.shape,
        recipe.optimiser.floor,
        recipe.optimiser.clip_together,
        recipe.saving.keep,
    ) == ("linear", 0.0, True, 3)
    nano = load_recipe("nano-reward").reward
    assert nano is not None and nano.loss == "plackett_luce"


def run_process(*arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, str(TESTS / "tiny_reward_run.py"), *arguments]
    return subprocess.Popen(
        command, env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_killed_process_goes_on_bit_by_bit(tmp_path, workers):
    assert run_process("kill", str(tmp_path / "through"), workers, "12").wait(600) == 0
    process = run_process("kill", str(tmp_path / "killed"), workers, "12")
    while newest_checkpoint(tmp_path / "killed") is None and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert run_process("kill", str(tmp_path / "killed"), workers, "12").wait(600) == 0
    assert curve(tmp_path / "killed") == curve(tmp_path / "through") and len(curve(tmp_path / "killed")) == 12
    ours, theirs = (
        load_file(checkpoint_folder(tmp_path / name, 12) / "model.safetensors")
        for name in ("killed", "through")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        run_process(
            "together", str(tmp_path / "two"), "1", "2", RANK=str(rank), LOCAL_RANK=str(rank), **together
        )
        for rank in (0, 1)
    ]
    assert [process.wait(600) for process in processes] == [0, 0]
    assert run_process("together", str(tmp_path / "one"), "2", "2").wait(600) == 0
    two, one = (torch.tensor([loss for _, loss in curve(tmp_path / name)]) for name in ("two", "one"))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
