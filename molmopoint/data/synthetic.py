"""Synthetic pictures and clips of coloured shapes, with questions and the points that answer them; of clips
see `clips`.

A scene is a picture of 3 to 12 shapes and a handful of questions. The distribution is part of the contract of
the embedded model (its scores are scores on this distribution), so it changes only together with that model.

    scene = sample_scene(np.random.default_rng([20260, 0]))
    scene.image, scene.queries[0].prompt, [(t.x, t.y) for t in scene.queries[0].targets]

The same seed gives the same bytes and questions on every machine: only integers and exact arithmetic, see
`drawing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from molmopoint.data.clip_questions import ClipObject, ClipQuery
from molmopoint.data.clips import SyntheticClip, sample_clip
from molmopoint.data.drawing import (
    FRAME_SIDES,
    HELD_OUT_PAIRS,
    SAMPLES,
    SIZE_BANDS,
    Stamp,
    clip_stamp,
    draw_background,
    draw_palette,
    draw_shape,
    paint,
    reach_of,
    shade,
)
from molmopoint.data.questions import Query, SceneObject, SceneTarget, ask

MIN_OBJECTS, MAX_OBJECTS = 3, 12
MAX_COVERED = 0.4
"""How much of a shape others may cover; the pixels around the point itself always stay visible."""

NUM_QUERIES = 5
_TRIES = 40

__all__ = [
    "HELD_OUT_PAIRS",
    "SIZE_BANDS",
    "ClipObject",
    "ClipQuery",
    "Query",
    "Scene",
    "SceneObject",
    "SceneTarget",
    "SyntheticClip",
    "sample_clip",
    "sample_scene",
]  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A picture, what is in it, and questions about it.

    Attributes:
        image: RGB.
        objects: from the lowest to the topmost.
        queries: no two with the same prompt.
    """

    image: Image.Image
    objects: tuple[SceneObject, ...]
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class _Placed:
    """A shape with its place, before it is known what covers it."""

    colour: str
    shape: str
    size: float
    size_name: str
    x: float
    y: float
    stamp: Stamp
    rgb: np.ndarray


def sample_scene(rng: np.random.Generator, held_out: bool = True, num_queries: int = NUM_QUERIES) -> Scene:
    """Draws one scene.

    Args:
        rng: everything random comes from here, so a named seed names a scene.
        held_out: allow the pairs of HELD_OUT_PAIRS. True is the distribution that scores are measured on;
            training uses False, and then no picture shows such a pair and no question names one.
        num_queries: how many questions to ask.
    """
    height, width = rng.integers(*FRAME_SIDES, size=2).tolist()
    picture, ends = draw_background(rng, height, width)
    palette = draw_palette(rng, ends)
    placed = _place_objects(rng, height, width, palette, held_out)
    masks: list[np.ndarray] = []
    for item in placed:
        mask = paint(picture, item.stamp, item.rgb)
        masks = [*(below & ~mask for below in masks), mask]
    objects = []
    for item, mask in zip(placed, masks, strict=True):
        objects.append(SceneObject(item.colour, item.shape, item.size, item.size_name, item.x, item.y, mask))
    if rng.random() < 0.3:
        grain = int(rng.integers(2, 9))
        picture = picture + rng.integers(-grain, grain + 1, size=picture.shape, dtype=np.int32)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    queries = ask(rng, objects, (width, height), num_queries, HELD_OUT_PAIRS, held_out)
    return Scene(image, tuple(objects), queries)


def _place_objects(
    rng: np.random.Generator, height: int, width: int, palette: tuple[list[str], list[str]], held_out: bool
) -> list[_Placed]:
    """Shapes inside the picture that leave each other visible; the number leans to the lower half of its
    range.
    """
    wanted = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1, size=2).min())
    placed: list[_Placed] = []
    owners = np.full((height, width), -1, dtype=np.int16)
    areas: list[int] = []
    tries = 0
    while len(placed) < wanted and (tries < _TRIES * wanted or len(placed) < MIN_OBJECTS):
        tries += 1
        candidate = _candidate(rng, height, width, palette)
        if not held_out and (candidate.colour, candidate.shape) in HELD_OUT_PAIRS:
            continue
        coverage, window = clip_stamp(candidate.stamp, height, width)
        solid = 2 * coverage >= SAMPLES * SAMPLES
        after = owners.copy()
        after[window][solid] = len(placed)
        if _all_visible(after, areas, placed):
            placed.append(candidate)
            areas.append(int(solid.sum()))
            owners = after
    return placed


def _all_visible(owners: np.ndarray, areas: list[int], placed: list[_Placed]) -> bool:
    """Whether what was placed before is still visible enough, 5 by 5 pixels around its point among it."""
    seen = np.bincount(owners[owners >= 0], minlength=len(areas))
    for index, (area, item) in enumerate(zip(areas, placed, strict=True)):
        row, column = int(item.y), int(item.x)
        around = owners[row - 2 : row + 3, column - 2 : column + 3]
        if seen[index] < (1 - MAX_COVERED) * area or not (around == index).all():
            return False
    return True


def _candidate(
    rng: np.random.Generator, height: int, width: int, palette: tuple[list[str], list[str]]
) -> _Placed:
    """A random shape that lies wholly inside the picture."""
    colours, shapes = palette
    colour = colours[int(rng.integers(len(colours)))]
    shape = shapes[int(rng.integers(len(shapes)))]
    size_name = tuple(SIZE_BANDS)[int(rng.integers(len(SIZE_BANDS)))]
    low, high = SIZE_BANDS[size_name]
    size = low + (high - low) * float(rng.random())
    side = size * min(height, width)
    margin = reach_of(shape, side)
    x = round((margin + (width - 2 * margin) * float(rng.random())) * 8) / 8
    y = round((margin + (height - 2 * margin) * float(rng.random())) * 8) / 8
    tilt = 0.1 * (2 * float(rng.random()) - 1)
    upright = shape == "rectangle" and rng.random() < 0.5
    stamp = draw_shape(shape, x, y, side, tilt, upright=upright)
    return _Placed(colour, shape, size, size_name, x, y, stamp, shade(rng, colour))
