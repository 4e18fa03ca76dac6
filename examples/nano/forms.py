"""Forms without names: what the vision transformer sees so that it can tell shapes apart that it has never been told of.

A form is cut from polygons, ellipses and strokes by chance; form k comes from the seed [FORM_SEED, k]. Those that look like one of
the shapes that the own-data trial keeps for itself are left out (`likeness`), so these stay new. `codes` say in a few numbers what a form
looks like, whatever way it is turned. `form_pictures` draws pictures of them.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
from new_shapes.drawing import NEW_SHAPES, REACH, draw_new_shape, polygon
from scipy import ndimage

from molmopoint.data.drawing import SAMPLES, SHAPES, clip_stamp, draw_shape

FORM_SEED = 77_003
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
    """(TEMPLATE, TEMPLATE) bool: a form, in units of its nominal size, with its point (well inside it) in the middle."""
    rng = np.random.default_rng([FORM_SEED, index])
    while True:
        form = _centred(_cut(rng))
        if form is not None and max(likeness(form, shape) for shape in NEW_SHAPES) < _ALIKE:
            return form


def _cut(rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(4)
    if kind == 0:
        return polygon(_U, _V, _corners(rng))
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
        return np.any([_stroke(a, b, width) for a, b in pairwise(places)], axis=0)
    parts = [_part(rng) for _ in range(rng.integers(2, 4))]
    form = np.any(parts, axis=0)
    return form & ~_part(rng) if rng.random() < 0.4 else form


def _corners(rng: np.random.Generator) -> np.ndarray:
    """(n, 2): corners of a polygon that can be seen whole from the middle."""
    count = int(rng.integers(3, 10))
    angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    radii = rng.uniform(0.18, 0.6, count)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


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
    _, num_parts = cast("tuple[np.ndarray, int]", ndimage.label(form))
    is_cut_off = form[[0, -1]].any() or form[:, [0, -1]].any()
    if num_parts != 1 or is_cut_off:
        return None
    depth = cast("np.ndarray", ndimage.distance_transform_edt(form))
    row, col = np.unravel_index(depth.argmax(), depth.shape)
    rows, cols = np.nonzero(form)
    farthest = np.hypot(rows - row, cols - col).max() * 2 * SPAN / TEMPLATE
    scale = farthest / REACH_OF_FORMS
    at = [(_V if axis == 0 else _U) * scale * TEMPLATE / (2 * SPAN) + centre for axis, centre in ((0, row), (1, col))]
    moved = ndimage.map_coordinates(form.astype(np.float32), at, order=1) > 0.5
    return moved if moved.mean() * (2 * SPAN) ** 2 >= _SMALLEST_AREA else None


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
    stamp = draw_shape(shape, TEMPLATE / 2, TEMPLATE / 2, TEMPLATE / (2 * SPAN))
    form = np.zeros((TEMPLATE, TEMPLATE), dtype=bool)
    part, window = clip_stamp(stamp, TEMPLATE, TEMPLATE)
    form[window] = 2 * part >= SAMPLES * SAMPLES
    return form


def likeness(form: np.ndarray, shape: str) -> float:
    """The largest overlap (intersection over union) of a form and a new shape of equal area, over turns and mirror images."""
    form = _normal(form)
    return max(float((form & own).sum() / (form | own).sum()) for own in _turned(shape))


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
