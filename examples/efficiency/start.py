"""The common start: nano's dense vision transformer, and a text model that answers questions about scenes in words."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano.cache import load_shard, patchify, shard_paths
from nano.dense import DenseModel
from nano.pointing import Examples, build_model
from nano.running import LEAN_ATTENTION, Log, StopRequest, load_checkpoint, optimiser_for, save_checkpoint, set_rates
from nano.settings import Settings
from torch import Tensor, nn

from efficiency.plan import Plan
from efficiency.scene_questions import ask_in_words
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing.grounding_answers import encode_answer
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import IGNORED, Row, collate


def new_model(settings: Settings) -> MolmoPointForConditionalGeneration:
    """An untrained nano with quick attention."""
    model = build_model(settings)
    for config in (model.config.text_config, model.config.vision_config):
        config._attn_implementation = LEAN_ATTENTION
    return model


def word_batch(
    examples: Examples, pixels: Tensor, labels: Tensor, number: int, rng: np.random.Generator
) -> tuple[dict[str, Tensor], list[str]]:
    """A batch of scenes with questions answered in words.

    Args:
        examples: tokenizer and trunk of a picture.
        pixels: (N, CROP, CROP, 3) uint8.
        labels: (N, GRID * GRID, 4) dense labels.
        number: questions per scene at most.
        rng: draws them.

    Returns:
        Arguments of the forward pass, and the kinds of the questions in order.
    """
    rows, kinds = [], []
    for patches, mine in zip(patchify(pixels), labels.numpy(), strict=True):
        questions = ask_in_words(mine, number, rng)
        tokenizer = examples.tokenizer
        turns = [(Turn(examples.chat.prompts([q.text], "image", 1)[0], encode_answer([q.answer], tokenizer)),) for q in questions]
        trunk = Row(examples.trunk_ids, examples.trunk_types, patches[None], examples.pooling)
        rows.append(build_row(MessageTree(trunk, turns), tokenizer.eos_token_id))
        kinds += [q.kind for q in questions]
    return collate(rows, examples.tokenizer.pad_token_id), kinds


def right_answers(logits: Tensor, batch: dict[str, Tensor], kinds: list[str]) -> dict[str, float]:
    """Share of answers that are right word for word (teacher-forced), by kind; `logits` (R, V + A) of the labelled positions."""
    rows, columns = (batch["shift_labels"] != IGNORED).nonzero(as_tuple=True)
    right = logits.argmax(-1) == batch["shift_labels"][rows, columns]
    branch = rows * 1000 + batch["branch_ids"][rows, columns]
    _, owner = torch.unique_consecutive(branch, return_inverse=True)
    exact = torch.ones(len(kinds)).scatter_reduce(0, owner, right.float(), "amin")
    return {kind: float(np.mean([float(e) for e, k in zip(exact, kinds, strict=True) if k == kind])) for kind in sorted(set(kinds))}


def train_start(folder: Path, settings: Settings, plan: Plan, examples: Examples, log_every: int = 50) -> None:
    """Runs or resumes the stage of questions answered in words; writes `start.safetensors`.

    The vision transformer of the dense stage stays as it is. Neither the pointing heads nor the grounding tokens have a
    target here, and no help of nano's pointing stage (its alignment loss) is used, here or later.
    """
    checkpoint, log = folder / "start.safetensors", Log(folder / "start.jsonl")
    settings = replace(settings, warmup=200)
    model = new_model(settings)
    dense = DenseModel(settings)
    load_checkpoint(folder / "vit.safetensors", {"dense": dense})
    model.model.vision_tower.load_state_dict(dense.vision.state_dict())
    model.model.vision_tower.requires_grad_(False)
    optimiser = optimiser_for([(model, plan.start_rate)], settings)
    step = load_checkpoint(checkpoint, {"model": model}, optimiser)["step"] if checkpoint.exists() else 0
    rng = np.random.default_rng([3, step])
    saved, stop = time.monotonic(), StopRequest()
    while step < plan.start_steps and not stop:
        shards = shard_paths(folder / "cache")[: plan.start_shards]
        tensors, _ = load_shard(shards[int(rng.integers(len(shards)))])
        order = rng.permutation(len(tensors["pixels"]))
        for rows in np.array_split(order, len(order) // plan.start_batch):
            if step >= plan.start_steps or stop:
                break
            index = torch.from_numpy(rows)
            batch, kinds = word_batch(examples, tensors["pixels"][index], tensors["labels"][index], plan.start_questions, rng)
            set_rates(optimiser, step, plan.start_steps, settings)
            with torch.autocast("cpu", torch.bfloat16):
                output = model(**batch)
            loss: Any = output.loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            log.add({"loss": loss.item(), **right_answers(output.logits, batch, kinds)})
            if step % log_every == 0:
                log.write(step, log_every * plan.start_batch)
            if time.monotonic() - saved > 60 * settings.save_minutes or step == plan.start_steps or stop:
                save_checkpoint(checkpoint, {"model": model}, optimiser, {"step": step, "steps": plan.start_steps})
                saved = time.monotonic()
