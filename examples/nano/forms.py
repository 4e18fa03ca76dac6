"""Forms without names: what the vision transformer sees so that it can tell shapes apart that it has never been told of.

A form is cut from polygons, ellipses and strokes by chance; form k comes from the seed [FORM_SEED, k]. Those that look like one of
the shapes that the own-data trial keeps for itself are left out (`likeness`), so these stay new. Pictures show forms and known shapes
in any colour, turned to any side, on grounds of many patterns; what is written down is which form stands at which ViT patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from new_shapes.drawing import NEW_SHAPES, REACH, draw_new_shape
from safetensors.torch import save_file
from scipy import ndimage

from molmopoint.data.drawing import COLOURS, SAMPLES, SHAPES, Stamp, clip_stamp, draw_background, draw_shape, paint
from nano.settings import CROP, GRID, LOCATIONS, Settings

FORM_SEED = 77_003
TEMPLATE = 128
"""Samples per side of a template."""
_SPAN = 0.8
"""A template reaches from -_SPAN to _SPAN in units of the nominal size."""
_REACH = 0.64
"""Farthest part of a form from its point, in the same units."""
_SMALLEST_AREA = 0.13
_ALIKE = 0.8
_RINGS, _WAVES = 16, 9
CODE = 24
"""Numbers that describe a form, whatever way it is turned."""
_COVERED = 0.15
_NUM_OBJECTS = (4, 12)
_SIZES = (0.14, 0.29)
_CONTRAST = 60
_KNOWN = 0.25
"""Share of known shapes among the objects."""

_AXIS = (2 * np.arange(TEMPLATE) + 1 - TEMPLATE) / TEMPLATE * _SPAN
_U, _V = np.meshgrid(_AXIS, _AXIS)


@cache
def template(index: int) -> np.ndarray:
    """(TEMPLATE, TEMPLATE) bool: a form, in units of its nominal size, with its point (well inside it) in the middle."""
    rng = np.random.default_rng([FORM_SEED, index])
    while True:
        form = _centred(_cut(rng))
        if form is not None and max(likeness(form, shape) for shape in NEW_SHAPES) < _ALIKE:
            return form


def _cut(rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(4)
    if kind == 0:
        return _radial(_corner_radii(rng))
    if kind == 1:
        amplitudes = rng.normal(size=4) * (0.3, 0.22, 0.16, 0.12)
        phases = rng.random(4) * 2 * np.pi
        angle = np.arctan2(_V, _U)
        waves = sum(a * np.cos((k + 2) * angle + p) for k, (a, p) in enumerate(zip(amplitudes, phases, strict=True)))
        return np.hypot(_U, _V) < 0.4 * (1 + waves)
    if kind == 2:
        corners = rng.permutation(9)[: rng.integers(3, 6)]
        places = np.stack([corners % 3 - 1, corners // 3 - 1], axis=1) * 0.4 + rng.normal(size=(len(corners), 2)) * 0.05
        width = rng.uniform(0.07, 0.14)
        return np.any([_stroke(a, b, width) for a, b in zip(places, places[1:], strict=False)], axis=0)
    parts = [_part(rng) for _ in range(rng.integers(2, 4))]
    form = np.any(parts, axis=0)
    return form & ~_part(rng) if rng.random() < 0.4 else form


def _corner_radii(rng: np.random.Generator) -> np.ndarray:
    """(n, 2): corners of a polygon that can be seen whole from the middle."""
    count = int(rng.integers(3, 10))
    angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    radii = rng.uniform(0.18, 0.6, count)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _radial(corners: np.ndarray) -> np.ndarray:
    inside = np.zeros(_U.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if ay != by:
            inside ^= ((ay > _V) != (by > _V)) & (ax + (_V - ay) / (by - ay) * (bx - ax) > _U)
    return inside


def _stroke(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    along = np.clip(((_U - a[0]) * (b - a)[0] + (_V - a[1]) * (b - a)[1]) / max(((b - a) ** 2).sum(), 1e-6), 0, 1)
    return np.hypot(_U - a[0] - along * (b - a)[0], _V - a[1] - along * (b - a)[1]) < width


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
    if ndimage.label(form)[1] != 1 or form[[0, -1]].any() or form[:, [0, -1]].any():
        return None
    depth = ndimage.distance_transform_edt(form)
    row, col = np.unravel_index(depth.argmax(), depth.shape)
    rows, cols = np.nonzero(form)
    farthest = np.hypot(rows - row, cols - col).max() * 2 * _SPAN / TEMPLATE
    scale = farthest / _REACH
    at = [(_V if axis == 0 else _U) * scale * TEMPLATE / (2 * _SPAN) + centre for axis, centre in ((0, row), (1, col))]
    moved = ndimage.map_coordinates(form.astype(np.float32), at, order=1) > 0.5
    return moved if moved.mean() * (2 * _SPAN) ** 2 >= _SMALLEST_AREA else None


def signature(form: np.ndarray) -> np.ndarray:
    """(_RINGS * _WAVES,): how a form lies in rings around its centre of gravity, the same for every turn and for its mirror image."""
    rows, cols = np.nonzero(form)
    radii, angles = (np.arange(_RINGS) + 0.5) / _RINGS * TEMPLATE / 2, np.arange(64) * 2 * np.pi / 64
    at = [rows.mean() + np.outer(radii, np.sin(angles)), cols.mean() + np.outer(radii, np.cos(angles))]
    rings = ndimage.map_coordinates(ndimage.gaussian_filter(form.astype(np.float32), TEMPLATE / 64), at, order=1)
    return np.abs(np.fft.rfft(rings, axis=1)[:, :_WAVES]).ravel() * np.repeat(np.sqrt(radii / radii.mean()), _WAVES) / 64


def codes(folder: Path, count: int) -> np.ndarray:
    """(count + known shapes, CODE) float32: principal components of the signatures, the first of variance one over the forms.

    They are kept in `folder`, because thousands of forms take minutes.
    """
    path = folder / f"codes_{count}.npy"
    if not path.exists():
        signatures = np.stack([signature(template(index)) for index in range(count)] + [signature(_known(shape)) for shape in SHAPES])
        signatures -= signatures[:count].mean(0)
        _, spread, axes = np.linalg.svd(signatures[:count], full_matrices=False)
        np.save(path, (signatures @ axes[:CODE].T / spread[:CODE] * np.sqrt(count) * np.sqrt(spread[:CODE] / spread[0])).astype(np.float32))
    return np.load(path)


def _known(shape: str) -> np.ndarray:
    """A known shape as a template."""
    stamp = draw_shape(shape, TEMPLATE / 2, TEMPLATE / 2, TEMPLATE / (2 * _SPAN))
    form = np.zeros((TEMPLATE, TEMPLATE), dtype=bool)
    part, window = clip_stamp(stamp, TEMPLATE, TEMPLATE)
    form[window] = 2 * part >= SAMPLES * SAMPLES
    return form


def likeness(form: np.ndarray, shape: str) -> float:
    """The largest overlap (intersection over union) of a form and a new shape of equal area, over turns and mirror images."""
    return max(float((form_ & own).sum() / (form_ | own).sum()) for form_ in [_normal(form)] for own in _turned(shape))


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


@dataclass(frozen=True)
class _Object:
    kind: int
    x: float
    y: float
    stamp: Stamp


def draw_form(index: int, x: float, y: float, size: float, rng: np.random.Generator) -> Stamp:
    """A form at a place, turned, mirrored and a little squeezed by chance."""
    reach = int(1.1 * _REACH * size) + 2
    left, top = int(x) - reach, int(y) - reach
    ticks = (2 * np.arange(2 * reach * SAMPLES, dtype=np.float32) + 1) / (2 * SAMPLES)
    across, down = np.meshgrid((left + ticks - x) / size, (top + ticks - y) / size)
    turn, squeeze = rng.random() * 2 * np.pi, rng.uniform(0.92, 1.08)
    u = (across * np.cos(turn) + down * np.sin(turn)) * squeeze * (1 if rng.random() < 0.5 else -1)
    v = (down * np.cos(turn) - across * np.sin(turn)) / squeeze
    rows, cols = (np.clip(((c + _SPAN) * (TEMPLATE / (2 * _SPAN))).astype(np.int32), 0, TEMPLATE - 1) for c in (v, u))
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
    if rng.random() < 0.5:
        level = np.where(level > 0, 1.0, -1.0) if kind != 2 else level
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
    places: list[tuple[float, float, float]] = []
    few = rng.choice(count, size=int(rng.integers(2, 7)))
    for _ in range(int(rng.integers(*_NUM_OBJECTS))):
        known = rng.random() < _KNOWN
        size = rng.uniform(*_SIZES) * CROP
        margin = 0.7 * size
        for _ in range(20):
            x, y = rng.uniform(margin, CROP - margin, 2).tolist()
            if all(np.hypot(x - a, y - b) > 0.42 * (size + other) for a, b, other in places):
                break
        else:
            continue
        places.append((x, y, size))
        if known:
            kind = int(rng.integers(len(SHAPES)))
            stamp = draw_shape(SHAPES[kind], x, y, size, rng.uniform(-0.1, 0.1), SHAPES[kind] == "rectangle" and rng.random() < 0.5)
            objects.append(_Object(count + kind, x, y, stamp))
        else:
            kind = int(few[rng.integers(len(few))])
            objects.append(_Object(kind, x, y, draw_form(kind, x, y, size, rng)))
    owners = np.zeros((CROP, CROP), dtype=np.uint8)
    for number, item in enumerate(objects, start=1):
        owners[paint(picture, item.stamp, _colour(rng, ends))] = number
    return np.clip(picture, 0, 255).astype(np.uint8), owners, _labels(objects, owners)


def _colour(rng: np.random.Generator, ends: np.ndarray) -> np.ndarray:
    """A known colour or any other that stands out from the ground."""
    known = np.array(list(COLOURS.values()))
    while True:
        colour = known[rng.integers(len(known))] + rng.integers(-16, 17, 3) if rng.random() < 0.6 else rng.integers(0, 256, 3)
        colour = np.clip(colour, 0, 255).astype(np.int32)
        if np.abs(colour - ends).max(axis=1).min() >= _CONTRAST:
            return colour


def _labels(objects: list[_Object], owners: np.ndarray) -> np.ndarray:
    labels = np.zeros((GRID * GRID, 3), dtype=np.int16)
    labels[:, 1] = -1
    if not objects:
        return labels
    side = CROP // GRID
    numbers = np.arange(1, len(objects) + 1)
    filled = (owners == numbers[:, None, None]).reshape(-1, GRID, side, GRID, side).mean(axis=(2, 4)).reshape(len(objects), -1)
    kinds = np.array([item.kind + 1 for item in objects])
    owner, owned = filled.argmax(axis=0), filled.max(axis=0) >= _COVERED
    labels[owned, 0], labels[owned, 2] = kinds[owner[owned]], numbers[owner[owned]]
    for number, item in enumerate(objects, start=1):
        x, y = item.x / side, item.y / side
        labels[int(y) * GRID + int(x)] = item.kind + 1, LOCATIONS * int(LOCATIONS * (x % 1)) + int(LOCATIONS * (y % 1)), number
    return labels


def draw_form_shard(folder: Path, index: int, settings: Settings) -> None:
    """Writes shard `index` of the forms unless it is there; files appear complete or not at all."""
    path = folder / f"forms_{index:04d}.safetensors"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [draw_forms(np.random.default_rng([FORM_SEED, 1, index, i]), settings.num_forms) for i in range(settings.shard_scenes)]
    pixels, owners, labels = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    beside = path.with_suffix(".partial")
    save_file({"pixels": pixels, "owners": owners, "labels": labels}, beside)
    beside.replace(path)
