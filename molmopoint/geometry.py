"""Between points in pixels and the grounding triples a model chooses.

A triple names an image token (patch), one of the ViT patches pooled into it (subpatch), and a cell of that
ViT patch (location). The patch maps say where on the picture's canvas each ViT patch lies, so crops, their
overlaps and the global view need no formulas here: the crop that owns a place in an overlap is the one the
map names.

Two things surprise people: location ids run column by column (id = cells * column + row), and the width of a
cell is 0.33 of a ViT patch, not a third (see `cell_width`).

Letters: P image tokens of the sample, K slots per image token. Pixels are those of the displayed original
picture, the origin is its upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molmopoint.errors import GroundingError

EMPTY_SLOT = -1
NO_LOCATION = -1
"""Third entry of a triple of a model without a location head; such a point is the centre of its ViT patch."""


def cell_width(cells: int) -> float:
    """Side of a location cell in ViT patches, for `cells` cells along a ViT patch.

    Source: the released code takes 0.33 for three cells, in training evaluation as well; published scores
        depend on it. Any other number of cells has no such history and divides the patch evenly.
    """
    return 0.33 if cells == 3 else 1.0 / cells


@dataclass(frozen=True, eq=False)
class PointingMetadata:
    """What the processor recorded about one sample, enough to turn triples into pixels and back.

    Attributes:
        pooling: (P, K) number of each ViT patch pooled into each image token, counted from 0 over the sample;
            -1 empty.
        indexable: (P,) bool, True where the image token may be chosen (not those of a global crop).
        patch_maps: per picture, or per frame of a clip, (rows, cols) ViT patch at each place of the canvas.
        image_sizes: (width, height) of each picture as displayed; for a clip one entry, the size of the
            video.
        timestamps: (T,) seconds of the frames of a clip; None for pictures.
        location_grid: cells along a side of a ViT patch; 0 for a model without a location head.

    Raises:
        GroundingError: the tables do not fit each other.
    """

    pooling: np.ndarray
    indexable: np.ndarray
    patch_maps: Sequence[np.ndarray]
    image_sizes: Sequence[tuple[int, int]]
    timestamps: np.ndarray | None = None
    location_grid: int = 3
    _places: _Places = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pooling, indexable = np.asarray(self.pooling, dtype=np.int64), np.asarray(self.indexable, dtype=bool)
        if pooling.ndim != 2 or indexable.shape != pooling.shape[:1]:
            raise GroundingError(
                f"expected a (P, K) pooling table and a (P,) indexable mask, got shapes {pooling.shape} and "
                f"{indexable.shape}"
            )
        maps = tuple(np.asarray(patch_map, dtype=np.int64) for patch_map in self.patch_maps)
        timestamps = None if self.timestamps is None else np.asarray(self.timestamps, dtype=np.float64)
        sizes = _checked_sizes(self.image_sizes, maps, timestamps)
        if self.location_grid < 0:
            raise GroundingError(
                f"expected a location grid of 0 (none) or more cells along a side, got {self.location_grid}"
            )
        places = _Places.build(pooling, indexable, maps)
        checked = {
            "pooling": pooling,
            "indexable": indexable,
            "patch_maps": maps,
            "image_sizes": sizes,
            "timestamps": timestamps,
        }
        for name, value in (checked | {"_places": places}).items():
            object.__setattr__(self, name, value)

    @property
    def num_patches(self) -> int:
        """P, image tokens of the sample, those of global crops included."""
        return self.pooling.shape[0]

    @property
    def num_slots(self) -> int:
        """K, columns of the pooling table."""
        return self.pooling.shape[1]

    @property
    def num_locations(self) -> int:
        """L, cells per ViT patch; 0 without a location head."""
        return self.location_grid**2

    @property
    def is_video(self) -> bool:
        """Whether groups are seconds of a clip and not indices of pictures."""
        return self.timestamps is not None


def image_patch_map(
    pooling_rows: np.ndarray, grid_hw: tuple[int, int], window_hw: tuple[int, int], canvas_hw: tuple[int, int]
) -> np.ndarray:
    """Rebuilds the patch map of one canvas (or video frame) from its rows of a pooling table.

    Args:
        pooling_rows: (grid rows * grid cols, K) ViT patches of the image tokens of this canvas, row by row;
            -1 empty.
        grid_hw: image tokens down and across.
        window_hw: ViT patches down and across one image token.
        canvas_hw: ViT patches down and across the canvas; what the grid has more is padding, half of it
            (rounded down) at the top and left.

    Returns:
        (rows, cols) int64 ViT patch at each place of the canvas, numbered as in `pooling_rows`.

    Raises:
        GroundingError: the sizes do not fit, or the canvas would have an empty place.
    """
    rows = np.asarray(pooling_rows, dtype=np.int64)
    grid, window, canvas = np.array([grid_hw, window_hw, canvas_hw], dtype=np.int64)
    padding = grid * window - canvas
    if rows.shape != (grid.prod(), window.prod()) or (padding < 0).any() or (padding >= window).any():
        raise GroundingError(
            f"expected {grid.prod()} pooling rows of {window.prod()} slots: {tuple(grid_hw)} windows of "
            f"{tuple(window_hw)} ViT patches "
            f"that just cover a canvas of {tuple(canvas_hw)}, got rows of shape {rows.shape}; pass the "
            "canvas rows without the global view"
        )
    spread = rows.reshape(*grid, *window).transpose(0, 2, 1, 3).reshape(grid * window)
    top, left = padding // 2
    patch_map = spread[top : top + canvas[0], left : left + canvas[1]]
    if (patch_map < 0).any():
        empty = int((patch_map < 0).sum())
        raise GroundingError(
            f"expected every place of the {tuple(canvas_hw)} canvas in the pooling rows, got {empty} empty"
        )
    return patch_map.copy()


def valid_triples(triples: Any, metadata: PointingMetadata) -> np.ndarray:
    """(n,) bool, True where a triple (n, 3) names a place: an indexable token, a filled slot, a cell of the
    grid.
    """
    return _vit_patches(_as_triples(triples), metadata) >= 0


def triples_to_points(triples: Any, metadata: PointingMetadata) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the chosen cells, in pixels of the displayed original.

    Args:
        triples: (n, 3) patch, subpatch and location ids; the location is -1 for a model without a location
            head.
        metadata: what the processor recorded for the same sample.

    Returns:
        group, (n,) int64 index of the picture or float64 seconds, and xy, (n, 2) float64 pixels.

    Raises:
        GroundingError: a triple names no place; use `valid_triples` to sort them out first.

    Source: paper, section on grounding tokens; cells and their order as released.
    """
    triples = _as_triples(triples)
    vit_patches = _vit_patches(triples, metadata)
    if (wrong := np.flatnonzero(vit_patches < 0)).size:
        raise GroundingError(
            f"expected a patch in 0..{metadata.num_patches - 1} outside global views, a filled slot in "
            f"0..{metadata.num_slots - 1} and "
            f"{_location_range(metadata)}, got triple {wrong[0]}: {tuple(triples[wrong[0]].tolist())}; "
            "triples only fit the metadata of the input they were chosen for"
        )
    places = metadata._places
    canvas, row, col = places.of_vit_patch[vit_patches].T
    if metadata.location_grid:
        width = cell_width(metadata.location_grid)
        cell_x, cell_y = np.divmod(triples[:, 2], metadata.location_grid)
        offset = (np.stack([cell_x, cell_y], axis=1) + 0.5) * width
    else:
        offset = np.full((len(triples), 2), 0.5)
    sizes = _sizes(metadata, canvas)
    xy = (np.stack([col, row], axis=1) + offset) / places.canvas_hw[canvas][:, ::-1] * sizes
    return (canvas if metadata.timestamps is None else metadata.timestamps[canvas]), xy


