"""Draws training scenes once and keeps them on disk, so that a training core never waits for a drawing one.

A shard is a safetensors file with the resized pictures and what stands at each ViT patch, and a JSON file
beside it with the questions. Shard n is drawn from the seeds [TRAIN_SEED, n, i], without the held-out pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.synthetic import SIZE_BANDS, Query, Scene, SceneObject, sample_scene
from molmopoint.files import written_whole
from nano.cells import cell_of
from nano.settings import CROP, GRID, PATCH, Settings

SHARDS = "shard_*.safetensors"
"""Names of shards of scenes."""
TRAIN_SEED = 77_001
_COVERED = 0.15
"""A patch belongs to the object that fills most of it, if that is at least this share."""

CLASSES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZE_BANDS)}
"""What the dense labels tell apart; class 0 is the ground."""

CELLS = 3
"""Which of the dense labels of a patch is a location cell."""


@dataclass(frozen=True)
class SceneShard:
    """A shard of scenes.

    Attributes:
        path: of its tensors.
        pixels: (N, CROP, CROP, 3) uint8.
        labels: (N, GRID * GRID, 4) int8, see `dense_labels`.
    """

    path: Path
    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def questions(self) -> list[list[dict]]:
        """Questions about each scene, with points as parts of the sides."""
        return json.loads(self.path.with_suffix(".json").read_text())


def resized(scene: Scene) -> Tensor:
    """(CROP, CROP, 3) uint8: the picture as the image processor's only crop, with its rounding."""
    pixels = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)[None].float()
    stretched = F.interpolate(pixels, size=(CROP, CROP), mode="bilinear", align_corners=False)
    return stretched.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0)


def dense_labels(scene: Scene) -> np.ndarray:
    """What stands at each ViT patch.

    Returns:
        (GRID * GRID, 4) int8: colour, shape and size class (0 is ground), and the location cell of the point
        that lies in the patch (column first, -1 without a point).
    """
    width, height = scene.image.size
    labels = np.zeros((GRID * GRID, 4), dtype=np.int8)
    labels[:, CELLS] = -1
    classes = np.array([_classes_of(item) for item in scene.objects], dtype=np.int8)  # (objects, 3)
    owner, owned = owners_of_patches([item.mask for item in scene.objects])
    labels[owned, :3] = classes[owner[owned]]
    # A patch that holds a point belongs to the object that is pointed at, however little of the patch that
    # fills.
    for item, its_classes in zip(scene.objects, classes, strict=True):
        patch, cell = cell_of(item.x / width, item.y / height)
        labels[patch] = (*its_classes, cell)
    return labels


def _classes_of(item: SceneObject) -> tuple[int, int, int]:
    """Colour, shape and size class."""
    colour = CLASSES["colour"].index(item.colour)
    shape = CLASSES["shape"].index(item.shape)
    size = CLASSES["size"].index(item.size_name)
    return colour + 1, shape + 1, size + 1


def owners_of_patches(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which of some objects fills most of each ViT patch, (GRID * GRID,), and whether that is enough to call
    it the patch's own.

    Args:
        masks: (height, width) bool, the visible pixels of each object.
    """
    height, width = masks[0].shape
    rows = (np.arange(height) * GRID) // height
    cols = (np.arange(width) * GRID) // width
    cells = (rows[:, None] * GRID + cols[None, :]).ravel()
    filled = np.stack([np.bincount(cells[mask.ravel()], minlength=GRID * GRID) for mask in masks])
    filled = filled / np.bincount(cells, minlength=GRID * GRID)
    return filled.argmax(axis=0), filled.max(axis=0) >= _COVERED


def draw_shard(folder: Path, index: int, settings: Settings, *, most_objects: int | None = None) -> None:
    """Writes shard `index` unless it is there.

    Args:
        folder: of the shards.
        index: of the shard.
        settings: of the run.
        most_objects: leave out scenes with more objects.
    """
    path = folder / f"shard_{index:04d}.safetensors"
    if path.exists():
        return
    scenes: list[Scene] = []
    number = 0
    while len(scenes) < settings.shard_scenes:
        rng = np.random.default_rng([TRAIN_SEED, index, number])
        scene = sample_scene(rng, held_out=False, num_queries=settings.cached_queries)
        number += 1
        if most_objects is None or len(scene.objects) <= most_objects:
            scenes.append(scene)
    pixels = torch.stack([resized(scene) for scene in scenes])
    labels = torch.from_numpy(np.stack([dense_labels(scene) for scene in scenes]))
    questions = [_questions_of(scene) for scene in scenes]
    write_shard(path, {"pixels": pixels, "labels": labels}, questions)


def write_shard(path: Path, tensors: dict[str, Tensor], questions: list | None = None) -> None:
    """Writes tensors, and questions as JSON beside them; a shard appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if questions is not None:
        path.with_suffix(".json").write_text(json.dumps(questions))
    with written_whole(path) as beside:
        save_file(tensors, beside)


def shard_paths(folder: Path) -> list[Path]:
    """The shards of scenes that are complete, in order."""
    return sorted(folder.glob(SHARDS))


def load_shard(path: Path) -> SceneShard:
    """Opens a shard of scenes; its questions are read when they are first asked for."""
    tensors = load_file(path)
    return SceneShard(path, tensors["pixels"], tensors["labels"])


def patchify(pixels: Tensor) -> Tensor:
    """(N, S, S, 3) uint8 to (N, patches, 588) float in [-1, 1]: rows, columns and channels of each patch."""
    grid = pixels.shape[1] // PATCH
    blocks = pixels.reshape(-1, grid, PATCH, grid, PATCH, 3).transpose(2, 3)
    return blocks.reshape(-1, grid * grid, PATCH * PATCH * 3).float() / 127.5 - 1


def _questions_of(scene: Scene) -> list[dict]:
    return [_question(scene.image.size, query) for query in scene.queries]


def _question(size: tuple[int, int], query: Query) -> dict:
    width, height = size
    points = [[round(target.x / width, 6), round(target.y / height, 6)] for target in query.targets]
    return {
        "prompt": query.prompt,
        "label": query.label,
        "style": query.style,
        "kind": query.kind,
        "points": points,
    }
