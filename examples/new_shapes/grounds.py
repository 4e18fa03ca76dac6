"""Backgrounds: those of the training pictures, and those of the test pictures, which share neither pattern
nor tint.

Integers only, so that the same seed gives the same bytes on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PATTERNS = {"train": ("plain", "graded", "stripes"), "test": ("checks", "dots", "clouds")}
"""How a ground is patterned, by part of the data."""

TINTS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "train": ((226, 220, 205), (205, 214, 226), (70, 74, 86), (96, 84, 70), (165, 150, 170), (140, 150, 130)),
    "test": ((214, 228, 208), (230, 208, 212), (52, 78, 72), (84, 60, 78), (130, 160, 166), (178, 158, 128)),
}
"""Mean colours of a ground, by part of the data."""

_JITTER = 10
_DEPTH = (8, 22)
"""How far the two colours of a pattern are apart, smallest and below which."""


@dataclass(frozen=True)
class Ground:
    """A background.

    Attributes:
        picture: (height, width, 3) int32.
        ends: (2, 3) int32, its two extreme colours before the grain.
        pattern: its name.
    """

    picture: np.ndarray
    ends: np.ndarray
    pattern: str


def draw_ground(rng: np.random.Generator, height: int, width: int, part: str) -> Ground:
    """A ground of the training or the test part ("train", "test")."""
    pattern = PATTERNS[part][int(rng.integers(len(PATTERNS[part])))]
    tint = np.array(TINTS[part][int(rng.integers(len(TINTS[part])))], dtype=np.int32)
    tint = tint + rng.integers(-_JITTER, _JITTER + 1, size=3)
    depth = int(rng.integers(*_DEPTH)) if pattern != "plain" else 0
    ends = np.clip(np.stack([tint - depth, tint + depth]), 0, 255).astype(np.int32)
    share = _share(rng, pattern, height, width)[:, :, None]  # (height, width, 1)
    picture = (ends[0] * (64 - share) + ends[1] * share) // 64
    grain = int(rng.integers(0, 7))
    picture = picture + rng.integers(-grain, grain + 1, size=picture.shape, dtype=np.int32)
    return Ground(np.clip(picture, 0, 255).astype(np.int32), ends, pattern)


def _share(rng: np.random.Generator, pattern: str, height: int, width: int) -> np.ndarray:
    """(height, width) int32 from 0 to 64: how much of the second colour stands where."""
    down = np.arange(height, dtype=np.int32)[:, None]
    across = np.arange(width, dtype=np.int32)[None, :]
    if pattern == "plain":
        return np.zeros((height, width), dtype=np.int32)
    if pattern == "graded":
        slope = rng.integers(-4, 5, size=2)
        ramp = slope[0] * down + slope[1] * across
        ramp = ramp - ramp.min()
        return (64 * ramp // max(int(ramp.max()), 1)).astype(np.int32)
    period = int(rng.integers(10, 31))
    if pattern == "stripes":
        slope = rng.integers(-2, 3, size=2)
        # A slope of 0 would make no stripes.
        ramp = slope[0] * down + (slope[1] or 1) * across
        return (64 * (ramp // period % 2)).astype(np.int32)
    if pattern == "checks":
        return 64 * ((down // period + across // period) % 2)
    if pattern == "dots":
        high = down % period - period // 2
        low = across % period - period // 2
        return np.where(16 * (high * high + low * low) <= period * period, 64, 0).astype(np.int32)
    return _clouds(rng, period, down, across)


def _clouds(rng: np.random.Generator, period: int, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Random levels at the corners of a grid, blended linearly between them."""
    rows, cols = down.size // period + 2, across.size // period + 2
    corners = rng.integers(0, 65, size=(rows, cols)).astype(np.int32)
    row, below = np.divmod(down, period)
    col, right = np.divmod(across, period)
    upper = corners[row, col] * (period - right) + corners[row, col + 1] * right
    lower = corners[row + 1, col] * (period - right) + corners[row + 1, col + 1] * right
    return (upper * (period - below) + lower * below) // (period * period)
