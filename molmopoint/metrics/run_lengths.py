"""Masks as run-lengths: those of COCO, and many masks as one index in which many points are looked up at
once.

A mask of a screenshot takes megabytes as an array and a few hundred bytes as runs. All masks of a benchmark
lie in one sequence of runs, so one binary search answers any number of points in any number of masks.

Run-lengths of COCO are {"size": [height, width], "counts": text, bytes, or a list of numbers}. They are read
here and not by pycocotools, which fills what broken run-lengths leave open with whatever is in memory; they
are written here, so that masks need no other package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from molmopoint.files import written_whole
from molmopoint.metrics.lookup import Rounding, pixels_of

_FIRST_CHARACTER = 48
_MORE, _SIGN, _BITS = 0x20, 0x10, 5
_LARGEST_SIDE = 1 << 15
"""Pixels; a broken size must not ask for all memory."""


def decode_mask(run_lengths: Any) -> np.ndarray | None:
    """(height, width) bool, or None where the run-lengths are broken or do not fill the mask exactly."""
    if not isinstance(run_lengths, Mapping):
        return None
    size = _size_of(run_lengths.get("size"))
    if size is None:
        return None
    counts = run_lengths.get("counts")
    try:
        lengths = _unpacked(counts) if isinstance(counts, str | bytes) else np.array(counts, dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        return None
    height, width = size
    if lengths.ndim != 1 or not len(lengths) or lengths.min() < 0 or lengths.sum() != height * width:
        return None
    # Runs go down the columns, the first one is outside.
    is_inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(is_inside, lengths).reshape(width, height).T


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """The run-lengths of a mask (height, width) bool, with a text as counts: what pycocotools writes, ready
    for JSON.
    """
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    lengths = np.diff(edges, prepend=0, append=flat.size)
    return {"size": [int(side) for side in mask.shape], "counts": _packed(lengths)}


def fingerprint(masks: Iterable[Any]) -> str:
    """Tells sets of run-lengths apart without decoding them."""
    hashed = hashlib.sha256()
    for each in masks:
        counts = each.get("counts") if isinstance(each, Mapping) else None
        hashed.update(counts if isinstance(counts, bytes) else repr(counts).encode())
        hashed.update(b"\0")
    return hashed.hexdigest()[:16]


def _packed(lengths: np.ndarray) -> str:
    """The text that `_unpacked` reads."""
    values = lengths.copy()
    values[3:] -= lengths[1:-2]
    codes = bytearray()
    for value in values.tolist():
        more = True
        while more:
            bits = value & (_MORE - 1)
            value >>= _BITS
            more = value != (-1 if bits & _SIGN else 0)
            codes.append(_FIRST_CHARACTER + bits + _MORE * more)
    return codes.decode("ascii")


def _unpacked(counts: str | bytes) -> np.ndarray:
    """Lengths of the runs. Each is written in groups of five bits, lowest first, and from the fourth run on
    as the difference to the run before the last one.

    Raises:
        ValueError: the text is cut, or has other characters.
    """
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not len(codes) or codes.min() < 0 or codes.max() >= 2 * _MORE or codes[-1] & _MORE:
        raise ValueError("expected whole run-lengths")
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise ValueError("expected run-lengths of a mask, got larger numbers")
    bits = (codes & (_MORE - 1)) << (_BITS * place)
    values = np.add.reduceat(bits, starts)
    beyond = 1 << (_BITS * (ends - starts + 1))  # what a negative number is written above
    values = np.where(codes[ends] & _SIGN, values - beyond, values)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _size_of(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if not all(isinstance(side, int) and 0 < side <= _LARGEST_SIDE for side in value):
        return None
    return value[0], value[1]


_EMPTY = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class MaskIndex:
    """Masks by number. Letters: M masks, R runs, q questions.

    Attributes:
        sizes: (M, 2) int64 width and height.
        first_pixels: (M + 1,) int64, number of each mask's first pixel when the pixels of all masks are
            counted on, row by row.
        starts: (R,) int64, rising: first pixel of each run of True.
        ends: (R,) int64: the pixel after it.
    """

    sizes: np.ndarray
    first_pixels: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def build(cls, masks: Iterable[np.ndarray]) -> MaskIndex:
        """From boolean masks (height, width), which may be made one at a time.

        Raises:
            ValueError: a mask is not a boolean picture.
        """
        sizes = []
        starts, ends = [_EMPTY], [_EMPTY]
        first = [0]
        for mask in masks:
            if mask.ndim != 2 or mask.dtype != np.bool_:
                raise ValueError(
                    f"expected boolean masks of shape (height, width), got {mask.dtype} {mask.shape}"
                )
            edges = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=False)) + first[-1]
            starts.append(edges[0::2])
            ends.append(edges[1::2])
            sizes.append(mask.shape[::-1])
            first.append(first[-1] + mask.size)
        sizes_array = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        return cls(sizes_array, np.array(first, dtype=np.int64), np.concatenate(starts), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def num_bytes(self) -> int:
        """Of memory."""
        return self.sizes.nbytes + self.first_pixels.nbytes + self.starts.nbytes + self.ends.nbytes

    def contains(self, masks: ArrayLike, xy: ArrayLike, rounding: Rounding) -> np.ndarray:
        """(q,) bool: whether point i lies in mask i; False outside of the mask's picture.

        Args:
            masks: (q,) numbers of masks.
            xy: (q, 2) points in pixels.
            rounding: see `lookup.Rounding`.
        """
        numbers = np.asarray(masks, dtype=np.int64)
        pixels = pixels_of(xy, rounding)
        sizes = self.sizes[numbers]
        inside = (pixels >= 0).all(axis=1) & (pixels < sizes).all(axis=1)
        if not len(self.starts):
            return np.zeros(len(numbers), dtype=bool)
        wanted = self.first_pixels[numbers] + pixels[:, 1] * sizes[:, 0] + pixels[:, 0]
        run = np.searchsorted(self.starts, wanted, side="right") - 1
        return inside & (run >= 0) & (wanted < self.ends[np.maximum(run, 0)])

    def contains_each(self, masks: ArrayLike, xy: ArrayLike, rounding: Rounding) -> np.ndarray:
        """(n, m) bool: whether each of n points lies in each of m masks.

        Args:
            masks: (m,) numbers of masks.
            xy: (n, 2) points in pixels.
            rounding: see `lookup.Rounding`.
        """
        numbers = np.asarray(masks, dtype=np.int64)
        places = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        # Every pair of a point and a mask, in one look-up.
        of_pairs = np.tile(numbers, len(places))
        in_pairs = np.repeat(places, len(numbers), axis=0)
        return self.contains(of_pairs, in_pairs, rounding).reshape(len(places), len(numbers))

    def contains_resized(self, masks: ArrayLike, xy: ArrayLike, size: tuple[int, int]) -> np.ndarray:
        """(q,) bool: as `contains` with "round", of masks that are first brought to one size.

        A point becomes a pixel of that size, and then the pixel of the mask that the nearest-neighbour rule
        puts there; False outside of the size.

        Args:
            masks: (q,) numbers of masks.
            xy: (q, 2) points in pixels of the size.
            size: (width, height) that all masks are brought to.
        """
        numbers = np.asarray(masks, dtype=np.int64)
        pixels = pixels_of(xy, "round")
        inside = np.all((pixels >= 0) & (pixels < np.array(size)), axis=1)
        in_mask = np.where(inside.reshape(-1, 1), pixels, 0) * self.sizes[numbers] // np.array(size)
        return inside & self.contains(numbers, in_mask, "truncate")

    def mask(self, number: int) -> np.ndarray:
        """(height, width) bool: a mask as an array again."""
        width, height = self.sizes[number]
        flat = np.zeros(width * height + 1, dtype=np.int8)
        first, last = self.first_pixels[number], self.first_pixels[number + 1]
        here = slice(*np.searchsorted(self.starts, (first, last)))
        flat[self.starts[here] - first] += 1
        flat[self.ends[here] - first] -= 1
        return np.cumsum(flat[:-1]).astype(bool).reshape(height, width)

    def area(self, number: int) -> int:
        """Pixels of a mask."""
        here = slice(*np.searchsorted(self.starts, self.first_pixels[number : number + 2]))
        return int((self.ends[here] - self.starts[here]).sum())

    def box(self, number: int) -> tuple[int, int, int, int] | None:
        """Left, upper, right and lower edge of a mask in pixels, the last two behind its last pixel; None
        where it is empty.
        """
        here = slice(*np.searchsorted(self.starts, self.first_pixels[number : number + 2]))
        first = self.starts[here] - self.first_pixels[number]  # pixel of each run, in the mask
        last = self.ends[here] - self.first_pixels[number] - 1
        if not len(first):
            return None
        width = int(self.sizes[number, 0])
        goes_on = last // width > first // width  # a run over the end of a row touches both edges
        left = np.where(goes_on, 0, first % width).min()
        right = np.where(goes_on, width - 1, last % width).max()
        return int(left), int(first[0] // width), int(right) + 1, int(last[-1] // width) + 1

    def save(self, path: Path) -> None:
        """Writes the index, beside and renamed."""
        with written_whole(path) as beside, beside.open("wb") as file:
            np.savez_compressed(
                file, sizes=self.sizes, first_pixels=self.first_pixels, starts=self.starts, ends=self.ends
            )

    @classmethod
    def load(cls, path: Path) -> MaskIndex:
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is something else.
        """
        with np.load(path, allow_pickle=False) as arrays:
            if set(arrays.files) != {"sizes", "first_pixels", "starts", "ends"}:
                raise ValueError(
                    f"expected an index of masks in {path}, got arrays {sorted(arrays.files)}; delete the "
                    "file and build it again"
                )
            return cls(**{name: arrays[name] for name in arrays.files})
