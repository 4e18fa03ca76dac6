"""Third stage: the whole model but its vision transformer learns to point and to track in clips, and keeps what it knows of pictures.

Every step sees some clips and some scenes of the stages before. An alignment loss fades out as in the second stage; here its
words also name motions, so that an image token learns from the frames around it what its object does. What is released is
a moving average of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from molmopoint.data.clip_questions import CLIP_KINDS
from molmopoint.data.questions import KINDS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from nano.alignment import Alignment
from nano.cache import load_shard, shard_paths
from nano.clip_cache import POOLED, WORDS, CachedClip, clip_shard_paths, load_clip_shard
from nano.clip_examples import LOOKS, ClipBatch, ClipExamples
from nano.motion import Motion
from nano.pointing import Examples, metrics_of, selections_of
from nano.running import LEAN_ATTENTION, Log, StopRequest, load_checkpoint, optimiser_for, save_checkpoint, set_rates
from nano.settings import Settings

_HUSHED = 0.99
"""Per step."""
_ASIDE = 3
"""Learning rate of what is thrown away, in those of the model."""
_MOST_FRAMES = 16
"""Places of the alignment loss are told apart up to this many frames."""

Check = Callable[[MolmoPointForConditionalGeneration], dict[str, float]]
"""A look at the averaged model while it trains: scores by name."""


class Clips:
    """An endless stream of cached clips, each in a direction drawn by chance; shards are picked up as they appear."""

    def __init__(self, folder: Path, rng: np.random.Generator, settings: Settings) -> None:
        self.folder, self.rng, self.size = folder, rng, settings.shard_clips
        self.rows: list[int] = []

    def take(self, count: int) -> list[CachedClip]:
        """Some clips."""
        if len(self.rows) < count:
            paths = clip_shard_paths(self.folder)
            self.clip = load_clip_shard(paths[int(self.rng.integers(len(paths)))])
            self.rows = self.rng.permutation(self.size).tolist()
        chosen, self.rows = self.rows[:count], self.rows[count:]
        return [self.clip(i, bool(self.rng.integers(2))) for i in chosen]


class Scenes:
    """An endless stream of cached scenes."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self.rng = folder, rng
        self.rows: list[int] = []

    def take(self, count: int) -> tuple[Tensor, list[list[dict]]]:
        """Pixels and questions of some scenes."""
        if len(self.rows) < count:
            paths = shard_paths(self.folder)
            tensors, self.questions = load_shard(paths[int(self.rng.integers(len(paths)))], with_questions=True)
            self.pixels = tensors["pixels"]
            self.rows = self.rng.permutation(len(self.questions)).tolist()
        chosen, self.rows = self.rows[:count], self.rows[count:]
        return self.pixels[torch.tensor(chosen)], [self.questions[i] for i in chosen]


