"""What a run asks of its data: rows of one process, in an order that can be gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

PROGRESS = "progress"
"""Key of a batch under which the positions after it lie: no argument of the model, take it out first."""

ORIGINS = "origins"
"""Key of a batch under which the (source, row) of every example lies: take it out as well."""


class RunDataset(Protocol):
    """Data that a trainer goes through and notes its position in; an iterable of what the collator takes."""

    rank: int
    num_ranks: int

    @property
    def skipped(self) -> Sequence[Any]:
        """Rows that could not be trained on, up to the last recorded batch."""
        ...

    @property
    def ends(self) -> bool:
        """Whether there may be no more batches before the steps are made."""
        ...

    @property
    def passes(self) -> float:
        """Passes over the data so far."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What its batches depend on; goes into JSON."""
        ...

    def record(self, progress: Sequence[Any]) -> None:
        """Notes that the batches with these positions were trained on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position of this process after everything recorded; goes into JSON."""
        ...

    def go_to(self, states: Sequence[Mapping[str, Any]], num_workers: int) -> None:
        """Goes on after saved positions, those of all processes in their order."""
        ...