def points_to_triples(group: Any, xy: Any, metadata: PointingMetadata, *, clip: bool = False) -> np.ndarray:
    """The grounding triple of each point.

    A point on the border of two ViT patches or cells belongs to the right or lower one; the far edge of the
    picture belongs to the last one. Of a clip, the frame nearest in time is taken, the earlier one if two are
    equally near.

    Args:
        group: (n,) index of the picture, or seconds within a clip.
        xy: (n, 2) pixels of the displayed original; 0..width and 0..height, both ends included.
        metadata: what the processor recorded for the sample.
        clip: move points outside the picture to its edge instead of refusing them.

    Returns:
        (n, 3) int64 patch, subpatch and location ids (location -1 without a location head), in the order of
        the points.

    Raises:
        GroundingError: a point is not finite, names no picture, or lies outside its picture without `clip`.
    """
    xy, group = (
        np.asarray(xy, dtype=np.float64).reshape(-1, 2),
        np.asarray(group, dtype=np.float64).reshape(-1),
    )
    if len(xy) != len(group):
        raise GroundingError(f"expected one group per point, got {len(group)} groups for {len(xy)} points")
    canvas = _canvas_of_group(group, metadata)
    sizes = _sizes(metadata, canvas)
    inside = np.isfinite(xy).all(axis=1) & (clip | ((xy >= 0) & (xy <= sizes)).all(axis=1))
    if not inside.all():
        i = int(np.flatnonzero(~inside)[0])
        raise GroundingError(
            f"expected x in 0..{sizes[i, 0]:g} and y in 0..{sizes[i, 1]:g} pixels, got point {i} at "
            f"({xy[i, 0]:g}, {xy[i, 1]:g}); "
            "scale it to the displayed picture, or pass clip=True to move it to the edge"
        )
    places = metadata._places
    canvas_wh = places.canvas_hw[canvas][:, ::-1]
    at = np.clip(xy / sizes, 0.0, 1.0) * canvas_wh
    cell = np.minimum(np.floor(at).astype(np.int64), canvas_wh - 1)
    vit_patches = places.flat_map[places.canvas_start[canvas] + cell[:, 1] * canvas_wh[:, 0] + cell[:, 0]]
    cells = metadata.location_grid
    if cells:
        inner = np.minimum(np.floor(cells * (at - cell)).astype(np.int64), cells - 1)
        location = cells * inner[:, 0] + inner[:, 1]  # column by column
    else:
        location = np.full(len(xy), NO_LOCATION)
    return np.concatenate([places.token_and_slot[vit_patches], location[:, None]], axis=1)


