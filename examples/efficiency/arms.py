"""One run: the common start learns to point in one form from some examples, and is scored on unseen scenes."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano.pointing import Examples
from nano.running import Log, load_checkpoint, optimiser_for, set_rates
from nano.settings import Settings
from torch import Tensor, nn
from torch.nn.functional import pad

from efficiency.answer_forms import Ablation, AnswerForm, Format
from efficiency.pictures import TrainingData, Unseen, pooling_of, visual_features
from efficiency.plan import Plan
from efficiency.start import new_model
from molmopoint.metrics import match_points
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, collate

_MAX_NEW_TOKENS = 150
_ROWS = 100


@dataclass(frozen=True)
class Run:
    """What sets a run apart.

    Attributes:
        format: of the answers.
        size: number of examples.
        seed: of their order and of new weights.
        rate: peak learning rate.
        steps: optimiser steps.
        ablation: what is left out.
        role: "arm" (a figure of the table) or "search" (helps to choose a rate).
    """

    format: Format
    size: int
    seed: int
    rate: float
    steps: int
    ablation: Ablation = "none"
    role: str = "arm"

    @property
    def name(self) -> str:
        """Stem of the file with its result."""
        what = f"{self.format}_{self.ablation.replace(' ', '-')}" if self.ablation != "none" else self.format
        return f"{self.role}_{what}_{self.size}_seed{self.seed}_rate{self.rate:g}_steps{self.steps}"


def batches_of(size: int, seed: int, steps: int, batch: int) -> Iterator[np.ndarray]:
    """Numbers of the examples of each step, (batch,): whole passes in random order, the same for every format."""
    rng = np.random.default_rng([5, seed])
    passes = -(-steps * batch // size)
    order = np.concatenate([rng.permutation(size) for _ in range(passes)])
    return iter(order[: steps * batch].reshape(steps, batch))


def batch_of(examples: Examples, form: AnswerForm, questions: list[dict]) -> dict[str, Tensor]:
    """Arguments of the forward pass, pixels left out: one question per row."""
    trunk = Row(examples.trunk_ids, examples.trunk_types)
    turns = [Turn(examples.prompt(question["prompt"]), form.write(question)) for question in questions]
    rows = [build_row(MessageTree(trunk, [(turn,)]), examples.tokenizer.eos_token_id) for turn in turns]
    return collate(rows, examples.tokenizer.pad_token_id)


def starting_model(start: Path, form: AnswerForm, seed: int, settings: Settings) -> MolmoPointForConditionalGeneration:
    """The common start; what no earlier stage has trained (pointing heads, rows of grounding tokens) is drawn from the seed."""
    model = new_model(settings)
    load_checkpoint(start, {"model": model})
    form.configure(model)
    torch.manual_seed(seed)
    for module in [*model.model.point_predictor.modules(), model.model.build_vit_embedding]:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


def train_arm(
    run: Run, start: Path, data: TrainingData, examples: Examples, plan: Plan, settings: Settings, log: Log | None = None
) -> MolmoPointForConditionalGeneration:
    """Trains one run from the common start."""
    form = AnswerForm(run.format, run.ablation, examples.tokenizer)
    model = starting_model(start, form, run.seed, settings)
    model.model.vision_tower.requires_grad_(False)
    settings = plan.of_arm(settings)
    optimiser = optimiser_for([(model, run.rate)], settings)
    for step, rows in enumerate(batches_of(run.size, run.seed, run.steps, plan.batch)):
        batch = batch_of(examples, form, [data.questions[i] for i in rows])
        pooling = pooling_of(examples, len(rows))
        set_rates(optimiser, step, run.steps, settings)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**batch, visual_features=visual_features(model, data.seen[torch.from_numpy(rows)], pooling))
        loss: Any = output.loss
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], settings.clip)
        optimiser.step()
        optimiser.zero_grad()
        if log is not None:
            parts = {name: float(value.detach()) / float(output.weight_sum) for name, value in output.loss_sums.items()}
            log.add({"loss": loss.item(), **parts})
            if (step + 1) % 50 == 0:
                log.write(step + 1, 50 * plan.batch)
    return model


@torch.no_grad()
def score(model: MolmoPointForConditionalGeneration, form: AnswerForm, unseen: Unseen, examples: Examples) -> dict[str, float]:
    """Mean F1 and exact count over all questions, both also by kind, by decoding answers greedily."""
    model.eval()
    tokenizer = examples.tokenizer
    scores: dict[str, list[float]] = defaultdict(list)
    for first in range(0, len(unseen.asked), _ROWS):
        asked = unseen.asked[first : first + _ROWS]
        prompts = [torch.cat([examples.trunk_ids, torch.from_numpy(examples.prompt(query.prompt).ids)]) for _, query in asked]
        length = max(map(len, prompts))
        ids = torch.stack([pad(prompt, (length - len(prompt), 0), value=tokenizer.pad_token_id) for prompt in prompts])
        seen = unseen.seen[torch.tensor([scene for scene, _ in asked])]
        with torch.autocast("cpu", torch.bfloat16), form.decoding():
            answers = model.generate(
                input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), max_new_tokens=_MAX_NEW_TOKENS,
                visual_features=visual_features(model, seen, pooling_of(examples, len(asked))),
                do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        for (scene, query), answer in zip(asked, answers[:, length:], strict=True):
            ended = (answer == tokenizer.eos_token_id).nonzero()
            answer = answer[: int(ended[0])] if len(ended) else answer
            xy = form.read(answer, unseen.scenes[scene].image.size, model.config.extended_start)
            match = match_points(xy, [target.mask for target in query.targets])
            scores["f1"].append(match.f1)
            scores["exact_count"].append(float(match.exact_count))
            scores["too_many"].append(float(match.num_points > match.num_targets))
            scores["f1_present" if query.targets else "f1_absent"].append(match.f1)
    return {key: float(np.mean(values)) for key, values in sorted(scores.items())}


def run_once(
    run: Run, folder: Path, data: TrainingData, unseen: Unseen, examples: Examples, plan: Plan, settings: Settings
) -> dict[str, Any]:
    """Trains and scores a run, unless its result is there already; the file appears complete or not at all."""
    path = folder / "runs" / f"{run.name}.json"
    if path.exists():
        return json.loads(path.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    model = train_arm(run, folder / "start.safetensors", data, examples, plan, settings, Log(path.with_suffix(".jsonl")))
    trained = time.perf_counter()
    form = AnswerForm(run.format, run.ablation, examples.tokenizer)
    result = asdict(run) | {"scores": score(model, form, unseen, examples)}
    result["seconds"] = {"training": round(trained - began, 1), "scoring": round(time.perf_counter() - trained, 1)}
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(result) + "\n")
    beside.replace(path)
    print(run.name, json.dumps({key: round(value, 3) for key, value in result["scores"].items()}), flush=True)
    return result
