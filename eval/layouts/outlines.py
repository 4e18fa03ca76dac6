"""Outlines of boxes and masks, to draw them and to measure how far a point is off. They have no part in judging.

Masks of a benchmark as one index, built once and kept beside the data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from molmopoint.files import open_picture, written_whole
from molmopoint.metrics.lookup import in_polygon
from molmopoint.metrics.run_lengths import MaskIndex

logger = logging.getLogger(__name__)

CACHE_FOLDER = ".molmopoint"
"""In the folder of the data; may be deleted at any time."""

_WHITE = 255
_RULES = 2
"""Of reading masks; an index that was built by other ones is not used."""

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What reading a broken or hostile picture may raise."""


@dataclass(frozen=True, eq=False)
class IndexedMasks:
    """Masks by number.

    Attributes:
        index: of all masks that could be read.
        numbers: number in the index of each mask that was asked for, -1 where it could not be read.
        seconds: it took to build; 0 where it was there.
    """

    index: MaskIndex
    numbers: tuple[int, ...]
    seconds: float


def read_mask(path: Path, threshold: int = 127) -> np.ndarray:
    """(height, width) bool: where any channel of a picture is above the threshold; a channel of opacity does not count.

    Raises:
        OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError: the file cannot be read; see `UNREADABLE`.
    """
    with open_picture(path) as picture:
        if picture.mode == "P":
            picture = picture.convert("RGB")
        if picture.mode == "1":
            return np.asarray(picture, dtype=bool)
        values = np.asarray(picture)
        if values.ndim == 3 and picture.mode in ("RGBA", "LA"):
            values = values[..., :-1]
    above = values > threshold
    return above if above.ndim == 2 else np.asarray(above.any(axis=-1))


def white_mask(path: Path) -> np.ndarray:
    """(height, width) bool: where a picture is white, 255, and not nearly so.

    Raises:
        OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError: as `read_mask`.
    """
    with open_picture(path) as picture:
        return np.equal(np.asarray(picture.convert("L")), _WHITE)


def index_masks(
    folder: Path, name: str, keys: Sequence[str], read: Callable[[int], np.ndarray | None], fingerprint: str = ""
) -> IndexedMasks:
    """The index of some masks; read from the cache if it was built from the same keys.

    Args:
        folder: of the data; the cache goes into it where it can be written.
        name: of the benchmark.
        keys: what each mask is called.
        read: makes mask i, or None where it cannot be read.
        fingerprint: of what `keys` do not tell, such as sizes of files.
    """
    wanted = hashlib.sha256(json.dumps([_RULES, list(keys), fingerprint]).encode()).hexdigest()[:16]
    cache = folder / CACHE_FOLDER / f"{name}-{wanted}.npz"
    if cache.is_file():
        index = MaskIndex.load(cache)
        readable = json.loads(cache.with_suffix(".json").read_text(encoding="utf-8"))
        return IndexedMasks(index, tuple(readable), 0.0)
    start = time.perf_counter()
    numbers: list[int] = []
    index = MaskIndex.build(_readable(len(keys), read, numbers))
    try:
        with written_whole(cache.with_suffix(".json")) as beside:
            beside.write_text(json.dumps(numbers), encoding="utf-8")
        index.save(cache)
    except OSError as error:
        logger.warning("the index of masks is built again every time, because it cannot be kept: %s", error)
    seconds = time.perf_counter() - start
    logger.info("indexed %d masks of %s in %.1f s, %.2f MB", len(index), name, seconds, index.num_bytes / 1e6)
    return IndexedMasks(index, tuple(numbers), seconds)


def _readable(count: int, read: Callable[[int], np.ndarray | None], numbers: list[int]) -> Iterator[np.ndarray]:
    """Masks one at a time; `numbers` is filled on the way."""
    found = 0
    for i in range(count):
        mask = read(i)
        numbers.append(-1 if mask is None else found)
        if mask is not None:
            found += 1
            yield mask


CELLS = 96
"""The longer side of a mask's own box is cut into so many cells at most, which bounds the length of its outline."""

Rings = tuple[np.ndarray, ...]
"""Closed lines, each (v, 2) pixels; what lies inside of an odd number of them is inside."""


def box_outline(box: ArrayLike) -> Rings:
    """The four corners of a box (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64)
    return (np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]),)


def mask_outlines(mask: np.ndarray, cells: int = CELLS) -> Rings:
    """Outer and inner borders of a mask (height, width) bool.

    A large mask is drawn in coarser cells, one being inside if any of its pixels is, so thin parts stay.
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return ()
    top, left = int(ys[0]), int(xs[0])
    part = mask[top : ys[-1] + 1, left : xs[-1] + 1]
    step = -(-max(part.shape) // cells)
    height, width = part.shape
    padded = np.pad(part, ((0, -height % step), (0, -width % step)))
    coarse = np.logical_or.reduce(padded.reshape(padded.shape[0] // step, step, -1, step), axis=(1, 3))
    # The last cell may reach over the mask's own box.
    most = (left + width, top + height)
    return tuple(np.minimum(ring * step + (left, top), most).astype(np.float64) for ring in _rings(coarse))


def inside(rings: Rings, xy: np.ndarray) -> np.ndarray:
    """(n,) bool: whether each point (n, 2) lies in what the rings enclose."""
    return np.logical_xor.reduce([in_polygon(xy, ring) for ring in rings]) if rings else np.zeros(len(xy), dtype=bool)


def distance(rings: Rings, xy: np.ndarray) -> np.ndarray:
    """(n,) pixels from each point (n, 2) to the nearest place inside; 0 inside, infinite without rings."""
    to_lines = [_to_lines(ring, xy) for ring in rings]
    if not to_lines:
        return np.full(len(xy), np.inf)
    return np.where(inside(rings, xy), 0.0, np.min(to_lines, axis=0))


def _to_lines(ring: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(n,) distances to the nearest of a ring's v edges."""
    start, edge = ring[None], (np.roll(ring, -1, axis=0) - ring)[None]
    away = xy[:, None] - start
    length = np.maximum((edge**2).sum(axis=2), 1e-12)
    along = np.clip((away * edge).sum(axis=2) / length, 0.0, 1.0)
    return np.sqrt(((away - along[..., None] * edge) ** 2).sum(axis=2)).min(axis=1)


def _rings(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Borders between True and False as corners (v, 2), True always to the right; corners of straight lines are left out."""
    field = np.pad(mask, 1)
    here = field[1:-1, 1:-1]
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Neighbour that must be False, then the corners where the edge starts and ends, from the cell's upper left one.
    for neighbour, (x1, y1), (x2, y2) in (
        (field[:-2, 1:-1], (0, 0), (1, 0)),
        (field[1:-1, 2:], (1, 0), (1, 1)),
        (field[2:, 1:-1], (1, 1), (0, 1)),
        (field[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(here & ~neighbour).tolist():
            onward.setdefault((x + x1, y + y1), []).append((x + x2, y + y2))
    while onward:
        start = place = next(iter(onward))
        ring = []
        while True:
            ring.append(place)
            ends = onward[place]
            following = ends.pop()
            if not ends:
                del onward[place]
            place = following
            if place == start:
                break
        corners = np.array(ring)
        turns = (np.roll(corners, 1, axis=0) + np.roll(corners, -1, axis=0) != 2 * corners).any(axis=1)
        yield corners[turns]
