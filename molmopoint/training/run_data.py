"""What a run trains on and what it is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from molmopoint.data.records import Record
from molmopoint.errors import ProcessingError
from molmopoint.training.augmentation import AugmentedSource
from molmopoint.training.recipe import Recipe
from molmopoint.training.scoring import can_be_scored
from molmopoint.training.sources import (
    REPLAY_SEED,
    GroupSource,
    Rows,
    SceneSource,
    Source,
    Watch,
    check_apart,
    load_rows,
    split_records,
    unwatched,
)
from molmopoint.training.trees import group_records

SYNTHETIC = "synthetic"
"""Replay of the scenes that the embedded model was trained on."""


@dataclass(frozen=True, eq=False)
class RunData:
    """Sources of a run.

    Attributes:
        train: the user's rows, and what is replayed.
        score: what is asked, by the prefix of its scores: "" for the user's own, "replay_" for old skills.
        rates: share of the draws of each source; None where there is one.
        rows: trained on, of the user's.
        held_out_rows: scored on, of the user's.
        labels: of the rows trained on, each once.
    """

    train: list[Source]
    score: dict[str, Source] = field(default_factory=dict)
    rates: list[float] | None = None
    rows: int = 0
    held_out_rows: int = 0
    labels: tuple[str, ...] = ()

    @property
    def own_share(self) -> float:
        """Part of the draws that the user's rows get."""
        return 1.0 if self.rates is None else self.rates[0]


def load_run_data(data: Rows, held_out: Rows | None, replay: Rows | None, recipe: Recipe, watch: Watch = unwatched) -> RunData:
    """Checked data, split by picture unless there are held-out rows.

    Raises:
        ProcessingError: a fault of the data, pictures that are both trained and scored on, or nothing to train on.
    """
    records, folder = load_rows(data, watch=watch)
    if held_out is None:
        records, kept = split_records(records, recipe.data.held_out, recipe.data.seed)
        kept_folder = folder
    else:
        kept, kept_folder = load_rows(held_out, watch=watch)
        check_apart(records, kept, (folder, kept_folder))
        if not any(map(can_be_scored, kept)):
            raise ProcessingError("expected rows with points in the held-out data, got none; scores are about points")
    train: list[Source] = [AugmentedSource(_group_source("data", records, folder, recipe), recipe.augmentation, recipe.data.seed)]
    score: dict[str, Source] = {}
    if any(map(can_be_scored, kept)):
        score[""] = _group_source("held_out", kept, kept_folder, recipe)
    rates = None
    if replay is not None and recipe.data.replay > 0:
        more, checked = _replay(replay, recipe, watch)
        train.append(more)
        rates = [1 - recipe.data.replay, recipe.data.replay]
        score |= {"replay_": checked} if checked is not None and score else {}
    labels = dict.fromkeys(record.label for record in records if record.label)
    return RunData(train, score, rates, len(records), len(kept), tuple(labels))


def _replay(replay: Rows, recipe: Recipe, watch: Watch) -> tuple[Source, Source | None]:
    """What is mixed in, and what shows that it is not forgotten."""
    if replay == SYNTHETIC:
        return SceneSource(), SceneSource("replay", REPLAY_SEED + 1, held_out=True)
    records, folder = load_rows(replay, watch=watch)
    records, kept = split_records(records, recipe.data.held_out, recipe.data.seed)
    checked = _group_source("replay", kept, folder, recipe) if any(map(can_be_scored, kept)) else None
    return _group_source("replay", records, folder, recipe), checked


def _group_source(name: str, records: Sequence[Record], folder: Path, recipe: Recipe) -> GroupSource:
    return GroupSource(name, group_records(records, recipe.data.max_points), folder)
