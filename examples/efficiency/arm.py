"""One run: a new decoder on the dense stage's vision transformer learns to point in one form, and is scored
on unseen scenes.
"""

from __future__ import annotations

import copy
import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano.dense import DenseModel, take_over
from nano.files import nano_config
from nano.loop import Stage, train
from nano.pointing import Examples, build_model
from nano.settings import Settings
from nano.validation import greedy_answers
from torch import Tensor

from efficiency.answers import AnswerForm
from efficiency.data import (
    SEARCH_SEED,
    VALIDATION_SEED,
    TrainingData,
    Unseen,
    load_many,
    load_training_data,
    load_unseen,
    visual_features,
)
from efficiency.plan import Plan, Run
from molmopoint.files import write_text_whole
from molmopoint.metrics import match_points
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, collate
from molmopoint.training.precision import autocast

MAX_NEW_TOKENS = 150
_ROWS = 100
"""Questions that are answered at once."""


def starting_model(checkpoint: Path, settings: Settings, seed: int) -> MolmoPointForConditionalGeneration:
    """The vision transformer of the dense stage, frozen, and a new network behind it that is drawn from the
    seed.
    """
    model = build_model(nano_config(settings), seed)
    vision = model.model.vision_tower
    take_over(checkpoint, DenseModel(settings), vision)
    vision.requires_grad_(False)
    return model


@dataclass(frozen=True)
class Workshop:
    """What all runs of a folder share, made when it is first needed.

    Attributes:
        folder: of the comparison.
        plan: of it.
        examples: tokenizer and trunk.
    """

    folder: Path
    plan: Plan
    examples: Examples

    @property
    def checkpoint(self) -> Path:
        """Of the dense stage."""
        return self.folder / "vit.safetensors"

    @cached_property
    def eyes(self) -> MolmoPointForConditionalGeneration:
        """A model that only looks at pictures."""
        return starting_model(self.checkpoint, self.plan.settings(), seed=0)

    @cached_property
    def data(self) -> TrainingData:
        """Pictures of the largest size; smaller ones are their beginning."""
        return load_training_data(
            self.folder / "scenes", self.eyes, max(*self.plan.sizes, self.plan.search_size)
        )

    @cached_property
    def search(self) -> Unseen:
        """Scenes that choose rates and weights."""
        return load_unseen(SEARCH_SEED, self.plan.search_scenes, self.plan, self.eyes)

    @cached_property
    def validation(self) -> Unseen:
        """Scenes of the table."""
        return load_unseen(VALIDATION_SEED, self.plan.val_scenes, self.plan, self.eyes)

    @cached_property
    def many(self) -> Unseen:
        """Scenes that are asked for many objects."""
        return load_many(self.plan.many_scenes, self.plan, self.eyes)


