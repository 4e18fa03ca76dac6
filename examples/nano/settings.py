"""Every number of the embedded model's recipe, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from nano.loop import LoopSettings

CROP = 168
"""Side of a crop in pixels."""
PATCH = 14
"""Side of a ViT patch in pixels."""
GRID = CROP // PATCH
"""ViT patches per side of a crop."""
LOCATIONS = 3
"""Location cells per side of a ViT patch."""


@dataclass(frozen=True)
class Settings(LoopSettings):
    """The recipe, beside what every stage shares. Times are for one core with bfloat16 matrix products.

    Attributes:
        vit_width: width of the vision transformer.
        vit_layers: its blocks; the last and the third last are tapped.
        vit_mlp: width inside its perceptrons.
        text_width: width of the decoder.
        text_layers: its blocks.
        text_mlp: width inside its gated perceptrons.
        head_dim: width of an attention head, in both.
        pointing_width: E, width of the space in which patches are chosen.
        shard_scenes: scenes per file of the cache.
        cached_queries: questions asked of each scene in the cache.
        branches: questions of one training example, a message tree.
        vit_batch: pictures per step of the first stage.
        point_batch: scenes per step of the second stage.
        vit_rate: peak learning rate of the first stage.
        point_rate: peak learning rate of the second stage, decoder and heads.
        point_vit_rate: the same for the vision transformer, which is already trained.
        vit_frozen: part of the second stage in which the vision transformer is left alone.
        first_lesson: part of the second stage that asks for colours only.
        second_lesson: where questions of size and position join.
        dense_part: weight of the first stage's loss in the second one.
        alignment_part: weight of the push in `alignment` when the second stage starts.
        alignment_until: part of the second stage after which it has faded out.
        shard_clips: clips per file of the cache.
        cached_clip_queries: questions asked of each clip and direction in the cache.
        clip_branches: questions of one clip in a training example.
        clip_batch: clips per step of the third stage.
        replayed: scenes beside them.
        replay_part: weight of their loss.
        clip_rate: peak learning rate of the third stage; the vision transformer is left alone.
        clip_lesson: part of the third stage that asks for looks only.
        clip_alignment_until: as `alignment_until`, of the third stage.
        motion_part: weight of the loss of velocities.
        loudest: mean length of image features beyond which the connector is made quieter.
        averaged: how much of the moving average of the weights stays per step of the third stage.
        num_forms: how many forms without names there are.
        form_batch: pictures of forms per step of the stage of forms.
        form_replayed: scenes of the old world beside them.
        form_rate: peak learning rate of vision transformer and connector in that stage.
        form_head_rate: the same for the heads that tell of forms.
        kept_vit: weight of the distance to the vision transformer of before, on the old world.
        kept_tokens: the same for image tokens.
    """

    vit_width: int = 192
    vit_layers: int = 6
    vit_mlp: int = 512
    text_width: int = 192
    text_layers: int = 4
    text_mlp: int = 512
    head_dim: int = 64
    pointing_width: int = 128
    shard_scenes: int = 4000
    cached_queries: int = 8
    branches: int = 5
    vit_batch: int = 32
    point_batch: int = 8
    vit_rate: float = 1e-3
    point_rate: float = 1.5e-3
    point_vit_rate: float = 3e-4
    vit_frozen: float = 0.75
    first_lesson: float = 0.025
    second_lesson: float = 0.12
    dense_part: float = 0.05
    alignment_part: float = 1.0
    alignment_until: float = 0.45
    shard_clips: int = 250
    cached_clip_queries: int = 8
    clip_branches: int = 5
    clip_batch: int = 8
    replayed: int = 10
    replay_part: float = 1.0
    clip_rate: float = 1e-3
    clip_lesson: float = 0.06
    clip_alignment_until: float = 0.85
    motion_part: float = 1.0
    loudest: float = 1500.0
    averaged: float = 0.99
    num_forms: int = 2000
    form_batch: int = 8
    form_replayed: int = 3
    form_rate: float = 3e-4
    form_head_rate: float = 1e-3
    kept_vit: float = 4.0
    kept_tokens: float = 40.0
