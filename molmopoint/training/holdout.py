"""Which part of the data is kept for the score: whole pictures, never single rows.

The choice depends on the names of the pictures and the seed alone. So it is the same on every machine and in every order of the
rows, and adding rows leaves most of it as it was.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class _HasMedia(Protocol):
    @property
    def media(self) -> tuple[str, ...]: ...


Row = TypeVar("Row", bound=_HasMedia)
"""A row that names what it is about."""


def split_records(records: Sequence[Row], part: float, seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and rows that are held out, both in their old order.

    Rows that share a picture or clip, even through others, stay together. Rows without visual input are trained on.

    Args:
        records: all rows.
        part: pictures to hold out; below 1 a part of all of them, else a number. At least one and not all, if there are two.
        seed: of the choice.
    """
    clusters = _clusters(records)
    wanted = round(part * sum(map(len, clusters)) if part < 1 else part)
    if part <= 0 or len(clusters) < 2:
        return list(records), []
    held: set[str] = set()
    ranked = sorted(clusters, key=lambda files: hashlib.sha256(f"{seed}\n{min(files)}".encode()).digest())
    for files in ranked[:-1]:
        if len(held) >= max(wanted, 1):
            break
        held |= files
    apart = [bool(held.intersection(record.media)) for record in records]
    return [r for r, out in zip(records, apart, strict=True) if not out], [r for r, out in zip(records, apart, strict=True) if out]


def _clusters(records: Iterable[_HasMedia]) -> list[set[str]]:
    """Files that occur together, directly or through others."""
    parent: dict[str, str] = {}

    def root(file: str) -> str:
        while parent.setdefault(file, file) != file:
            parent[file] = file = parent[parent[file]]
        return file

    for record in records:
        for file in record.media:
            parent[root(file)] = root(record.media[0])
    clusters: defaultdict[str, set[str]] = defaultdict(set)
    for file in list(parent):
        clusters[root(file)].add(file)
    return list(clusters.values())
