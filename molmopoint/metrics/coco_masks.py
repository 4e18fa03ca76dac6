"""Masks as run-lengths of COCO: {"size": [height, width], "counts": text, bytes, or a list of numbers}.

Read here and not by pycocotools, which fills what broken run-lengths leave open with whatever is in memory; written here, so that
masks need no other package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_FIRST_CHARACTER = 48
_MORE, _SIGN, _BITS = 0x20, 0x10, 5
_LARGEST_SIDE = 1 << 15
"""Pixels; a broken size must not ask for all memory."""


def decode_mask(run_lengths: Any) -> np.ndarray | None:
    """(height, width) bool, or None where the run-lengths are broken or do not fill the mask exactly."""
    if not isinstance(run_lengths, Mapping) or (size := _size_of(run_lengths.get("size"))) is None:
        return None
    counts = run_lengths.get("counts")
    try:
        lengths = _unpacked(counts) if isinstance(counts, str | bytes) else np.array(counts, dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        return None
    if lengths.ndim != 1 or not len(lengths) or lengths.min() < 0 or lengths.sum() != size[0] * size[1]:
        return None
    # Runs go down the columns, the first one is outside.
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size[::-1]).T


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """The run-lengths of a mask (height, width) bool, with a text as counts: what pycocotools writes, ready for JSON."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    lengths = np.diff(edges, prepend=0, append=flat.size)
    return {"size": [int(side) for side in mask.shape], "counts": _packed(lengths)}


def fingerprint(masks: Iterable[Any]) -> str:
    """Tells sets of run-lengths apart without decoding them."""
    hashed = hashlib.sha256()
    for each in masks:
        counts = each.get("counts") if isinstance(each, Mapping) else None
        hashed.update((counts if isinstance(counts, bytes) else repr(counts).encode()) + b"\0")
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
    """Lengths of the runs. Each is written in groups of five bits, lowest first, and from the fourth run on as the difference to
    the run before the last one.

    Raises:
        ValueError: the text is cut, or has other characters.
    """
    codes = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not len(codes) or codes.min() < 0 or codes.max() >= 2 * _MORE or codes[-1] & _MORE:
        raise ValueError("expected whole run-lengths")
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise ValueError("expected run-lengths of a mask, got larger numbers")
    values = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * place), starts)
    values = np.where(codes[ends] & _SIGN, values - (1 << (_BITS * (ends - starts + 1))), values)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _size_of(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if not all(isinstance(side, int) and 0 < side <= _LARGEST_SIDE for side in value):
        return None
    return value[0], value[1]
