"""Forms without names: what the vision transformer sees so that it can tell shapes apart that it has never
been told of.

A form is cut from polygons, ellipses and strokes by chance; form k comes from the seed [FORM_SEED, k]. Those
that look like one of the shapes that the own-data trial keeps for itself are left out (`likeness`), so these
stay new. `codes` say in a few numbers what a form looks like, whatever way it is turned.

Pictures show some of them beside known shapes, in any colour but those of held-out pairs, on grounds of many
patterns. Picture i of shard n is drawn from the seed [FORM_SEED, 1, n, i].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from new_shapes.drawing import NEW_SHAPES, REACH, draw_new_shape, polygon
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor

from molmopoint.data.drawing import (
    COLOURS,
    HELD_OUT_PAIRS,
    SAMPLES,
    SHAPES,
    Stamp,
    clip_stamp,
    draw_background,
    draw_shape,
    paint,
)
from nano.cache import owners_of_patches, write_shard
from nano.cells import cell_of
from nano.settings import CROP, GRID, Settings

FORM_SEED = 77_003
SHARDS = "forms_*.safetensors"
"""Names of shards of pictures."""
CELLS = 1
"""Which label of a patch is a location cell."""
TEMPLATE = 128
"""Samples per side of a template."""
SPAN = 0.8
"""A template reaches from -SPAN to SPAN in units of the nominal size."""
REACH_OF_FORMS = 0.64
"""Farthest part of a form from its point, in the same units."""
_SMALLEST_AREA = 0.13
_ALIKE = 0.8
_RINGS, _WAVES = 16, 9
CODE = 24
"""Numbers that describe a form, whatever way it is turned."""

_AXIS = (2 * np.arange(TEMPLATE) + 1 - TEMPLATE) / TEMPLATE * SPAN
_U, _V = np.meshgrid(_AXIS, _AXIS)


@cache
def template(index: int) -> np.ndarray:
    """(TEMPLATE, TEMPLATE) bool: a form, in units of its nominal size, with its point (well inside it) in the
    middle.
    """
    rng = np.random.default_rng([FORM_SEED, index])
    while True:
        form = _centred(_cut(rng))
        if form is not None and max(likeness(form, shape) for shape in NEW_SHAPES) < _ALIKE:
            return form


def _cut(rng: np.random.Generator) -> np.ndarray:
    """A form of one of four kinds, where it happens to lie."""
    kind = rng.integers(4)
    if kind == 0:
        return polygon(_U, _V, _corners(rng))
    if kind == 1:
        return _wavy_disc(rng)
    if kind == 2:
        return _strokes(rng)
    parts = [_part(rng) for _ in range(rng.integers(2, 4))]
    form = np.any(parts, axis=0)
    has_hole = rng.random() < 0.4
    return form & ~_part(rng) if has_hole else form


def _corners(rng: np.random.Generator) -> np.ndarray:
    """(n, 2): corners of a polygon that can be seen whole from the middle."""
    count = int(rng.integers(3, 10))
    angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    radii = rng.uniform(0.18, 0.6, count)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _wavy_disc(rng: np.random.Generator) -> np.ndarray:
    """A disc whose radius is a sum of waves along its edge."""
    amplitudes = rng.normal(size=4) * (0.3, 0.22, 0.16, 0.12)
    phases = rng.random(4) * 2 * np.pi
    angle = np.arctan2(_V, _U)
    waves = np.zeros_like(angle)
    for number, (amplitude, phase) in enumerate(zip(amplitudes, phases, strict=True), start=2):
        waves = waves + amplitude * np.cos(number * angle + phase)
    return np.hypot(_U, _V) < 0.4 * (1 + waves)


def _strokes(rng: np.random.Generator) -> np.ndarray:
    """A line through some places of a grid of three by three."""
    numbers = rng.permutation(9)[: rng.integers(3, 6)]
    grid = np.stack([numbers % 3 - 1, numbers // 3 - 1], axis=1) * 0.4
    places = grid + rng.normal(size=(len(numbers), 2)) * 0.05
    width = rng.uniform(0.07, 0.14)
    strokes = [_stroke(start, end, width) for start, end in pairwise(places)]
    return np.any(strokes, axis=0)


def _stroke(start: np.ndarray, end: np.ndarray, width: float) -> np.ndarray:
    """All places within `width` of the line from one place to another."""
    x, y = start
    across, down = end - start
    length = max(((end - start) ** 2).sum(), 1e-6)  # squared
    along = np.clip(((_U - x) * across + (_V - y) * down) / length, 0, 1)
    return np.hypot(_U - x - along * across, _V - y - along * down) < width


def _part(rng: np.random.Generator) -> np.ndarray:
    """A turned ellipse, rectangle or triangle near the middle."""
    x, y = rng.uniform(-0.3, 0.3, 2)
    wide, tall = rng.uniform(0.12, 0.42, 2)
    turn = rng.random() * np.pi
    u = ((_U - x) * np.cos(turn) + (_V - y) * np.sin(turn)) / wide
    v = ((_V - y) * np.cos(turn) - (_U - x) * np.sin(turn)) / tall
    kind = rng.integers(3)
    if kind == 0:
        return u * u + v * v < 1
    if kind == 1:
        return np.maximum(np.abs(u), np.abs(v)) < 0.85
    return (v > -0.8) & (2 * np.abs(u) + v < 1.1)


def _centred(form: np.ndarray) -> np.ndarray | None:
    """A form moved and scaled to its place; None if it is in several parts, cut off or too thin."""
    _, num_parts = cast("tuple[np.ndarray, int]", ndimage.label(form))
    is_cut_off = form[[0, -1]].any() or form[:, [0, -1]].any()
    if num_parts != 1 or is_cut_off:
        return None
    depth = cast("np.ndarray", ndimage.distance_transform_edt(form))
    row, col = np.unravel_index(depth.argmax(), depth.shape)
    rows, cols = np.nonzero(form)
    farthest = np.hypot(rows - row, cols - col).max() * 2 * SPAN / TEMPLATE
    scale = farthest / REACH_OF_FORMS
    down = _V * scale * TEMPLATE / (2 * SPAN) + row
    across = _U * scale * TEMPLATE / (2 * SPAN) + col
    moved = ndimage.map_coordinates(form.astype(np.float32), [down, across], order=1) > 0.5
    is_thin = moved.mean() * (2 * SPAN) ** 2 < _SMALLEST_AREA
    return None if is_thin else moved


def signature(form: np.ndarray) -> np.ndarray:
    """(_RINGS * _WAVES,): how a form lies in rings around its centre of gravity, the same for every turn and
    for its mirror image.
    """
    rows, cols = np.nonzero(form)
    radii = (np.arange(_RINGS) + 0.5) / _RINGS * TEMPLATE / 2
    angles = np.arange(64) * 2 * np.pi / 64
    down = rows.mean() + np.outer(radii, np.sin(angles))
    across = cols.mean() + np.outer(radii, np.cos(angles))
    blurred = ndimage.gaussian_filter(form.astype(np.float32), TEMPLATE / 64)
    rings = ndimage.map_coordinates(blurred, [down, across], order=1)  # (_RINGS, 64)
    # Turning the form shifts each ring; the sizes of its waves stay.
    waves = np.abs(np.fft.rfft(rings, axis=1)[:, :_WAVES]).ravel()
    weights = np.repeat(np.sqrt(radii / radii.mean()), _WAVES)
    return waves * weights / 64


def codes(folder: Path, count: int) -> np.ndarray:
    """(count + known shapes, CODE) float32: principal components of the signatures, the first of variance one
    over the forms.

    They are kept in `folder`, because thousands of forms take minutes.
    """
    path = folder / f"codes_{count}.npy"
    if not path.exists():
        of_forms = [signature(template(index)) for index in range(count)]
        of_shapes = [signature(_known(shape)) for shape in SHAPES]
        signatures = np.stack([*of_forms, *of_shapes])
        signatures -= signatures[:count].mean(0)
        _, spread, axes = np.linalg.svd(signatures[:count], full_matrices=False)
        components = signatures @ axes[:CODE].T / spread[:CODE] * np.sqrt(count)
        scales = np.sqrt(spread[:CODE] / spread[0])
        np.save(path, (components * scales).astype(np.float32))
    return np.load(path)


def _known(shape: str) -> np.ndarray:
    """A known shape as a template."""
    stamp = draw_shape(shape, TEMPLATE / 2, TEMPLATE / 2, TEMPLATE / (2 * SPAN))
    form = np.zeros((TEMPLATE, TEMPLATE), dtype=bool)
    part, window = clip_stamp(stamp, TEMPLATE, TEMPLATE)
    form[window] = 2 * part >= SAMPLES * SAMPLES
    return form


def likeness(form: np.ndarray, shape: str) -> float:
    """The largest overlap (intersection over union) of a form and a new shape of equal area, over turns and
    mirror images.
    """
    form = _normal(form)
    overlaps = [(form & view).sum() / (form | view).sum() for view in _turned(shape)]
    return float(max(overlaps))


def _normal(form: np.ndarray) -> np.ndarray:
    """A form with its centre of gravity in the middle, and an area of a quarter of the template."""
    rows, cols = np.nonzero(form)
    scale = np.sqrt(len(rows) / (0.16 * TEMPLATE * TEMPLATE))
    grid = np.arange(TEMPLATE) - (TEMPLATE - 1) / 2
    at = np.meshgrid(grid * scale + rows.mean(), grid * scale + cols.mean(), indexing="ij")
    return ndimage.map_coordinates(form.astype(np.float32), at, order=1) > 0.5


@cache
def _turned(shape: str) -> tuple[np.ndarray, ...]:
    """A new shape in 48 directions, and mirrored."""
    views = []
    for quarter in range(4):
        for step in range(12):
            tilt = np.tan(np.pi / 48 * step)
            stamp = draw_new_shape(shape, 60, 60, 60 / REACH, tilt, quarter)
            views.append(_normal(2 * stamp.coverage >= SAMPLES * SAMPLES))
    return (*views, *(view[:, ::-1] for view in views))


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
    side = 1 if rng.random() < 0.5 else -1
    u = (across * np.cos(turn) + down * np.sin(turn)) * squeeze * side
    v = (down * np.cos(turn) - across * np.sin(turn)) / squeeze
    inside = template(index)[_template_index(v), _template_index(u)]
    blocks = inside.reshape(2 * reach, SAMPLES, 2 * reach, SAMPLES)
    return Stamp(blocks.sum(axis=(1, 3), dtype=np.uint8), left, top)


def _template_index(coordinates: np.ndarray) -> np.ndarray:
    """Rows or columns of a template at these coordinates; those outside move to its edge, where no form is."""
    samples = (coordinates + SPAN) * (TEMPLATE / (2 * SPAN))
    return np.clip(samples.astype(np.int32), 0, TEMPLATE - 1)


def draw_pattern(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A ground with a pattern: waves, rings, a mosaic, or scratches; picture (CROP, CROP, 3) and its (2, 3)
    extreme colours.
    """
    middle = np.clip(int(rng.integers(35, 221)) + rng.integers(-35, 36, size=3), 20, 235)
    swing = rng.integers(-30, 31, size=3) + int(rng.integers(-25, 26))
    ends = np.clip(np.stack([middle - swing, middle + swing]), 0, 255).astype(np.int32)
    draw = (_waves, _rings, _mosaic, _scratches)[rng.integers(4)]
    level = draw(rng)
    if rng.random() < 0.5 and draw is not _mosaic:
        level = np.where(level > 0, 1.0, -1.0)
    share = (np.clip(level, -1, 1)[..., None] + 1) / 2
    picture = ends[0] * (1 - share) + ends[1] * share
    grain = int(rng.integers(0, 10))
    noise = rng.integers(-grain, grain + 1, size=picture.shape)
    return (picture + noise).astype(np.int32), ends


