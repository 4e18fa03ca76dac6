"""Trains the embedded reward model on a processor: `python examples/train_nano_reward.py STAGE --folder
runs/nano-reward`.

Stages, in this order; each goes on where it was stopped:

    data      draws pictures with questions and four answers of graded quality, and writes them as preferences
    train     trains `nano` on them with the recipe nano-reward: what `molmopoint finetune-reward` does, in half the time. The pictures
              go through the vision side once, before, and adapters are added up before they meet the tokens
    measure   judges 500 unseen questions and writes scores.json
    release   writes head and adapters, the latter in 16 bit, to --target: a few megabytes

More options of the recipe go behind `--set`, as for the command: `--set data.rows=16 --set epochs=1`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano_reward.training import train
from safetensors.torch import load_file, save_file

import molmopoint
from molmopoint.adapters import CONFIG_FILE as ADAPTER_CONFIG
from molmopoint.adapters import WEIGHTS_FILE as ADAPTERS
from molmopoint.data.judging import Judgement, judge_scene, sample_judgement
from molmopoint.data.synthetic import sample_scene
from molmopoint.reward.files import WEIGHTS_FILE as HEAD
from molmopoint.reward.settings import CONFIG_FILE as HEAD_CONFIG

TRAIN_SEED, TEST_SEED = 32_000, 32_001
"""First parts of the seeds of pictures; no other pictures of the project have them."""

FEWER = 0.3
"""Share of the rows from which one or two answers are left out, so that lists of any length are known."""


def write_data(folder: Path, pictures: int, questions: int) -> Path:
    """Pictures and `data.jsonl`; pictures that are there already are drawn again only in memory."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(pictures):
        rng = np.random.default_rng([TRAIN_SEED, number])
        scene = sample_scene(rng, held_out=False, num_queries=0)
        name = f"pictures/{number:05d}.png"
        if not (folder / name).exists():
            scene.image.save(folder / name)
        rows += [row_of(judge_scene(rng, scene), name, rng) for _ in range(questions)]
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def row_of(judgement: Judgement, picture: str, rng: np.random.Generator) -> dict[str, Any]:
    """A row of preferences; now and then without some of the answers that are not right."""
    kept = list(range(len(judgement.responses)))
    if rng.random() < FEWER:
        for _ in range(int(rng.integers(1, 3))):
            kept.pop(int(rng.integers(1, len(kept))))
    answers = {
        "responses": [judgement.responses[i] for i in kept],
        "rankings": [judgement.rankings[i] for i in kept],
    }
    return {"image": picture, "prompt": judgement.prompt, **answers, "source": judgement.kind}


def measure(model: str | Path, number: int, batch_size: int = 25) -> dict[str, float]:
    """Best-of-4 accuracy on unseen questions, by kind; answers in a random order, one order each.

    Args:
        model: zoo name or folder of a reward model.
        number: of questions, question i from the seed [TEST_SEED, i].
        batch_size: questions per run of the model.

    Returns:
        "accuracy", "accuracy_KIND", and "accuracy_without_picture", that of the same questions about a grey
        picture: what the answers alone give away.
    """
    judge = molmopoint.load_reward(model)
    right: dict[str, list[float]] = defaultdict(list)
    for start in range(0, number, batch_size):
        drawn = [np.random.default_rng([TEST_SEED, i]) for i in range(start, min(start + batch_size, number))]
        judgements = [sample_judgement(rng) for rng in drawn]
        orders = [
            rng.permutation(len(judgement.responses))
            for rng, judgement in zip(drawn, judgements, strict=True)
        ]
        for name, blind in (("accuracy", False), ("accuracy_without_picture", True)):
            scores = judge.score_batch(
                [judgement.prompt for judgement in judgements],
                [
                    [judgement.responses[i] for i in order]
                    for judgement, order in zip(judgements, orders, strict=True)
                ],
                [
                    judgement.image.point(lambda _value: 128) if blind else judgement.image
                    for judgement in judgements
                ],
                batch_size=batch_size,
            )
            for judgement, order, of_list in zip(judgements, orders, scores, strict=True):
                best = judgement.rankings[order[int(np.argmax(of_list))]] == 1
                right[name].append(best)
                if not blind:
                    right[f"accuracy_{judgement.kind}"].append(best)
    return {name: float(np.mean(values)) for name, values in right.items()}


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
        print(write_data(arguments.folder, arguments.pictures, arguments.questions))
    elif arguments.stage == "train":
        print(json.dumps(train(arguments.folder / "data.jsonl", run, arguments.changes), indent=2))
    elif arguments.stage == "measure":
        scores = measure(arguments.model or model, arguments.number)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        (arguments.folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(scores, indent=2))
    else:
        release(model, arguments.target)


if __name__ == "__main__":
    main()
