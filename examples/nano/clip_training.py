"""Third stage: the whole model but its vision transformer learns to point and to track in clips, and keeps
what it knows of pictures.

Every step sees some clips and some scenes of the stages before. An alignment loss fades out as in the second
stage; here its words also name motions, so that an image token learns from the frames around it what its
object does. What is released is a moving average of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molmopoint.data.clip_questions import CLIP_KINDS
from molmopoint.data.questions import KINDS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.training.precision import autocast
from nano.attention import use_lean_attention
from nano.auxiliary import Alignment, Motion
from nano.cache import SHARDS, load_shard
from nano.clip_cache import POOLED, WORDS, CachedClip, ClipShard
from nano.clip_cache import SHARDS as CLIP_SHARDS
from nano.clip_examples import LOOKS, ClipBatch, ClipExamples
from nano.loop import ShardStream, Stage, train
from nano.pointing import Check, Examples, metrics_of, selections_of
from nano.settings import Settings

_HUSHED = 0.99
"""Per step."""
_ASIDE = 3
"""Learning rate of what is thrown away, in those of the model."""
_MOST_FRAMES = 16
"""Places of the alignment loss are told apart up to this many frames."""


def push_of_clips(alignment: Alignment, batch: ClipBatch, chosen: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The alignment loss of a pass over clips."""
    keys = alignment.seen["key"].float()
    places = torch.cat([torch.arange(frames * POOLED**2) for frames in batch.frames])
    return alignment.loss(
        alignment.queries(batch.queries), batch.named, keys, batch.there, chosen, keys, places
    )


def digits_right(logits: Tensor, batch: ClipBatch, digits: Tensor) -> float:
    """How often the number of an object is right (teacher-forced), where the model has seen one before."""
    labels = batch.inputs["shift_labels"]
    labels = labels[(labels >= 0) & (batch.inputs["loss_weights"] > 0)]
    numbers = torch.isin(labels, digits)
    return float((logits[numbers].argmax(-1) == labels[numbers]).float().mean())


def build_from(start: Path) -> MolmoPointForConditionalGeneration:
    """The model of a folder, ready to be trained further; its vision transformer is left alone."""
    model = MolmoPointForConditionalGeneration.from_pretrained(start, dtype=torch.float32).train()
    use_lean_attention(model.config.text_config, model.config.vision_config)
    model.model.vision_tower.requires_grad_(False)
    return model


def hush(model: MolmoPointForConditionalGeneration, features: Tensor, loudest: float) -> None:
    """Makes what the connector says a little quieter, if its features (P, H) are longer than `loudest` on
    average.

    The first two stages let it grow until the decoder's layers hardly moved an image token, so that tokens of
    different frames had nothing to tell each other. Attention reads normed states and does not notice.
    """
    if float(features.detach().norm(dim=-1).mean()) > loudest:
        with torch.no_grad():
            model.model.connector.image_projector.down_proj.weight.mul_(_HUSHED)


class ClipStage(Stage):
    """Clips to learn from and scenes to remember; a moving average of the weights is kept.

    Args:
        folder: of the run.
        start: folder of the model that the first two stages made.
        settings: of the run.
        examples: make batches of clips and of scenes.
        check: is run on the averaged model with every checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        start: Path,
        settings: Settings,
        examples: tuple[ClipExamples, Examples],
        check: Check,
    ) -> None:
        super().__init__()
        self.settings, self.look = settings, check
        self.of_clips, self.of_scenes = examples
        self.model, self.averaged = build_from(start), build_from(start)
        self.alignment = Alignment(self.model, len(WORDS), _MOST_FRAMES * POOLED**2)
        self.motion = Motion(self.model)
        self.modules = {
            "model": self.model,
            "averaged": self.averaged,
            "alignment": self.alignment,
            "motion": self.motion,
        }
        aside = _ASIDE * settings.clip_rate
        self.rates = [(self.model, settings.clip_rate), (self.alignment, aside), (self.motion, aside)]
        self.clipped = self.model
        self.clips = ShardStream([folder / "clips"], CLIP_SHARDS, ClipShard)
        self.scenes = ShardStream([folder / "cache"], SHARDS, load_shard)
        self.streams = {"clips": self.clips, "scenes": self.scenes}
        self.items = settings.clip_batch
        self.digits = torch.tensor(self.of_clips.tokenizer.convert_tokens_to_ids(list("1234")))

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Of some clips, each in a direction drawn by chance, and of some scenes."""
        shard, numbers = self.clips.take(self.items, rng)
        clips = [shard.clip(number, turned=bool(rng.integers(2))) for number in numbers]
        learned = self._learn_clips(clips, rng, step / steps)
        return learned | self._repeat_scenes(rng)

    def after_step(self, step: int, steps: int) -> None:
        """Moves the averaged weights towards the new ones."""
        stays = min(self.settings.averaged, step / (step + 10))
        with torch.no_grad():
            for mean, new in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                if new.requires_grad:
                    mean.lerp_(new, 1 - stays)

    def check(self) -> dict[str, float]:
        """Scores of real decoding."""
        return self.look(self.averaged)

    def _learn_clips(
        self, clips: Sequence[CachedClip], rng: np.random.Generator, progress: float
    ) -> dict[str, float]:
        settings, config = self.settings, self.model.config
        kinds = LOOKS if progress < settings.clip_lesson else CLIP_KINDS
        batch = self.of_clips.batch(clips, rng, kinds)
        with autocast():
            seen = batch.seen_by(self.model)
            output = self.model(**batch.inputs, visual_features=seen)
        chosen = selections_of(batch.inputs, config.patch_token_id)
        push, spoken = push_of_clips(self.alignment, batch, chosen)
        is_image = batch.inputs["input_ids"] == config.image_patch_id
        moving, moved = self.motion.loss(is_image, batch.velocity, batch.ends)
        fading = max(0.0, 1 - progress / settings.clip_alignment_until)
        pushes = (
            settings.alignment_part * fading * push + settings.motion_part * min(1.0, 2 * fading) * moving
        )
        (output.loss + pushes).backward()
        hush(self.model, seen.image_features, settings.loudest)
        digits = digits_right(output.logits, batch, self.digits)
        return {**spoken, **moved, **metrics_of(output, chosen), "digits": digits}

    def _repeat_scenes(self, rng: np.random.Generator) -> dict[str, float]:
        shard, rows = self.scenes.take(self.settings.replayed, rng)
        batch, _ = self.of_scenes.batch(
            shard.pixels[rows], [shard.questions[row] for row in rows], rng, KINDS
        )
        with autocast():
            output = self.model(**batch)
        (output.loss * self.settings.replay_part).backward()
        kept = metrics_of(output, selections_of(batch, self.model.config.patch_token_id))
        return {f"scene_{name}": kept[name] for name in ("patch", "end", "patch_loss")}


def train_clips(
    folder: Path,
    start: Path,
    settings: Settings,
    examples: tuple[ClipExamples, Examples],
    steps: int,
    check: Check,
    log_every: int = 25,
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
    stage = ClipStage(folder, start, settings, examples, check)
    train(stage, folder / "clip", settings, steps, seed=3, log_every=log_every)
