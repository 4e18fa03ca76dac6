"""Trains the embedded reward model on a processor: `python examples/train_nano_reward.py STAGE --folder
runs/nano-reward`.

Stages, in this order; each goes on where it was stopped:

    data      draws pictures with questions and answers of graded quality, and writes them as preferences; --vague is the share of
              lists that hold answers which commit to nothing
    train     trains `nano` on them with the recipe nano-reward: what `molmopoint finetune-reward` does, in half the time. The pictures
              go through the vision side once, before, and adapters are added up before they meet the tokens. --start goes on with
              a judge that is there
    measure   judges 500 unseen questions and writes scores.json: best of four, the order of the answers, and every family of vague
              answers against wrong ones
    release   writes head and adapters, the latter in 16 bit, to --target: a few megabytes

More options of the recipe go behind `--set`, as for the command: `--set data.rows=16 --set epochs=1`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano_reward.training import train
from safetensors.torch import load_file, save_file

import molmopoint
from molmopoint.adapters import CONFIG_FILE as ADAPTER_CONFIG
from molmopoint.adapters import WEIGHTS_FILE as ADAPTERS
from molmopoint.data.judging import (
    NUM_RESPONSES,
    Judgement,
    ask_about,
    judge_scene,
    judge_with_vague,
    sample_judgement,
    write_answer,
)
from molmopoint.data.questions import SceneQuestion
from molmopoint.data.synthetic import sample_scene
from molmopoint.data.vague import VAGUE_FAMILIES, write_vague
from molmopoint.reward.files import WEIGHTS_FILE as HEAD
from molmopoint.reward.settings import CONFIG_FILE as HEAD_CONFIG

TRAIN_SEED, TEST_SEED, VAGUE_TEST_SEED = 32_000, 32_001, 32_003
"""First parts of the seeds of pictures; no other pictures of the project have them. Training goes on with 32,002."""

VAGUE = 0.4
"""Share of the lists with answers that commit to nothing."""

FEWER = 0.3
"""Share of the rows from which one or two answers are left out, so that lists of any length are known."""


def write_data(
    folder: Path, pictures: int, questions: int, vague: float = VAGUE, seed: int = TRAIN_SEED
) -> Path:
    """Pictures and `data.jsonl`; pictures that are there already are drawn again only in memory.

    Args:
        folder: of the run.
        pictures: to draw.
        questions: about each.
        vague: share of the lists that hold vague answers.
        seed: first part of the seeds of the pictures.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(pictures):
        rng = np.random.default_rng([seed, number])
        scene = sample_scene(rng, held_out=False, num_queries=0)
        name = f"pictures/{number:05d}.png"
        if not (folder / name).exists():
            scene.image.save(folder / name)
        for _ in range(questions):
            if vague and rng.random() < vague:
                rows.append(row_of(judge_with_vague(rng, scene), name, rng, fewer=False))
            else:
                rows.append(row_of(judge_scene(rng, scene), name, rng))
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def row_of(
    judgement: Judgement, picture: str, rng: np.random.Generator, *, fewer: bool = True
) -> dict[str, Any]:
    """A row of preferences.

    Args:
        judgement: what becomes a row.
        picture: its file.
        rng: draws what is left out.
        fewer: leave out some of the answers that are not right, now and then.
    """
    kept = list(range(len(judgement.responses)))
    if fewer and rng.random() < FEWER:
        for _ in range(int(rng.integers(1, 3))):
            kept.pop(int(rng.integers(1, len(kept))))
    answers = {
        "responses": [judgement.responses[i] for i in kept],
        "rankings": [judgement.rankings[i] for i in kept],
    }
    return {"image": picture, "prompt": judgement.prompt, **answers, "source": judgement.kind}


def measure(model: str | Path, number: int, batch_size: int = 25) -> dict[str, float]:
    """What a judge makes of unseen questions.

    Args:
        model: zoo name or folder of a reward model.
        number: of questions, question i from the seed [TEST_SEED, i].
        batch_size: questions per run of the model.

    Returns:
        Best of four, in a random order, one order each: "accuracy", "accuracy_KIND", and
        "accuracy_without_picture", that of the same questions about a grey picture, what the answers alone give
        away; "order_consistency", the share of the questions with the same choice when the answers are turned
        round; and "vague_FAMILY" and "vague_FAMILY_unseen", how often a vague answer is above a wrong one.
    """
    judge = molmopoint.load_reward(model)
    right: dict[str, list[float]] = defaultdict(list)
    for start in range(0, number, batch_size):
        drawn = [np.random.default_rng([TEST_SEED, i]) for i in range(start, min(start + batch_size, number))]
        asked = Asked.of([sample_judgement(rng) for rng in drawn], drawn)
        chosen = asked.choices(judge)
        for judgement, choice in zip(asked.judgements, chosen, strict=True):
            best = judgement.rankings[choice] == 1
            right["accuracy"].append(best)
            right[f"accuracy_{judgement.kind}"].append(best)
        for judgement, choice in zip(asked.judgements, asked.choices(judge, blind=True), strict=True):
            right["accuracy_without_picture"].append(judgement.rankings[choice] == 1)
        for choice, turned in zip(chosen, asked.turned().choices(judge), strict=True):
            right["order_consistency"].append(choice == turned)
    for family in VAGUE_FAMILIES:
        for unseen in (False, True):
            name = f"vague_{family}" + "_unseen" * unseen
            right[name] = vague_above_wrong(judge, family, number, batch_size, unseen=unseen)
    return {name: float(np.mean(values)) for name, values in right.items()}