def push_of_clips(alignment: Alignment, batch: ClipBatch, chosen: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The alignment loss of a pass over clips."""
    keys = alignment.seen["key"].float()
    places = torch.cat([torch.arange(frames * POOLED**2) for frames in batch.frames])
    return alignment.loss(alignment.queries(batch.queries), batch.named, keys, batch.there, chosen, keys, places)


def digits_right(logits: Tensor, batch: ClipBatch, digits: Tensor) -> float:
    """How often the number of an object is right (teacher-forced), where the model has seen one before."""
    labels = batch.inputs["shift_labels"]
    labels = labels[(labels >= 0) & (batch.inputs["loss_weights"] > 0)]
    numbers = torch.isin(labels, digits)
    return float((logits[numbers].argmax(-1) == labels[numbers]).float().mean())


def build_from(start: Path) -> MolmoPointForConditionalGeneration:
    """The model of a folder, ready to be trained further; its vision transformer is left alone."""
    model = MolmoPointForConditionalGeneration.from_pretrained(start, dtype=torch.float32).train()
    for config in (model.config.text_config, model.config.vision_config):
        config._attn_implementation = LEAN_ATTENTION
    model.model.vision_tower.requires_grad_(False)
    return model


def hush(model: MolmoPointForConditionalGeneration, features: Tensor, loudest: float) -> None:
    """Makes what the connector says a little quieter, if its features (P, H) are longer than `loudest` on average.

    The first two stages let it grow until the decoder's layers hardly moved an image token, so that tokens of different frames
    had nothing to tell each other. Attention reads normed states and does not notice.
    """
    if float(features.detach().norm(dim=-1).mean()) > loudest:
        with torch.no_grad():
            model.model.connector.image_projector.down_proj.weight.mul_(_HUSHED)


class ClipTraining:
    """The model with what is trained beside it, and the losses of one step.

    Args:
        start: folder of the model that the first two stages made.
        settings: numbers of the recipe.
        examples: make batches of clips and of scenes.
    """

    def __init__(self, start: Path, settings: Settings, examples: tuple[ClipExamples, Examples]) -> None:
        self.settings, (self.of_clips, self.of_scenes) = settings, examples
        self.model, self.averaged = build_from(start), build_from(start)
        self.alignment = Alignment(self.model, len(WORDS), _MOST_FRAMES * POOLED**2)
        self.motion = Motion(self.model)
        self.digits = torch.tensor(self.of_clips.tokenizer.convert_tokens_to_ids(list("1234")))
        aside = [(module, _ASIDE * settings.clip_rate) for module in (self.alignment, self.motion)]
        self.optimiser = optimiser_for([(self.model, settings.clip_rate), *aside], settings)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds."""
        return {"model": self.model, "averaged": self.averaged, "alignment": self.alignment, "motion": self.motion}

    def learn_clips(self, clips: Sequence[CachedClip], rng: np.random.Generator, progress: float) -> dict[str, float]:
        """Adds the gradients of some clips; `progress` is the part of the stage that is done."""
        settings, config = self.settings, self.model.config
        batch = self.of_clips.batch(clips, rng, LOOKS if progress < settings.clip_lesson else CLIP_KINDS)
        with torch.autocast("cpu", torch.bfloat16):
            seen = batch.seen_by(self.model)
            output = self.model(**batch.inputs, visual_features=seen)
        chosen = selections_of(batch.inputs, config.patch_token_id)
        push, spoken = push_of_clips(self.alignment, batch, chosen)
        moving, moved = self.motion.loss(batch.inputs["input_ids"] == config.image_patch_id, batch.velocity, batch.ends)
        fading = max(0.0, 1 - progress / settings.clip_alignment_until)
        (output.loss + settings.alignment_part * fading * push + settings.motion_part * min(1.0, 2 * fading) * moving).backward()
        hush(self.model, seen.image_features, settings.loudest)
        return {**spoken, **moved, **metrics_of(output, chosen), "digits": digits_right(output.logits, batch, self.digits)}

    def repeat_scenes(self, scenes: tuple[Tensor, list[list[dict]]], rng: np.random.Generator) -> dict[str, float]:
        """Adds the gradients of some scenes."""
        batch, _ = self.of_scenes.batch(*scenes, rng, KINDS)
        with torch.autocast("cpu", torch.bfloat16):
            output = self.model(**batch)
        (output.loss * self.settings.replay_part).backward()
        kept = metrics_of(output, selections_of(batch, self.model.config.patch_token_id))
        return {f"scene_{name}": kept[name] for name in ("patch", "end", "patch_loss")}

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Moves the averaged weights towards the new ones."""
        stays = min(self.settings.averaged, step / (step + 10))
        for mean, new in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            if new.requires_grad:
                mean.lerp_(new, 1 - stays)


def train_clips(
    folder: Path, start: Path, settings: Settings, examples: tuple[ClipExamples, Examples], steps: int, check: Check, log_every: int = 25
) -> None:
    """Runs or resumes the third stage.

    Args:
        folder: of checkpoints, logs and caches.
        start: folder of the model that the first two stages made.
        settings: numbers of the recipe.
        examples: make batches of clips and of scenes.
        steps: of the whole stage.
        check: is run on the averaged model with every checkpoint, and its numbers are logged.
        log_every: steps per line of the log.
    """
    checkpoint, log = folder / "clip.safetensors", Log(folder / "clip.jsonl")
    training = ClipTraining(start, settings, examples)
    optimiser = training.optimiser
    done = load_checkpoint(checkpoint, training.modules, optimiser)["step"] if checkpoint.exists() else 0
    rng = np.random.default_rng([3, done])
    clips, scenes = Clips(folder / "clips", rng, settings), Scenes(folder / "cache", rng)
    step, saved, stop = done, time.monotonic(), StopRequest()
    while step < steps and not stop:
        set_rates(optimiser, step, steps, settings)
        values = training.learn_clips(clips.take(settings.clip_batch), rng, step / steps)
        values |= training.repeat_scenes(scenes.take(settings.replayed), rng)
        values["norm"] = nn.utils.clip_grad_norm_(training.model.parameters(), settings.clip).item()
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        training.average(step)
        log.add(values)
        if step % log_every == 0:
            log.write(step, log_every * settings.clip_batch)
        if time.monotonic() - saved > 60 * settings.save_minutes or step == steps or stop:
            save_checkpoint(checkpoint, training.modules, optimiser, {"step": step, "steps": steps})
            log.write(step, 0, **check(training.averaged))
            saved = time.monotonic()
