"""Scenes to learn from and unseen ones, and what the frozen vision transformer sees in them, computed once:
no arm trains it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nano.cache import load_shard, patchify, resized, shard_paths
from nano.settings import GRID
from torch import Tensor

from efficiency.plan import Plan
from molmopoint.connector import VisualFeatures, tapped_features
from molmopoint.data.synthetic import Query, Scene, sample_scene
from molmopoint.metrics import match_points
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.training.precision import autocast

VALIDATION_SEED = 88_001
"""Scenes of the table are drawn from [VALIDATION_SEED, i]."""
SEARCH_SEED = 88_002
"""The same for the scenes that choose learning rates and weights."""
MANY_SEED = 88_003
"""The same for those with a question for many objects."""
MANY = 4
"""So many targets are many."""
_PICTURES_AT_ONCE = 64


@torch.no_grad()
def look(model: MolmoPointForConditionalGeneration, pixels: Tensor) -> Tensor:
    """(N, GRID * GRID, F) bfloat16 tapped features of pictures (N, CROP, CROP, 3) uint8."""
    layers = model.config.adapter_config.vision_feature_layer
    parts: list[Tensor] = []
    with autocast():
        for some in pixels.split(_PICTURES_AT_ONCE):
            parts.append(tapped_features(model.model.vision_tower, patchify(some), layers))
    return torch.cat(parts).to(torch.bfloat16).unflatten(0, (len(pixels), GRID * GRID))


def visual_features(
    model: MolmoPointForConditionalGeneration, seen: Tensor, pooling: Tensor
) -> VisualFeatures:
    """What the model takes in place of pixels; the connector runs here, with gradient.

    Args:
        model: whose connector.
        seen: (N, GRID * GRID, F) features of the pictures of the call.
        pooling: (T, K) table of all of them.
    """
    features = seen.flatten(0, 1).float()
    image_features = model.model.connector(features, pooling)
    return VisualFeatures(features, image_features, pooling, len(pooling), (pooling.shape[1], 0))


@dataclass(frozen=True)
class TrainingData:
    """Pictures in the order of the cache.

    Attributes:
        seen: (N, GRID * GRID, F) their features.
        questions: the questions about each.
    """

    seen: Tensor
    questions: Sequence[list[dict]]


def load_training_data(folder: Path, model: MolmoPointForConditionalGeneration, size: int) -> TrainingData:
    """The first `size` scenes of the shards in a folder.

    Raises:
        ValueError: fewer scenes were drawn.
    """
    pixels: list[Tensor] = []
    questions: list[list[dict]] = []
    for path in shard_paths(folder):
        missing = size - len(questions)
        if missing > 0:
            shard = load_shard(path)
            pixels.append(shard.pixels[:missing])
            questions += shard.questions[:missing]
    if len(questions) < size:
        raise ValueError(f"expected {size} scenes in {folder}, got {len(questions)}; draw more shards")
    return TrainingData(look(model, torch.cat(pixels)), questions)


@dataclass(frozen=True)
class Unseen:
    """Scenes to be scored on: their features (N, GRID * GRID, F), and each question with the number of its
    scene.
    """

    scenes: Sequence[Scene]
    seen: Tensor
    asked: Sequence[tuple[int, Query]]


def load_unseen(seed: int, number: int, plan: Plan, model: MolmoPointForConditionalGeneration) -> Unseen:
    """Scenes like those of the training (no held-out pairs), which nothing was trained on, with some
    questions each.
    """

    def first_ones(scene: Scene) -> Sequence[Query]:
        return scene.queries[: plan.val_questions]

    return _draw_unseen(seed, number, plan, model, first_ones)


def load_many(number: int, plan: Plan, model: MolmoPointForConditionalGeneration) -> Unseen:
    """The same kind of scenes, of which each is asked one question, for `MANY` objects or more."""

    def one_for_many(scene: Scene) -> Sequence[Query]:
        return [query for query in scene.queries if len(query.targets) >= MANY][:1]

    return _draw_unseen(MANY_SEED, number, plan, model, one_for_many)


def baselines(plan: Plan) -> dict[str, float]:
    """Mean F1, on the questions of the table, of answers that need no learning: about all questions, and
    where something is there.
    """
    rng = np.random.default_rng(0)
    scenes, asked = _draw(
        VALIDATION_SEED, plan.val_scenes, plan, lambda scene: scene.queries[: plan.val_questions]
    )
    scores: dict[str, list[float]] = defaultdict(list)
    for number, query in asked:
        scene = scenes[number]
        width, height = scene.image.size
        objects = np.array([(item.x, item.y) for item in scene.objects])
        answers = {
            "nothing": np.empty((0, 2)),
            "centre": np.array([(width / 2, height / 2)]),
            "one random object": objects[rng.integers(len(objects), size=1)],
            "all objects": objects,
        }
        for name, xy in answers.items():
            f1 = match_points(xy, [target.mask for target in query.targets]).f1
            scores[name].append(f1)
            if query.targets:
                scores[f"{name}, something there"].append(f1)
    return {name: round(float(np.mean(values)), 3) for name, values in scores.items()}


def _draw_unseen(
    seed: int,
    number: int,
    plan: Plan,
    model: MolmoPointForConditionalGeneration,
    choose: Callable[[Scene], Sequence[Query]],
) -> Unseen:
    scenes, asked = _draw(seed, number, plan, choose)
    return Unseen(scenes, look(model, torch.stack([resized(scene) for scene in scenes])), asked)


def _draw(
    seed: int, number: int, plan: Plan, choose: Callable[[Scene], Sequence[Query]]
) -> tuple[list[Scene], list[tuple[int, Query]]]:
    """Scenes with few enough objects and at least one chosen question, and these questions with the numbers
    of their scenes.
    """
    scenes: list[Scene] = []
    asked: list[tuple[int, Query]] = []
    drawn = 0
    while len(scenes) < number:
        rng = np.random.default_rng([seed, drawn])
        scene = sample_scene(rng, held_out=False, num_queries=plan.questions)
        drawn += 1
        queries = choose(scene) if len(scene.objects) <= plan.most_objects else []
        if queries:
            asked += [(len(scenes), query) for query in queries]
            scenes.append(scene)
    return scenes, asked