def order_of(size: int, seed: int, steps: int, batch: int) -> np.ndarray:
    """(steps, batch) numbers of the pictures of each step: whole passes in random order, the same for every
    format.
    """
    rng = np.random.default_rng([5, seed])
    passes = -(-steps * batch // size)
    order = np.concatenate([rng.permutation(size) for _ in range(passes)])
    return order[: steps * batch].reshape(steps, batch)


def batch_of(examples: Examples, form: AnswerForm, pictures: list[list[dict]]) -> dict[str, Tensor]:
    """Arguments of the forward pass, pixels left out: one message tree per picture."""
    trunk = Row(examples.trunk_ids, examples.trunk_types)
    rows: list[Row] = []
    for questions in pictures:
        turns = [Turn(examples.prompt(question["prompt"]), form.write(question)) for question in questions]
        tree = MessageTree(trunk, [(turn,) for turn in turns])
        rows.append(build_row(tree, examples.tokenizer.eos_token_id))
    return collate(rows, examples.tokenizer.pad_token_id)


class ArmStage(Stage):
    """A run; of its weights those are kept that answer the search scenes best.

    Args:
        run: what is trained.
        shop: data and plan.
    """

    def __init__(self, run: Run, shop: Workshop) -> None:
        super().__init__()
        self.shop, self.plan = shop, shop.plan
        self.form = AnswerForm(run.format, run.ablation, shop.examples.tokenizer)
        self.model = starting_model(shop.checkpoint, self.plan.arm_settings(), run.seed)
        self.form.configure(self.model)
        self.best = copy.deepcopy(self.model)
        self.modules = {"model": self.model, "best": self.best}
        self.rates = [(self.model, run.rate)]
        self.clipped = self.model
        self.order = order_of(run.size, run.seed, run.steps, self.plan.batch)
        self.items = self.plan.batch * self.plan.questions
        self.notes = {"best": -1.0, "best_step": 0, "seconds": 0.0}
        self.since = time.process_time()

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Of the pictures of this step."""
        numbers = self.order[step]
        batch = batch_of(
            self.shop.examples, self.form, [self.shop.data.questions[number] for number in numbers]
        )
        seen = self.shop.data.seen[torch.from_numpy(numbers)]
        with autocast():
            output = self.model(
                **batch,
                visual_features=visual_features(self.model, seen, self.shop.examples.pooling_of(len(seen))),
            )
        loss: Any = output.loss
        loss.backward()
        parts = {
            name: float(part.detach()) / float(output.weight_sum) for name, part in output.loss_sums.items()
        }
        return {"loss": loss.item(), **parts}

    def after_step(self, step: int, steps: int) -> None:
        """Looks at the search scenes now and then, and keeps the weights that do best there."""
        now = time.process_time()
        self.notes["seconds"] += now - self.since
        self.since = now
        if step % self.plan.score_every and step != steps:
            return
        scores = score(self.model, self.form, self.shop.search, self.shop.examples)
        print(f"step {step}, search scenes: {json.dumps(scores)}", flush=True)
        if scores["f1"] > self.notes["best"]:
            self.notes |= {"best": scores["f1"], "best_step": step}
            self.best.load_state_dict(self.model.state_dict())


@torch.no_grad()
def score(
    model: MolmoPointForConditionalGeneration, form: AnswerForm, unseen: Unseen, examples: Examples
) -> dict[str, float]:
    """Mean F1, exact count and share of answers with too many points over all questions, by decoding answers
    greedily.
    """
    model.eval()
    scores: dict[str, list[float]] = defaultdict(list)
    for first in range(0, len(unseen.asked), _ROWS):
        asked = unseen.asked[first : first + _ROWS]
        prompts = [
            torch.cat([examples.trunk_ids, torch.from_numpy(examples.prompt(query.prompt).ids)])
            for _, query in asked
        ]
        seen = unseen.seen[torch.tensor([scene for scene, _ in asked])]
        with autocast(), form.decoding():
            features = visual_features(model, seen, examples.pooling_of(len(asked)))
            answers = greedy_answers(
                model, examples.tokenizer, prompts, MAX_NEW_TOKENS, visual_features=features
            )
        for (scene, query), answer in zip(asked, answers, strict=True):
            xy = form.read(answer, unseen.scenes[scene].image.size, model.config.extended_start)
            match = match_points(xy, [target.mask for target in query.targets])
            scores["f1"].append(match.f1)
            scores["exact_count"].append(float(match.exact_count))
            scores["too_many"].append(float(match.num_points > match.num_targets))
            scores["f1_present" if query.targets else "f1_absent"].append(match.f1)
    model.train()
    return {key: float(np.mean(values)) for key, values in sorted(scores.items())}


def run_once(run: Run, shop: Workshop) -> dict[str, Any] | None:
    """Trains and scores a run, unless its result is there already; goes on where it was stopped.

    Returns:
        The result; None if the run was stopped before its end.
    """
    path = shop.folder / "runs" / run.name
    result_file = path.with_name(run.name + ".json")
    if result_file.exists():
        return json.loads(result_file.read_text())
    print(run.name, flush=True)
    stage = ArmStage(run, shop)
    steps = train(stage, path, shop.plan.arm_settings(), run.steps, seed=5, log_every=50)
    if steps < run.steps:
        return None
    scores = score(stage.best, stage.form, shop.validation, shop.examples)
    of_many = score(stage.best, stage.form, shop.many, shop.examples)
    scores |= {f"{name}_many": of_many[name] for name in ("f1", "exact_count", "too_many")}
    result = asdict(run) | {
        "scores": scores,
        "best_step": stage.notes["best_step"],
        "search_f1": stage.notes["best"],
    }
    result["processor_seconds"] = round(stage.notes["seconds"])
    write_text_whole(result_file, json.dumps(result) + "\n")
    path.with_name(run.name + ".safetensors").unlink()
    print(run.name, json.dumps({name: round(value, 3) for name, value in scores.items()}), flush=True)
    return result
