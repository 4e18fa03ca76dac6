"""Masks of a benchmark: read from pictures, and kept as one index that is built once beside the data."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molmopoint.eval.datasets.files import CACHE_FOLDER
from molmopoint.files import open_picture, written_whole
from molmopoint.metrics.run_lengths import MaskIndex

logger = logging.getLogger(__name__)

_WHITE = 255
_RULES = 2
"""Version of the rules by which masks are read; an index that was built by other ones is not used."""

ReadMask = Callable[[int], np.ndarray | None]
"""Makes mask i, (height, width) bool, or None where it cannot be read."""


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
    """(height, width) bool: where any channel of a picture is above the threshold; opacity does not count.

    Raises:
        OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError: the file cannot be read; see
            `files.UNREADABLE`.
    """
    with open_picture(path) as picture:
        if picture.mode == "P":
            picture = picture.convert("RGB")
        if picture.mode == "1":
            return np.asarray(picture, dtype=bool)
        values = np.asarray(picture)  # (height, width) or (height, width, channels)
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
    folder: Path, name: str, keys: Sequence[str], read: ReadMask, fingerprint: str = ""
) -> IndexedMasks:
    """The index of some masks; read from the cache if it was built from the same keys.

    Args:
        folder: of the data; the cache goes into it where it can be written.
        name: of the benchmark.
        keys: what each mask is called.
        read: makes mask i, or None where it cannot be read.
        fingerprint: of what `keys` do not tell, such as sizes of files.
    """
    identity = json.dumps([_RULES, list(keys), fingerprint])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    cache = folder / CACHE_FOLDER / f"{name}-{digest}.npz"
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


def _readable(count: int, read: ReadMask, numbers: list[int]) -> Iterator[np.ndarray]:
    """Masks one at a time; `numbers` is filled on the way."""
    found = 0
    for i in range(count):
        mask = read(i)
        if mask is None:
            numbers.append(-1)
            continue
        numbers.append(found)
        found += 1
        yield mask
