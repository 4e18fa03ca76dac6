"""The zoo: which models there are, where they come from, and what is known about them. The table itself is
`zoo.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import try_to_load_from_cache

from molmopoint.errors import CheckpointError

ROOM = Path(__file__).resolve().parent

CONFIGS = {"points": "config.json", "scores": "reward_config.json"}
"""The file that every model of a kind has."""


@dataclass(frozen=True)
class Score:
    """A published or measured number.

    Attributes:
        benchmark: its name, and the split or rule where that matters.
        value: in percent.
        source: where the number comes from.
    """

    benchmark: str
    value: float
    source: str


@dataclass(frozen=True)
class ZooEntry:
    """One model.

    Attributes:
        name: what `molmopoint.load`, or `load_reward`, takes.
        gives: "points" for a model that points, "scores" for a reward model.
        description: what it is for, in one sentence.
        hub_id: repository on the hub, None for a model that comes with the package.
        folder: folder inside this room, None for a model on the hub.
        revision: commit on the hub that was checked, None for the newest.
        parameters: how many, None if not counted.
        modalities: what it looks at: "image", "multi-image", "video".
        licence: of the weights, as its card states it.
        origin: paper or script it was made by.
        scores: what is known about its quality.
    """

    name: str
    gives: Literal["points", "scores"]
    description: str
    hub_id: str | None
    folder: str | None
    revision: str | None
    parameters: int | None
    modalities: tuple[str, ...]
    licence: str
    origin: str
    scores: tuple[Score, ...]

    @property
    def source(self) -> str:
        """What `from_pretrained` takes: a folder of this installation, or the hub id."""
        return self.hub_id if self.hub_id is not None else str(ROOM / str(self.folder))

    @property
    def installed(self) -> bool:
        """Whether it can be loaded without a network."""
        if self.hub_id is None:
            return (ROOM / str(self.folder) / CONFIGS[self.gives]).is_file()
        return isinstance(
            try_to_load_from_cache(self.hub_id, CONFIGS[self.gives], revision=self.revision), str
        )


@cache
def list_models() -> tuple[ZooEntry, ...]:
    """All entries, in the order of the table."""
    return tuple(
        _entry(fields) for fields in json.loads((ROOM / "zoo.json").read_text(encoding="utf-8"))["models"]
    )


def names() -> list[str]:
    """Names of all entries."""
    return [entry.name for entry in list_models()]


def find(name: str) -> ZooEntry | None:
    """The entry of a name or hub id, upper and lower case alike; None if there is none."""
    wanted = name.lower()
    return next((e for e in list_models() if wanted in (e.name, (e.hub_id or "").lower())), None)


def resolve(name: str) -> str:
    """The folder or hub id of a zoo name, for `from_pretrained`.

    Raises:
        CheckpointError: the zoo has no such name, or the model should have come with the package and did not.
    """
    entry = find(name)
    if entry is None:
        raise CheckpointError(
            f"expected a name of the zoo ({', '.join(names())}), got {name!r}; other models load by hub id "
            "or folder"
        )
    if entry.folder is not None and not entry.installed:
        raise CheckpointError(
            f"expected the weights of {name!r} in {entry.source}, got no {CONFIGS[entry.gives]} there; "
            "install the package again"
        )
    return entry.source


def _entry(fields: dict[str, Any]) -> ZooEntry:
    """An entry from its JSON object."""
    scores = tuple(Score(**score) for score in fields["scores"])
    return ZooEntry(**{**fields, "modalities": tuple(fields["modalities"]), "scores": scores})