@dataclass(frozen=True, eq=False)
class _Places:
    """Lookup tables between ViT patches and everything else, made once per sample.

    Attributes:
        of_vit_patch: (ViT patches, 3) canvas, row and column of each ViT patch; -1 where it lies on no
            canvas.
        token_and_slot: (ViT patches, 2) indexable image token and slot it is pooled into; -1 where there is
            none.
        flat_map: (places,) all patch maps, one after the other.
        canvas_start: (canvases,) where each patch map starts in `flat_map`.
        canvas_hw: (canvases, 2) rows and columns of each patch map.
    """

    of_vit_patch: np.ndarray
    token_and_slot: np.ndarray
    flat_map: np.ndarray
    canvas_start: np.ndarray
    canvas_hw: np.ndarray

    @classmethod
    def build(cls, pooling: np.ndarray, indexable: np.ndarray, maps: Sequence[np.ndarray]) -> _Places:
        """Fills the tables; raises GroundingError where a ViT patch has no place, or more than one."""
        if any(patch_map.ndim != 2 or not patch_map.size for patch_map in maps):
            raise GroundingError(f"expected (rows, cols) patch maps, got shapes {[m.shape for m in maps]}")
        canvas_hw = np.array([m.shape for m in maps], dtype=np.int64).reshape(-1, 2)
        areas = canvas_hw.prod(axis=1)
        flat_map = np.concatenate([m.reshape(-1) for m in maps]) if maps else np.empty(0, dtype=np.int64)
        patch_ids, slots = np.nonzero((pooling > EMPTY_SLOT) & indexable[:, None])
        pooled = pooling[patch_ids, slots]
        count = 1 + max(pooling.max(initial=-1), flat_map.max(initial=-1))
        if (pooling < EMPTY_SLOT).any() or (flat_map < 0).any():
            raise GroundingError(
                "expected ViT patches numbered from 0 (and -1 for empty slots of the pooling table), got a "
                "smaller number"
            )
        for name, numbers in (("patch maps", flat_map), ("indexable rows of the pooling table", pooled)):
            if (twice := np.flatnonzero(np.bincount(numbers, minlength=count) > 1)).size:
                raise GroundingError(
                    f"expected each ViT patch once in the {name}, got {twice[0]} again; number them over "
                    "the sample"
                )
        token_and_slot = np.full((count, 2), -1, dtype=np.int64)
        token_and_slot[pooled] = np.stack([patch_ids, slots], axis=1)
        if (unpooled := np.flatnonzero(token_and_slot[flat_map, 0] < 0)).size:
            raise GroundingError(
                "expected an indexable image token for every place of the patch maps, got none for ViT "
                f"patch {flat_map[unpooled[0]]}"
            )
        start = np.cumsum(areas) - areas
        canvas = np.repeat(np.arange(len(maps)), areas)
        row, col = np.divmod(np.arange(len(flat_map)) - start[canvas], canvas_hw[canvas, 1])
        of_vit_patch = np.full((count, 3), -1, dtype=np.int64)
        of_vit_patch[flat_map] = np.stack([canvas, row, col], axis=1)
        return cls(of_vit_patch, token_and_slot, flat_map, start, canvas_hw)


