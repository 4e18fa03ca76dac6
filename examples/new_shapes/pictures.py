"""Pictures of a new shape among known ones, with the places and visible pixels of the new ones.

Training and test pictures differ in their grounds (`grounds`) and in the places of the targets: the picture
is divided into squares of CELL pixels like a chessboard; targets stand on the black squares in training, on
the white ones in the test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from molmopoint.data.drawing import COLOURS, SAMPLES, SHAPES, Stamp, clip_stamp, draw_shape, paint
from new_shapes.drawing import NEW_SHAPES, REACH, draw_new_shape
from new_shapes.grounds import draw_ground

PARTS = {"train": 0, "test": 1}
"""Parts of the data, and the number that their seeds begin with."""

CELL = 4
"""Side of the squares that targets of one part stand on, in pixels."""

SIDES = (144, 169)
TARGETS = (0.25, 0.3, 0.2, 0.15, 0.06, 0.04)
"""How likely 0, 1, 2, ... targets are."""
OTHERS = (5, 12)
_SIZES, _OTHER_SIZES = (0.17, 0.28), (0.10, 0.26)
"""Smallest and largest nominal size, as parts of the shorter side."""
_CONTRAST, _JITTER, _TRIES = 70, 16, 60
_MAX_COVERED = 0.2
_CLEAR = 2
"""So many pixels around the point of a target are never covered."""


@dataclass(frozen=True)
class Target:
    """A new shape in a picture: pixels x and y, inside `mask` (height, width), its visible pixels."""

    x: float
    y: float
    mask: np.ndarray


@dataclass(frozen=True)
class Picture:
    """A picture, where the new shapes are, and how its ground is patterned."""

    image: Image.Image
    targets: tuple[Target, ...]
    pattern: str


@dataclass(frozen=True)
class _Item:
    stamp: Stamp
    rgb: np.ndarray
    point: tuple[float, float] | None


def draw_picture(shape: str, part: str, index: int) -> Picture:
    """Picture number `index` of a part ("train", "test") of the data of one of NEW_SHAPES; the same one every
    time.
    """
    rng = np.random.default_rng([31_415, list(NEW_SHAPES).index(shape), PARTS[part], index])
    height, width = (int(side) for side in rng.integers(*SIDES, size=2))
    ground = draw_ground(rng, height, width, part)
    visible = [
        name
        for name, rgb in COLOURS.items()
        if np.abs(np.array(rgb) - ground.ends).max(axis=1).min() >= _CONTRAST
    ]
    num_targets = int(rng.choice(len(TARGETS), p=TARGETS))
    kinds = [shape] * num_targets + [
        SHAPES[i] for i in rng.integers(len(SHAPES), size=int(rng.integers(*OTHERS)))
    ]
    items: list[_Item] = []
    for place in rng.permutation(len(kinds)).tolist():
        for _ in range(_TRIES):
            item = _candidate(rng, kinds[place], (height, width), part, visible)
            if _all_visible([*items, item], height, width):
                items.append(item)
                break
    picture, masks = ground.picture, []
    for item in items:
        mask = paint(picture, item.stamp, item.rgb)
        masks = [below & ~mask for below in masks] + [mask]
    targets = tuple(Target(*item.point, mask) for item, mask in zip(items, masks, strict=True) if item.point)
    return Picture(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), targets, ground.pattern)


def _candidate(
    rng: np.random.Generator, kind: str, size: tuple[int, int], part: str, visible: list[str]
) -> _Item:
    """A new or known shape of a random colour, wholly inside the picture."""
    height, width = size
    name = visible[int(rng.integers(len(visible)))]
    rgb = np.clip(np.array(COLOURS[name]) + rng.integers(-_JITTER, _JITTER + 1, size=3), 0, 255).astype(
        np.int32
    )
    low, high = _SIZES if kind in NEW_SHAPES else _OTHER_SIZES
    side = (low + (high - low) * float(rng.random())) * min(height, width)
    margin = (REACH if kind in NEW_SHAPES else 0.76) * side + 1
    x, y = (
        round((margin + (length - 2 * margin) * float(rng.random())) * 8) / 8 for length in (width, height)
    )
    if kind not in NEW_SHAPES:
        tilt = 0.1 * (2 * float(rng.random()) - 1)
        return _Item(
            draw_shape(kind, x, y, side, tilt, upright=kind == "rectangle" and rng.random() < 0.5), rgb, None
        )
    if (int(x) // CELL + int(y) // CELL) % 2 != PARTS[part]:
        x += CELL if x < width / 2 else -CELL
    tilt = 0.41 * (2 * float(rng.random()) - 1)
    return _Item(draw_new_shape(kind, x, y, side, tilt, int(rng.integers(4))), rgb, (x, y))


def _all_visible(items: list[_Item], height: int, width: int) -> bool:
    """Whether every shape can be seen well enough, a target around its point among all."""
    owners = np.full((height, width), -1, dtype=np.int16)
    areas = []
    for index, item in enumerate(items):
        coverage, window = clip_stamp(item.stamp, height, width)
        solid = 2 * coverage >= SAMPLES * SAMPLES
        owners[window][solid] = index
        areas.append(int(solid.sum()))
    seen = np.bincount(owners[owners >= 0], minlength=len(items))
    return all(
        seen[index] >= (1 - _MAX_COVERED) * areas[index]
        and (item.point is None or _clear(owners, index, *item.point))
        for index, item in enumerate(items)
    )


def _clear(owners: np.ndarray, index: int, x: float, y: float) -> bool:
    rows, cols = (slice(int(value) - _CLEAR, int(value) + _CLEAR + 1) for value in (y, x))
    return bool((owners[rows, cols] == index).all())
