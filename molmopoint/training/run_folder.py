"""The folder of a run: what it was started with, its scores, and where the model goes.

The same command again goes on in it; another recipe, model or data does not. Its checkpoints are those of
`run_checkpoints`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.errors import TrainingError
from molmopoint.files import is_partial, remove_leftovers, write_text_whole
from molmopoint.files.lock import alone_in, is_lock
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import recipe_to_dict

RUN_FILE, RECIPE_FILE = "run.json", "recipe.json"
"""What a run depends on, also in each of its checkpoints; and the recipe in it, for readers."""

SAVING = ".saving-"
"""How names of checkpoints begin that are being written or removed."""

MAY_CHANGE = ("logging", "saving", "scoring", "compile", "gradient_checkpointing", "data.workers")
"""Settings of a recipe that a run may go on with in another form."""

_EARLIER_PARTIAL = re.compile(r"\.(run|recipe)\.json\.\d+\.tmp|\.saving-.*")
"""What earlier versions left when they were killed."""

_SHOWN = 4
"""Differences that a message names."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class RunFolder:
    """Files of a run.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """The adapters alone, of runs with LoRA."""
        return self.path / "adapter"

    def check(self, identity: Mapping[str, Any]) -> None:
        """Refuses a folder that another run was started in.

        Args:
            identity: what `identity_of` says of the run.

        Raises:
            TrainingError: the folder belongs to another run, or holds other files; the message names the
                difference.
        """
        started = self.read(RUN_FILE)
        if started is not None:
            check_same_run(self.path, started, identity)
        else:
            self.check_unused()

    def check_unused(self) -> None:
        """Refuses a folder that no run was started in and that is not empty.

        Raises:
            TrainingError: it holds other files.
        """
        others = []
        if self.path.is_dir():
            others = sorted(path.name for path in self.path.iterdir() if not _is_of_a_start(path))
        if others and (self.path / RUN_FILE).is_file():
            raise TrainingError(
                f"expected the settings of a run in {self.path / RUN_FILE}, got a file that was cut off, "
                f"beside {others[0]!r}; remove "
                f"{RUN_FILE} and what was trained, or choose another folder"
            )
        if others:
            raise TrainingError(
                f"expected an empty folder or one of an earlier run, got {self.path} with other files "
                f"({others[0]!r}); choose another"
            )

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Makes the folder that of a run, and keeps its recipe.

        Raises:
            TrainingError: nothing can be written there.
        """
        try:
            self.write(RECIPE_FILE, identity["recipe"])
            self.write(RUN_FILE, identity)
        except OSError as error:
            raise TrainingError(
                f"expected to write {RUN_FILE} into {self.path}, got {error}; make room, or choose another "
                "folder"
            ) from error

    @contextlib.contextmanager
    def alone(self, *, main: bool) -> Iterator[None]:
        """Keeps other runs out of the folder, and removes what killed ones were writing.

        Args:
            main: whether this process speaks for the run; the others do nothing here.

        Raises:
            TrainingError: another run is going on in it.
        """
        if not main:
            yield
            return
        with alone_in(self.path, "a training run", error=TrainingError):
            for place in (self.path, self.model, self.adapter):
                remove_leftovers(place)
                remove_unfinished(place)
            yield

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON document of the folder; None if it is not there, or was cut off when it was written."""
        try:
            document = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Writes a JSON document, whole or not at all."""
        write_text_whole(self.path / name, json.dumps(document, indent=2) + "\n")


def _is_of_a_start(path: Path) -> bool:
    """Whether this is nothing that a run could go on from: a file of one that was killed before it had
    trained anything.
    """
    if path.name in (RUN_FILE, RECIPE_FILE):
        return True
    return is_lock(path) or is_partial(path) or _EARLIER_PARTIAL.fullmatch(path.name) is not None


def remove_unfinished(folder: Path) -> None:
    """Removes checkpoints that a killed run was writing; on one process, before any of them saves."""
    for path in folder.glob(f"{SAVING}*"):
        shutil.rmtree(path, ignore_errors=True)


# What makes two runs the same


def identity_of(recipe: Recipe, model: str | Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """What a run depends on; goes into JSON.

    Args:
        recipe: of the run.
        model: what it starts from.
        files: by use, a file, whose content counts, a name such as "synthetic", or rows.
    """
    digests = {use: _digest(rows) for use, rows in files.items()}
    return {"recipe": recipe_to_dict(recipe), "model": str(model), "files": digests}


def check_same_run(place: Path, started: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with something else than a run was started with.

    Args:
        place: its folder, or that of a checkpoint, for the message.
        started: what it was started with.
        now: what is asked for.

    Raises:
        TrainingError: they differ in more than `MAY_CHANGE`.
    """
    if changed := differences(started, now):
        raise TrainingError(
            f"expected the run that {place} was started with, got another: {'; '.join(changed[:_SHOWN])}; "
            "choose another folder, or go "
            "on with what it was started with"
        )


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two nested tables, as "a.b 1, now 2"; without settings of a recipe that may
    change.
    """
    before, after = dict(_flat(saved)), dict(_flat(now))
    changes = []
    for name in {**before, **after}:
        old, new = before.get(name, "nothing"), after.get(name, "nothing")
        if old == new or _may_change(name):
            continue
        is_file = name.startswith("files.")
        changes.append(f"{name} is another file" if is_file else f"{name} {old}, now {new}")
    return changes


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            yield prefix + name, list(value)  # as it comes back from JSON
        else:
            yield prefix + name, value


def _may_change(name: str) -> bool:
    setting = name.removeprefix("recipe.")
    return setting != name and any(setting == free or setting.startswith(f"{free}.") for free in MAY_CHANGE)


def _digest(rows: Any) -> str | None:
    if rows is None:
        return None
    if not isinstance(rows, str | os.PathLike):
        return "rows"
    if not Path(rows).is_file():
        return str(rows)
    digest = hashlib.sha256()
    with Path(rows).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
