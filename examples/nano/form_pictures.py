"""Pictures of forms without names and of known shapes, in any colour but those of held-out pairs, on grounds of many patterns.

A shard is a safetensors file with pictures, the number of the object at each pixel, and what stands at each ViT patch; picture i
of shard n is drawn from the seed [FORM_SEED, 1, n, i].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from molmopoint.data.drawing import COLOURS, HELD_OUT_PAIRS, SAMPLES, SHAPES, Stamp, draw_background, draw_shape, paint
from nano.cache import owners_of_patches, place_of, write_shard
from nano.forms import FORM_SEED, REACH_OF_FORMS, SPAN, TEMPLATE, template
from nano.settings import CROP, GRID, Settings

_NUM_OBJECTS = (4, 12)
_SIZES = (0.14, 0.29)
_CONTRAST = 60
_KNOWN = 0.25
"""Share of known shapes among the objects."""
_PALETTE = np.array(list(COLOURS.values()))


@dataclass(frozen=True)
class _Object:
    kind: int
    x: float
    y: float
    size: float
    stamp: Stamp


def draw_form(index: int, x: float, y: float, size: float, rng: np.random.Generator) -> Stamp:
    """A form at a place, turned, mirrored and a little squeezed by chance."""
    reach = int(1.1 * REACH_OF_FORMS * size) + 2
    left, top = int(x) - reach, int(y) - reach
    ticks = (2 * np.arange(2 * reach * SAMPLES, dtype=np.float32) + 1) / (2 * SAMPLES)
    across, down = np.meshgrid((left + ticks - x) / size, (top + ticks - y) / size)
    turn, squeeze = rng.random() * 2 * np.pi, rng.uniform(0.92, 1.08)
    u = (across * np.cos(turn) + down * np.sin(turn)) * squeeze * (1 if rng.random() < 0.5 else -1)
    v = (down * np.cos(turn) - across * np.sin(turn)) / squeeze
    rows, cols = (np.clip(((c + SPAN) * (TEMPLATE / (2 * SPAN))).astype(np.int32), 0, TEMPLATE - 1) for c in (v, u))
    blocks = template(index)[rows, cols].reshape(2 * reach, SAMPLES, 2 * reach, SAMPLES)
    return Stamp(blocks.sum(axis=(1, 3), dtype=np.uint8), left, top)


def draw_pattern(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A ground with a pattern: waves, rings, a mosaic, or scratches; picture (CROP, CROP, 3) and its (2, 3) extreme colours."""
    middle = np.clip(int(rng.integers(35, 221)) + rng.integers(-35, 36, size=3), 20, 235)
    swing = rng.integers(-30, 31, size=3) + int(rng.integers(-25, 26))
    ends = np.clip(np.stack([middle - swing, middle + swing]), 0, 255).astype(np.int32)
    down, across = np.mgrid[:CROP, :CROP].astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        level = np.zeros((CROP, CROP), dtype=np.float32)
        for _ in range(rng.integers(1, 4)):
            angle, period = rng.random() * np.pi, rng.uniform(6, 45)
            level += np.sin(2 * np.pi * (across * np.cos(angle) + down * np.sin(angle)) / period + rng.random() * 6)
    elif kind == 1:
        x, y = rng.uniform(-0.3, 1.3, 2) * CROP
        level = np.sin(2 * np.pi * np.hypot(across - x, down - y) / rng.uniform(8, 40))
    elif kind == 2:
        seeds = rng.random((int(rng.integers(6, 70)), 2)) * CROP
        nearest = ((across[..., None] - seeds[:, 0]) ** 2 + (down[..., None] - seeds[:, 1]) ** 2).argmin(-1)
        level = rng.uniform(-1, 1, len(seeds)).astype(np.float32)[nearest]
    else:
        level = np.zeros((CROP, CROP), dtype=np.float32)
        for _ in range(rng.integers(5, 30)):
            angle, offset = rng.random() * np.pi, rng.uniform(-0.2, 1.2) * CROP
            away = np.abs((across - CROP / 2) * np.cos(angle) + (down - CROP / 2) * np.sin(angle) + CROP / 2 - offset)
            level[away < rng.uniform(0.5, 5)] += rng.uniform(-1, 1)
    if rng.random() < 0.5 and kind != 2:
        level = np.where(level > 0, 1.0, -1.0)
    share = (np.clip(level, -1, 1)[..., None] + 1) / 2
    picture = ends[0] * (1 - share) + ends[1] * share
    grain = int(rng.integers(0, 10))
    return (picture + rng.integers(-grain, grain + 1, size=picture.shape)).astype(np.int32), ends


