"""Draws training scenes once and keeps them on disk, so that a training core never waits for a drawing one.

A shard is a safetensors file with the resized pictures and what stands at each ViT patch, and a JSON file beside it
with the questions. Shard n is drawn from the seeds [TRAIN_SEED, n, i], without the held-out pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.synthetic import SIZE_BANDS, Query, Scene, sample_scene
from nano.settings import CROP, GRID, LOCATIONS, Settings

TRAIN_SEED = 77_001
_COVERED = 0.15
"""A patch belongs to the object that fills most of it, if that is at least this share."""

CLASSES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZE_BANDS)}
"""What the dense labels tell apart; class 0 is the ground."""

_FIELDS = (("colour", CLASSES["colour"]), ("shape", CLASSES["shape"]), ("size_name", CLASSES["size"]))


def resized(scene: Scene) -> torch.Tensor:
    """(CROP, CROP, 3) uint8: the picture as the image processor's only crop, with its rounding."""
    pixels = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)[None].float()
    stretched = F.interpolate(pixels, size=(CROP, CROP), mode="bilinear", align_corners=False)
    return stretched.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0)


def dense_labels(scene: Scene) -> np.ndarray:
    """What stands at each ViT patch.

    Returns:
        (GRID * GRID, 4) int8: colour, shape and size class (0 is ground), and the location cell of the point that lies in
        the patch (column first, -1 without a point).
    """
    width, height = scene.image.size
    labels = np.zeros((GRID * GRID, 4), dtype=np.int8)
    labels[:, 3] = -1
    classes = np.array([[names.index(getattr(o, key)) + 1 for key, names in _FIELDS] for o in scene.objects], dtype=np.int8)
    owner, owned = owners_of_patches([item.mask for item in scene.objects])
    labels[owned, :3] = classes[owner[owned]]
    for item, names in zip(scene.objects, classes, strict=True):
        patch, cell = place_of(item.x / width, item.y / height)
        labels[patch] = (*names, cell)
    return labels


def owners_of_patches(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which of some objects fills most of each ViT patch, (GRID * GRID,), and whether that is enough to call it the patch's own.

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


def place_of(x: float, y: float) -> tuple[int, int]:
    """ViT patch and location cell (column first) of a point given as parts of width and height."""
    x, y = x * GRID, y * GRID
    return int(y) * GRID + int(x), LOCATIONS * int(LOCATIONS * (x - int(x))) + int(LOCATIONS * (y - int(y)))


def draw_shard(folder: Path, index: int, settings: Settings) -> None:
    """Writes shard `index` unless it is there; files appear complete or not at all."""
    path = folder / f"shard_{index:04d}.safetensors"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [
        sample_scene(np.random.default_rng([TRAIN_SEED, index, i]), held_out=False, num_queries=settings.cached_queries)
        for i in range(settings.shard_scenes)
    ]
    questions = [[_question(scene, query) for query in scene.queries] for scene in scenes]
    tensors = {
        "pixels": torch.stack([resized(scene) for scene in scenes]),
        "labels": torch.from_numpy(np.stack([dense_labels(scene) for scene in scenes])),
    }
    path.with_suffix(".json").write_text(json.dumps(questions))
    write_shard(path, tensors)


def write_shard(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes tensors to a file that appears complete or not at all."""
    beside = path.with_suffix(".partial")
    save_file(tensors, beside)
    beside.replace(path)


def shard_paths(folder: Path) -> list[Path]:
    """The shards that are complete, in order."""
    return sorted(folder.glob("shard_*.safetensors"))


def load_shard(path: Path, with_questions: bool = False) -> tuple[dict[str, torch.Tensor], list]:
    """Tensors of a shard, and its questions if they are asked for."""
    questions = json.loads(path.with_suffix(".json").read_text()) if with_questions else []
    return load_file(path), questions


def patchify(pixels: torch.Tensor) -> torch.Tensor:
    """(N, CROP, CROP, 3) uint8 to (N, GRID * GRID, 588) float in [-1, 1]: rows, columns and channels of each patch."""
    side = CROP // GRID
    blocks = pixels.reshape(-1, GRID, side, GRID, side, 3).transpose(2, 3)
    return blocks.reshape(-1, GRID * GRID, side * side * 3).float() / 127.5 - 1


def _question(scene: Scene, query: Query) -> dict:
    width, height = scene.image.size
    points = [[round(t.x / width, 6), round(t.y / height, 6)] for t in query.targets]
    return {"prompt": query.prompt, "label": query.label, "style": query.style, "kind": query.kind, "points": points}
