"""The folder of a run: what it was started with, its scores, and where the model goes.

The same command again goes on in it; another recipe, model or data does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.errors import TrainingError
from molmopoint.files import is_partial, remove_leftovers, write_text_whole
from molmopoint.files.lock import alone_in, is_lock
from molmopoint.training.checkpoint_folders import remove_unfinished
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import recipe_to_dict

_MAY_CHANGE = ("logging", "saving", "scoring", "compile", "gradient_checkpointing", "data.workers")
"""Settings of a recipe that a run may go on with in another form."""

_CHUNK = 1 << 20


RUN_FILE = "run.json"
_OF_A_START = (RUN_FILE, "recipe.json")
"""Files of a run that was killed before it had trained anything."""
_EARLIER_PARTIAL = re.compile(r"\.(run|recipe)\.json\.\d+\.tmp|\.saving-.*")
"""What earlier versions left when they were killed."""


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
            TrainingError: the folder belongs to another run, or holds other files; the message names the difference.
        """
        started = self.read(RUN_FILE)
        if started is not None:
            changed = list(_changes(started, identity))
            if changed:
                raise TrainingError(
                    f"expected the run that {self.path} was started with, got another: {'; '.join(changed[:4])}; "
                    "choose another folder, or repeat the first command"
                )
            return
        others = sorted(path.name for path in self.path.iterdir() if not _is_of_a_start(path)) if self.path.is_dir() else []
        if others and (self.path / RUN_FILE).is_file():
            raise TrainingError(
                f"expected the settings of a run in {self.path / RUN_FILE}, got a file that was cut off, beside {others[0]!r}; remove "
                f"{RUN_FILE} and what was trained, or choose another folder"
            )
        if others:
            raise TrainingError(
                f"expected an empty folder or one of an earlier run, got {self.path} with other files ({others[0]!r}); choose another"
            )

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Makes the folder that of a run, and keeps its recipe.

        Raises:
            TrainingError: nothing can be written there.
        """
        try:
            self.write("recipe.json", identity["recipe"])
            self.write(RUN_FILE, identity)
        except OSError as error:
            raise TrainingError(
                f"expected to write {RUN_FILE} into {self.path}, got {error}; make room, or choose another folder"
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
    """Whether this is nothing that a run could go on from."""
    return path.name in _OF_A_START or is_lock(path) or is_partial(path) or bool(_EARLIER_PARTIAL.fullmatch(path.name))


def identity_of(recipe: Recipe, model: str | Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """What a run depends on.

    Args:
        recipe: of the run.
        model: what it starts from.
        files: by use, a file, whose content counts, a name such as "synthetic", or rows.
    """
    return {"recipe": recipe_to_dict(recipe), "model": str(model), "data": {use: _digest(rows) for use, rows in files.items()}}


def _digest(rows: Any) -> str | None:
    if not isinstance(rows, str | os.PathLike):
        return None if rows is None else "rows"
    if not Path(rows).is_file():
        return str(rows)
    digest = hashlib.sha256()
    with Path(rows).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _changes(old: Any, new: Any, place: str = "") -> Iterable[str]:
    """What differs, in words."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            below = f"{place}.{key}" if place else key
            if below.removeprefix("recipe.") not in _MAY_CHANGE:
                yield from _changes(old.get(key), new.get(key), below)
    elif old != new:
        yield f"{place} {old!r}, now {new!r}" if not place.startswith("data.") else f"{place} is another file"