_DOWN, _ACROSS = np.mgrid[:CROP, :CROP].astype(np.float32)


def _waves(rng: np.random.Generator) -> np.ndarray:
    """(CROP, CROP) levels around 0: up to three plane waves."""
    level = np.zeros((CROP, CROP), dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        angle, period = rng.random() * np.pi, rng.uniform(6, 45)
        way = _ACROSS * np.cos(angle) + _DOWN * np.sin(angle)
        level += np.sin(2 * np.pi * way / period + rng.random() * 6)
    return level


def _rings(rng: np.random.Generator) -> np.ndarray:
    """The same: rings around a place inside the picture or near it."""
    x, y = rng.uniform(-0.3, 1.3, 2) * CROP
    return np.sin(2 * np.pi * np.hypot(_ACROSS - x, _DOWN - y) / rng.uniform(8, 40))


def _mosaic(rng: np.random.Generator) -> np.ndarray:
    """The same: each place has the level of the nearest of some seeds."""
    seeds = rng.random((int(rng.integers(6, 70)), 2)) * CROP
    distances = (_ACROSS[..., None] - seeds[:, 0]) ** 2 + (_DOWN[..., None] - seeds[:, 1]) ** 2
    levels = rng.uniform(-1, 1, len(seeds)).astype(np.float32)
    return levels[distances.argmin(-1)]


def _scratches(rng: np.random.Generator) -> np.ndarray:
    """The same: lines across the picture."""
    level = np.zeros((CROP, CROP), dtype=np.float32)
    for _ in range(rng.integers(5, 30)):
        angle, offset = rng.random() * np.pi, rng.uniform(-0.2, 1.2) * CROP
        away = np.abs(
            (_ACROSS - CROP / 2) * np.cos(angle) + (_DOWN - CROP / 2) * np.sin(angle) + CROP / 2 - offset
        )
        level[away < rng.uniform(0.5, 5)] += rng.uniform(-1, 1)
    return level


def draw_forms(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of some of the first `count` forms and of known shapes, whose classes come after those of the
    forms.

    Returns:
        (CROP, CROP, 3) uint8; (CROP, CROP) uint8, the number of the object at each pixel (0 is ground); and
        (GRID * GRID, 3) int16: the class at each ViT patch plus one (0 is ground), the location cell of the
        point that lies in the patch (column first, -1 without a point), and the number of its object.
    """
    is_plain = rng.random() < 0.35
    picture, ends = draw_background(rng, CROP, CROP) if is_plain else draw_pattern(rng)
    few = rng.choice(count, size=int(rng.integers(2, 7)))
    objects: list[_Object] = []
    for _ in range(int(rng.integers(*_NUM_OBJECTS))):
        is_known = rng.random() < _KNOWN
        size = rng.uniform(*_SIZES) * CROP
        place = _free_place(rng, size, objects)
        if place is None:
            continue
        x, y = place
        if is_known:
            kind = int(rng.integers(len(SHAPES)))
            tilt = rng.uniform(-0.1, 0.1)
            is_upright = SHAPES[kind] == "rectangle" and rng.random() < 0.5
            objects.append(
                _Object(count + kind, x, y, size, draw_shape(SHAPES[kind], x, y, size, tilt, is_upright))
            )
        else:
            kind = int(few[rng.integers(len(few))])
            objects.append(_Object(kind, x, y, size, draw_form(kind, x, y, size, rng)))
    owners = np.zeros((CROP, CROP), dtype=np.uint8)
    for number, item in enumerate(objects, start=1):
        shape = SHAPES[item.kind - count] if item.kind >= count else None
        owners[paint(picture, item.stamp, _colour(rng, ends, shape))] = number
    return np.clip(picture, 0, 255).astype(np.uint8), owners, _labels(objects, owners)


def _free_place(rng: np.random.Generator, size: float, objects: list[_Object]) -> tuple[float, float] | None:
    """A place that is far enough from all objects; None if it was not found."""
    margin = 0.7 * size
    for _ in range(20):
        x, y = rng.uniform(margin, CROP - margin, 2).tolist()
        if all(np.hypot(x - other.x, y - other.y) > 0.42 * (size + other.size) for other in objects):
            return x, y
    return None


def _colour(rng: np.random.Generator, ends: np.ndarray, shape: str | None) -> np.ndarray:
    """A known colour or any other that stands out from the ground; never one that makes a known shape a
    held-out pair.
    """
    while True:
        colour = np.clip(_any_colour(rng), 0, 255).astype(np.int32)
        stands_out = np.abs(colour - ends).max(axis=1).min() >= _CONTRAST
        if stands_out and (nearest_colour(colour), shape) not in HELD_OUT_PAIRS:
            return colour


def _any_colour(rng: np.random.Generator) -> np.ndarray:
    """A shade of a known colour, or any other colour; some numbers may be too large or too small."""
    if rng.random() < 0.6:
        return _PALETTE[rng.integers(len(_PALETTE))] + rng.integers(-16, 17, 3)
    return rng.integers(0, 256, 3)


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
        patch, cell = cell_of(item.x / CROP, item.y / CROP)
        labels[patch] = item.kind + 1, cell, number
    return labels


@dataclass(frozen=True)
class FormShard:
    """A shard of pictures of forms.

    Attributes:
        pixels: (N, CROP, CROP, 3) uint8.
        owners: (N, CROP, CROP) uint8, see `draw_forms`.
        labels: (N, GRID * GRID, 3) int16, likewise.
    """

    pixels: Tensor
    owners: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def load_form_shard(path: Path) -> FormShard:
    """Opens a shard of forms."""
    return FormShard(**load_file(path))


def draw_form_shard(folder: Path, index: int, settings: Settings) -> None:
    """Writes shard `index` of the forms unless it is there; files appear complete or not at all."""
    path = folder / f"forms_{index:04d}.safetensors"
    if path.exists():
        return
    drawn = [
        draw_forms(np.random.default_rng([FORM_SEED, 1, index, i]), settings.num_forms)
        for i in range(settings.shard_scenes)
    ]
    pixels, owners, labels = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    write_shard(path, {"pixels": pixels, "owners": owners, "labels": labels})