def draw_forms(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of some of the first `count` forms and of known shapes, whose classes come after those of the forms.

    Returns:
        (CROP, CROP, 3) uint8; (CROP, CROP) uint8, the number of the object at each pixel (0 is ground); and (GRID * GRID, 3) int16: the
        class at each ViT patch plus one (0 is ground), the location cell of the point that lies in the patch (column first, -1
        without a point), and the number of its object.
    """
    picture, ends = draw_background(rng, CROP, CROP) if rng.random() < 0.35 else draw_pattern(rng)
    objects: list[_Object] = []
    few = rng.choice(count, size=int(rng.integers(2, 7)))
    for _ in range(int(rng.integers(*_NUM_OBJECTS))):
        known = rng.random() < _KNOWN
        size = rng.uniform(*_SIZES) * CROP
        margin = 0.7 * size
        for _ in range(20):
            x, y = rng.uniform(margin, CROP - margin, 2).tolist()
            if all(np.hypot(x - other.x, y - other.y) > 0.42 * (size + other.size) for other in objects):
                break
        else:
            continue
        if known:
            kind = int(rng.integers(len(SHAPES)))
            stamp = draw_shape(SHAPES[kind], x, y, size, rng.uniform(-0.1, 0.1), SHAPES[kind] == "rectangle" and rng.random() < 0.5)
            objects.append(_Object(count + kind, x, y, size, stamp))
        else:
            kind = int(few[rng.integers(len(few))])
            objects.append(_Object(kind, x, y, size, draw_form(kind, x, y, size, rng)))
    owners = np.zeros((CROP, CROP), dtype=np.uint8)
    for number, item in enumerate(objects, start=1):
        shape = SHAPES[item.kind - count] if item.kind >= count else None
        owners[paint(picture, item.stamp, _colour(rng, ends, shape))] = number
    return np.clip(picture, 0, 255).astype(np.uint8), owners, _labels(objects, owners)


def _colour(rng: np.random.Generator, ends: np.ndarray, shape: str | None) -> np.ndarray:
    """A known colour or any other that stands out from the ground; never one that makes a known shape a held-out pair."""
    while True:
        colour = _PALETTE[rng.integers(len(_PALETTE))] + rng.integers(-16, 17, 3) if rng.random() < 0.6 else rng.integers(0, 256, 3)
        colour = np.clip(colour, 0, 255).astype(np.int32)
        if np.abs(colour - ends).max(axis=1).min() >= _CONTRAST and (nearest_colour(colour), shape) not in HELD_OUT_PAIRS:
            return colour


def nearest_colour(rgb: np.ndarray) -> str:
    """The known colour that is nearest to (3,) rgb."""
    return tuple(COLOURS)[int(np.square(_PALETTE - rgb).sum(axis=1).argmin())]


def _labels(objects: list[_Object], owners: np.ndarray) -> np.ndarray:
    labels = np.zeros((GRID * GRID, 3), dtype=np.int16)
    labels[:, 1] = -1
    if not objects:
        return labels
    kinds, numbers = np.array([item.kind + 1 for item in objects]), np.arange(1, len(objects) + 1)
    owner, owned = owners_of_patches([owners == number for number in numbers])
    labels[owned, 0], labels[owned, 2] = kinds[owner[owned]], numbers[owner[owned]]
    for number, item in enumerate(objects, start=1):
        patch, cell = place_of(item.x / CROP, item.y / CROP)
        labels[patch] = item.kind + 1, cell, number
    return labels


def draw_form_shard(folder: Path, index: int, settings: Settings) -> None:
    """Writes shard `index` of the forms unless it is there; files appear complete or not at all."""
    path = folder / f"forms_{index:04d}.safetensors"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [draw_forms(np.random.default_rng([FORM_SEED, 1, index, i]), settings.num_forms) for i in range(settings.shard_scenes)]
    pixels, owners, labels = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    write_shard(path, {"pixels": pixels, "owners": owners, "labels": labels})