def _vit_patches(triples: np.ndarray, metadata: PointingMetadata) -> np.ndarray:
    """(n,) ViT patch of each triple, -1 where the triple names no place."""
    patch, slot, location = triples.T
    has_cells = metadata.location_grid > 0
    valid = (location >= 0) & (location < metadata.num_locations) if has_cells else location == NO_LOCATION
    valid = valid & (patch >= 0) & (patch < metadata.num_patches) & (slot >= 0) & (slot < metadata.num_slots)
    vit_patches = np.full(len(triples), -1, dtype=np.int64)
    vit_patches[valid] = metadata.pooling[patch[valid], slot[valid]]
    valid &= vit_patches >= 0
    valid[valid] = metadata.indexable[patch[valid]] & (
        metadata._places.of_vit_patch[vit_patches[valid], 0] >= 0
    )
    return np.where(valid, vit_patches, -1)


def _canvas_of_group(group: np.ndarray, metadata: PointingMetadata) -> np.ndarray:
    """(n,) index of the picture or frame each group value means."""
    if metadata.timestamps is not None:
        if not np.isfinite(group).all():
            raise GroundingError(
                f"expected seconds as group of points in a clip, got {group[~np.isfinite(group)][0]}"
            )
        return np.abs(metadata.timestamps[None] - group[:, None]).argmin(axis=1)
    count = len(metadata.patch_maps)
    wrong = ~((group >= 0) & (group < count) & (group == np.floor(group)))
    if wrong.any():
        raise GroundingError(
            f"expected the index of one of {count} pictures, from 0, as group of a point, got "
            f"{group[wrong][0]:g}"
        )
    return group.astype(np.int64)


def _sizes(metadata: PointingMetadata, canvas: np.ndarray) -> np.ndarray:
    """(n, 2) width and height of the picture, or of the clip, that each canvas shows."""
    sizes = np.asarray(metadata.image_sizes, dtype=np.float64).reshape(-1, 2)
    return sizes[np.zeros_like(canvas) if metadata.is_video else canvas]


def _location_range(metadata: PointingMetadata) -> str:
    return f"a location in 0..{metadata.num_locations - 1}" if metadata.location_grid else "no location (-1)"


def _as_triples(triples: Any) -> np.ndarray:
    array = np.asarray(triples, dtype=np.int64)
    if array.size == 0:
        return array.reshape(0, 3)
    if array.ndim != 2 or array.shape[1] != 3:
        raise GroundingError(
            f"expected triples of shape (n, 3): patch, subpatch, location; got shape {array.shape}"
        )
    return array


def _checked_sizes(
    image_sizes: Any, maps: Sequence[np.ndarray], timestamps: np.ndarray | None
) -> tuple[tuple[int, int], ...]:
    """Sizes as tuples of ints, one per picture or one for the clip, with as many timestamps as frames."""
    try:
        sizes = tuple((int(width), int(height)) for width, height in image_sizes)
    except (TypeError, ValueError) as error:
        raise GroundingError(
            f"expected (width, height) in pixels for each picture or for the clip, got {image_sizes!r}"
        ) from error
    if any(side < 1 for size in sizes for side in size):
        raise GroundingError(f"expected pictures of at least one pixel, got sizes {sizes}")
    expected = len(maps) if timestamps is None else 1
    if len(sizes) != expected:
        kind = f"{len(maps)} pictures" if timestamps is None else "a clip"
        raise GroundingError(f"expected {expected} (width, height) for {kind}, got {len(sizes)}")
    if timestamps is not None and (
        timestamps.shape != (len(maps),) or not len(maps) or not np.isfinite(timestamps).all()
    ):
        raise GroundingError(
            f"expected one finite timestamp per frame for {len(maps)} frames, got {timestamps.tolist()}"
        )
    return sizes