@dataclass(frozen=True)
class Asked:
    """Questions with their answers in an order.

    Attributes:
        judgements: the questions.
        orders: of the answers of each.
    """

    judgements: list[Judgement]
    orders: list[list[int]]

    @classmethod
    def of(cls, judgements: list[Judgement], drawn: list[np.random.Generator]) -> Asked:
        """Answers in random orders."""
        orders = []
        for judgement, rng in zip(judgements, drawn, strict=True):
            orders.append(rng.permutation(len(judgement.responses)).tolist())
        return cls(judgements, orders)

    def turned(self) -> Asked:
        """The same answers from the last to the first."""
        return Asked(self.judgements, [order[::-1] for order in self.orders])

    def choices(self, judge: Any, *, blind: bool = False) -> list[int]:
        """The best answer of each question, as the number it has in the judgement.

        Args:
            judge: the reward model.
            blind: show it grey pictures.
        """
        images = [judgement.image for judgement in self.judgements]
        if blind:
            images = [image.point(lambda _value: 128) for image in images]
        lists = []
        for judgement, order in zip(self.judgements, self.orders, strict=True):
            lists.append([judgement.responses[i] for i in order])
        prompts = [judgement.prompt for judgement in self.judgements]
        scores = judge.score_batch(prompts, lists, images, batch_size=len(images))
        return [order[int(np.argmax(of_list))] for order, of_list in zip(self.orders, scores, strict=True)]


def vague_above_wrong(
    judge: Any, family: str, number: int, batch_size: int, *, unseen: bool = False
) -> list[float]:
    """For each pair of a vague answer and a wrong one in the same list, whether the vague one scores more.

    A list holds the right answer, wrong ones and one vague answer in the place of the last wrong one.

    Args:
        judge: the reward model.
        family: of the vague answers.
        number: of questions, question i from the seed [VAGUE_TEST_SEED, i].
        batch_size: questions per run of the model.
        unseen: in words that training never has.
    """
    above: list[float] = []
    for start in range(0, number, batch_size):
        prompts, lists, images = [], [], []
        for i in range(start, min(start + batch_size, number)):
            rng = np.random.default_rng([VAGUE_TEST_SEED, i])
            scene = sample_scene(rng, num_queries=0)
            question = ask_about(rng, scene)
            prompts.append(question.prompt)
            lists.append(
                [write_vague(rng, question, family, unseen=unseen), *complete_answers(rng, question)]
            )
            images.append(scene.image)
        for scores in judge.score_batch(prompts, lists, images, batch_size=len(images)):
            vague, _right, *wrong = scores
            above += [float(vague > other) for other in wrong]
    return above


def complete_answers(rng: np.random.Generator, question: SceneQuestion) -> list[str]:
    """The right answer and wrong ones, one fewer than a list has."""
    values = question.answers[: NUM_RESPONSES - 1]
    return [write_answer(rng, question.kind, value, question.noun) for value in values]


def release(model: Path, target: Path) -> None:
    """Writes the files of a trained model to `target`, beside the card, which is written by hand."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (ADAPTER_CONFIG, HEAD_CONFIG, HEAD):
        shutil.copyfile(model / name, target / name)
    adapters = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(model / ADAPTERS).items()}
    save_file(adapters, target / ADAPTERS, metadata={"format": "pt"})
    (target / ADAPTERS).chmod(0o644)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("data", "train", "measure", "release"))
    parser.add_argument("--folder", type=Path, required=True, help="data, checkpoints and scores live here")
    parser.add_argument("--pictures", type=int, default=10_000, help="pictures to draw")
    parser.add_argument("--questions", type=int, default=6, help="questions about each picture")
    parser.add_argument("--vague", type=float, default=VAGUE, help="share of the lists with vague answers")
    parser.add_argument(
        "--seed", type=int, default=TRAIN_SEED, help="first part of the seeds of the pictures"
    )
    parser.add_argument("--start", help="reward model to go on with; by default adapters and head are new")
    parser.add_argument("--number", type=int, default=500, help="unseen questions to judge")
    parser.add_argument("--model", help="reward model to measure; by default the trained one")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="change the recipe"
    )
    parser.add_argument(
        "--target", type=Path, default=Path("checkpoints/nano_reward"), help="where `release` writes"
    )
    arguments = parser.parse_args()
    run, model = arguments.folder / "run", arguments.folder / "run" / "model"
    if arguments.stage == "data":
        print(
            write_data(
                arguments.folder, arguments.pictures, arguments.questions, arguments.vague, arguments.seed
            )
        )
    elif arguments.stage == "train":
        print(
            json.dumps(
                train(arguments.folder / "data.jsonl", run, arguments.changes, arguments.start), indent=2
            )
        )
    elif arguments.stage == "measure":
        scores = measure(arguments.model or model, arguments.number)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        (arguments.folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(scores, indent=2))
    else:
        release(model, arguments.target)


if __name__ == "__main__":
    main()
