"""Second stage: the whole model learns to answer questions with points.

One training example is a message tree: one picture and several questions about it. The vision transformer comes from the
first stage and is left alone for the first part of the stage. A small picture has one tile that is equal to its
global view, so both rows of image tokens pool the same crop and the vision transformer runs once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from molmopoint.data.questions import KINDS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline.options import complete_prompt
from molmopoint.processing.chat import ChatWriter
from molmopoint.processing.grounding_answers import EncodedText, encode_answer, write_answer
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, collate
from molmopoint.tokens import IMAGE_COL, IMAGE_END, IMAGE_PATCH, IMAGE_START, LOW_RES_PATCH, LOW_RES_START, NO_MORE_POINTS, NO_SELECTION
from nano.alignment import Alignment, words_of
from nano.cache import load_shard, patchify, shard_paths
from nano.dense import DenseHead, DenseModel, dense_loss
from nano.files import CHAT_TEMPLATE, nano_config
from nano.running import LEAN_ATTENTION, Log, StopRequest, load_checkpoint, optimiser_for, save_checkpoint, set_rates
from nano.settings import GRID, LOCATIONS, Settings

_WINDOW = 2
_POOLED = GRID // _WINDOW
"""Image tokens per side of a crop."""
LESSONS = (("colour",), ("colour", "shape", "both", "count"))
"""Kinds of questions asked first and second; all kinds come after them."""

_SENTENCES = ("Find {}", "Locate {}", "Show me {}", "Where are {}?")
_REPHRASED = 0.1
"""Share of noun phrases that are not asked as "Point to ..."."""


def pooling_table() -> Tensor:
    """(2 * 36, 4): global view and tile, both over the one crop."""
    grid = torch.arange(GRID * GRID).reshape(_POOLED, _WINDOW, _POOLED, _WINDOW)
    rows = grid.permute(0, 2, 1, 3).reshape(-1, _WINDOW * _WINDOW)
    return torch.cat([rows, rows])


def triples_of(points: list[list[float]]) -> np.ndarray:
    """(n, 3) patch, subpatch and location of points (n, 2) given as parts of width and height."""
    xy = np.asarray(points, dtype=np.float64).reshape(-1, 2) * GRID
    cell = np.minimum(xy.astype(np.int64), GRID - 1)
    inner = np.minimum((LOCATIONS * (xy - cell)).astype(np.int64), LOCATIONS - 1)
    patch = _POOLED * _POOLED + (cell[:, 1] // _WINDOW) * _POOLED + cell[:, 0] // _WINDOW
    slot = _WINDOW * (cell[:, 1] % _WINDOW) + cell[:, 0] % _WINDOW
    return np.stack([patch, slot, LOCATIONS * inner[:, 0] + inner[:, 1]], axis=1)


class Examples:
    """Turns cached questions into training batches."""

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        names = (IMAGE_COL, IMAGE_END, IMAGE_PATCH, IMAGE_START, LOW_RES_PATCH, LOW_RES_START)
        ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
        row = [ids[IMAGE_PATCH]] * _POOLED + [ids[IMAGE_COL]]
        vision = [ids[LOW_RES_START], *[ids[LOW_RES_PATCH]] * _POOLED**2, ids[IMAGE_END], ids[IMAGE_START], *row * _POOLED, ids[IMAGE_END]]
        self.trunk_ids = torch.tensor([tokenizer.bos_token_id, *vision])
        self.trunk_types = torch.tensor([0] + [1] * len(vision))
        self.pooling = pooling_table()
        self.chat = ChatWriter(tokenizer, CHAT_TEMPLATE)
        self.prompt = cache(lambda text: self.chat.prompts([complete_prompt(text)], "image", 1)[0])
        self.template = cache(self._template)

    def turn(self, question: dict, rng: np.random.Generator) -> Turn:
        """A cached question and its answer as tokens; some noun phrases become another sentence than the usual one."""
        triples = triples_of(question["points"])
        ids, places = self.template(len(triples), question["label"], question["style"])
        selections = np.full(len(ids), NO_SELECTION)
        if len(triples):
            flat = triples[np.lexsort(triples.T[::-1])].ravel()
            selections[places] = [*flat, NO_MORE_POINTS]
        prompt = question["prompt"]
        if question["style"] == "pointing" and rng.random() < _REPHRASED:
            prompt = _SENTENCES[int(rng.integers(len(_SENTENCES)))].format(prompt)
        return Turn(self.prompt(prompt), EncodedText(ids, selections))

    def batch(
        self, pixels: Tensor, questions: list[list[dict]], rng: np.random.Generator, kinds: Collection[str]
    ) -> tuple[dict[str, Tensor], list[list[str]]]:
        """A batch of message trees.

        Args:
            pixels: (N, CROP, CROP, 3) uint8.
            questions: cached ones, per picture.
            rng: chooses among them.
            kinds: of the questions that may be asked.

        Returns:
            arguments of the forward pass, and per row the phrase behind each of its PATCH tokens.
        """
        rows, phrases = [], []
        for patches, asked in zip(patchify(pixels), questions, strict=True):
            wanted = [question for question in asked if question["kind"] in kinds] or asked[:1]
            chosen = rng.permutation(len(wanted))[: self.settings.branches]
            trunk = Row(self.trunk_ids, self.trunk_types, patches[None], self.pooling)
            tree = MessageTree(trunk, [(self.turn(wanted[i], rng),) for i in chosen])
            rows.append(build_row(tree, self.tokenizer.eos_token_id))
            phrases.append([wanted[i]["label"] for i in chosen for _ in range(len(wanted[i]["points"]) + 1) if wanted[i]["points"]])
        return collate(rows, self.tokenizer.pad_token_id), phrases

    def _template(self, count: int, label: str, style: Any) -> tuple[np.ndarray, np.ndarray]:
        """Ids of an answer with `count` points, and where its grounding tokens stand."""
        encoded = encode_answer(write_answer(np.arange(3 * count).reshape(-1, 3), label, style), self.tokenizer)
        return encoded.ids, np.flatnonzero(encoded.selections != NO_SELECTION)


Check = Callable[[MolmoPointForConditionalGeneration, Examples], dict[str, float]]
"""A look at the model while it trains: scores by name."""


def build_model(settings: Settings) -> MolmoPointForConditionalGeneration:
    """A new model, with weights as large as their inputs are many."""
    torch.manual_seed(1)
    model = MolmoPointForConditionalGeneration(nano_config(settings))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "vision_tower" not in name and name != "lm_head":
            is_output = name.endswith(("self_attn.o_proj", "mlp.down_proj"))
            shrink = math.sqrt(2 * settings.text_layers) if is_output else 1.0
            nn.init.normal_(module.weight, std=module.in_features**-0.5 / shrink)
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.2)
    return model


def load_first_stage(checkpoint: Path, vision: nn.Module, dense: nn.Module, settings: Settings) -> int:
    """Takes over the vision transformer and its dense head; returns the step to start from."""
    trained = DenseModel(settings)
    load_checkpoint(checkpoint, {"dense": trained})
    vision.load_state_dict(trained.vision.state_dict())
    dense.load_state_dict(trained.head.state_dict())
    return 0


def lesson(progress: float, settings: Settings) -> Collection[str]:
    """Kinds of questions asked at this part of the stage."""
    if progress < settings.first_lesson:
        return LESSONS[0]
    return LESSONS[1] if progress < settings.second_lesson else KINDS


def selections_of(batch: dict[str, Tensor], patch_token_id: int) -> Tensor:
    """Selections of all PATCH tokens of a batch, row by row."""
    return batch["selection_ids"][(batch["input_ids"] == patch_token_id) & (batch["selection_ids"] != NO_SELECTION)]


def metrics_of(output: Any, chosen: Tensor) -> dict[str, float]:
    """Losses per target, and how often patch, end of list, slot and location are chosen right (teacher-forced)."""
    sums = output.loss_sums
    values = {"text": float(sums["text"].detach()) / float(output.weight_sum)}
    guess, last = output.patch_logits.argmax(-1), output.patch_logits.shape[1] - 1
    ends = chosen == NO_MORE_POINTS
    right = guess == torch.where(ends, last, chosen)
    values |= {"patch": float(right[~ends].float().mean()), "end": float(right[ends].float().mean())}
    values["patch_loss"] = float(sums["patch"].detach()) / len(chosen)
    for name in ("subpatch", "location"):
        values[name + "_loss"] = float(sums[name].detach()) / int((~ends).sum())
    return values


def train_pointing(folder: Path, settings: Settings, examples: Examples, steps: int, check: Check, log_every: int = 25) -> None:
    """Runs or resumes the second stage; `check` is run with every checkpoint and its numbers are logged."""
    checkpoint, log = folder / "point.safetensors", Log(folder / "point.jsonl")
    model = build_model(settings)
    for config in (model.config.text_config, model.config.vision_config):
        config._attn_implementation = LEAN_ATTENTION
    vision, dense = model.model.vision_tower, DenseHead(model.config.vit_feature_dim)
    alignment = Alignment(model, len(words_of("")), _POOLED**2)
    modules = {"model": model, "dense": dense, "alignment": alignment}
    rates = [
        (vision, settings.point_vit_rate),
        (dense, settings.point_vit_rate),
        (model, settings.point_rate),
        (alignment, settings.point_rate),
    ]
    optimiser = optimiser_for(rates, settings)
    if checkpoint.exists():
        start = load_checkpoint(checkpoint, modules, optimiser)["step"]
    else:
        start = load_first_stage(folder / "vit.safetensors", vision, dense, settings)
    rng = np.random.default_rng([2, start])
    step, saved, stop = start, time.monotonic(), StopRequest()
    while step < steps and not stop:
        shards = shard_paths(folder / "cache")
        tensors, questions = load_shard(shards[int(rng.integers(len(shards)))], with_questions=True)
        for rows in np.array_split(rng.permutation(len(questions)), len(questions) // settings.point_batch):
            if step >= steps or stop:
                break
            vision.requires_grad_(step >= settings.vit_frozen * steps)
            index, kinds = torch.from_numpy(rows), lesson(step / steps, settings)
            batch, phrases = examples.batch(tensors["pixels"][index], [questions[i] for i in rows], rng, kinds)
            set_rates(optimiser, step, steps, settings)
            with torch.autocast("cpu", torch.bfloat16):
                output = model(**batch)
                features = output.grounding_state.vit_features.unflatten(0, (len(rows), GRID * GRID))
                aside, seen = dense_loss(dense(features), tensors["labels"][index])
            fading = max(0.0, 1 - step / (settings.alignment_until * steps))
            chosen = selections_of(batch, model.config.patch_token_id)
            push, spoken = alignment.loss_of_pictures(phrases, tensors["labels"][index], chosen)
            (output.loss + settings.dense_part * aside + settings.alignment_part * fading * push).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            log.add({"norm": norm.item(), "dense_shape": seen["shape"], **spoken, **metrics_of(output, chosen)})
            if step % log_every == 0:
                log.write(step, log_every * settings.point_batch)
            if time.monotonic() - saved > 60 * settings.save_minutes or step == steps or stop:
                save_checkpoint(checkpoint, modules, optimiser, {"step": step, "steps": steps})
                log.write(step, 0, **check(model, examples))
                saved = time.monotonic()
