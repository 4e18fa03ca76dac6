"""Where things stand on the one crop of the embedded model: pooling tables, cells of points, and what
mirroring does to both.

Points are given as parts of the picture's sides, so pictures here are one pixel wide and high; the arithmetic
is that of `molmopoint.geometry`. A small picture has one tile that is equal to its overview, so both of their
tables pool the same crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molmopoint.geometry import PointingMetadata, points_to_triples
from nano.settings import GRID, LOCATIONS

PICTURE_WINDOW, FRAME_WINDOW = 2, 3
"""ViT patches per side of an image token of a picture, and of a frame of a clip."""
UNIT = (1, 1)
"""Size of a picture whose points are given as parts of its sides."""


def pooling_of_crop(window: int) -> Tensor:
    """(image tokens, window * window) ViT patches of each image token of a crop, row by row."""
    pooled = GRID // window
    grid = torch.arange(GRID * GRID).reshape(pooled, window, pooled, window)
    return grid.permute(0, 2, 1, 3).reshape(-1, window * window)


def pooling_of_crops(pooling: Tensor, crops: int) -> Tensor:
    """(crops * T, K): the table (T, K) of one crop for several of them, one after the other."""
    offsets = GRID * GRID * torch.arange(crops)[:, None, None]
    return (pooling + offsets).flatten(0, 1)


def picture_metadata(size: tuple[int, int] = UNIT, overview: bool = True) -> PointingMetadata:
    """What the processor would record for a picture of (width, height).

    Args:
        size: in pixels.
        overview: whether the tile comes behind an overview, as the processor has it, or alone.
    """
    tile = pooling_of_crop(PICTURE_WINDOW).numpy()
    table = np.concatenate([tile, tile]) if overview else tile
    indexable = np.arange(len(table)) >= len(table) - len(tile)
    patch_map = np.arange(GRID * GRID).reshape(GRID, GRID)
    return PointingMetadata(table, indexable, [patch_map], [size], location_grid=LOCATIONS)


def clip_metadata(timestamps: Sequence[float] | np.ndarray, size: tuple[int, int] = UNIT) -> PointingMetadata:
    """What the processor would record for a clip with frames at these seconds, of (width, height)."""
    frames = len(timestamps)
    table = pooling_of_crops(pooling_of_crop(FRAME_WINDOW), frames).numpy()
    patch_maps = list(np.arange(frames * GRID * GRID).reshape(frames, GRID, GRID))
    indexable = np.ones(len(table), dtype=bool)
    return PointingMetadata(table, indexable, patch_maps, [size], np.asarray(timestamps), LOCATIONS)


def picture_triples(points: Any, overview: bool = True) -> np.ndarray:
    """(n, 3) patch, subpatch and location of points (n, 2) given as parts of width and height."""
    xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return points_to_triples(np.zeros(len(xy)), xy, _unit_picture(overview))


def clip_triples(frames: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(n, 3) patch, subpatch and location of points (n, 2) given as parts of the sides, in frames (n,); those
    outside move to the edge.
    """
    return points_to_triples(frames, xy, _unit_clip(int(frames.max()) + 1), clip=True)


def cell_of(x: float, y: float) -> tuple[int, int]:
    """ViT patch and location cell (column first) of a point given as parts of width and height."""
    ((token, slot, cell),) = picture_triples([(x, y)], overview=False).tolist()
    return int(_unit_picture(False).pooling[token, slot]), cell


def turn_pictures(pixels: Tensor, labels: Tensor, way: int, cells: int) -> tuple[Tensor, Tensor]:
    """Mirrors pictures left to right (`way` 4 to 7), then turns them by quarters (`way` modulo 4), with their
    labels.

    Args:
        pixels: (N, CROP, CROP, C).
        labels: (N, GRID * GRID, L) of each ViT patch.
        way: one of the 8.
        cells: which of the L labels is a location cell, -1 where there is none.
    """
    grid = _turned(labels.unflatten(1, (GRID, GRID)), 1, way).flatten(1, 2).clone()
    # Cells are numbered column first, so their table is turned transposed.
    numbers = torch.arange(LOCATIONS**2).view(LOCATIONS, LOCATIONS).T
    moved = torch.empty(LOCATIONS**2, dtype=torch.long)
    moved[_turned(numbers, 0, way).flatten()] = numbers.flatten()
    cell = grid[..., cells].long()
    grid[..., cells] = torch.where(cell >= 0, moved[cell.clamp(min=0)], cell).to(grid.dtype)
    return _turned(pixels, 1, way), grid


def _turned(values: Tensor, rows: int, way: int) -> Tensor:
    """Mirrors and turns the axes `rows` and `rows + 1`."""
    mirrored = values.flip(rows + 1) if way >= 4 else values
    return torch.rot90(mirrored, way % 4, (rows, rows + 1))


@cache
def _unit_picture(overview: bool) -> PointingMetadata:
    return picture_metadata(UNIT, overview)


@cache
def _unit_clip(frames: int) -> PointingMetadata:
    """A clip with a frame per second, so that seconds are numbers of frames."""
    return clip_metadata(np.arange(frames))
