"""The folder of a run: what it was started with, its scores, and where the model goes.

The same command again goes on in it; another recipe, model or data does not.

Folders of checkpoints in the folder of a run: written beside, renamed when complete, pruned.

    OUT/checkpoint-000100/        complete: a folder of this name is there as a whole or not at all
    OUT/.saving-checkpoint-000200/ being written; what a killed run leaves behind, removed by the next one

With several processes all of them write into one folder, so they need one file system; the first one renames.

Which checkpoint of a run is the best one, told from scores that are known only so well.

A few dozen held-out requests do not rank checkpoints: with 30 of them F1 has a standard error of about 0.06, and the highest of
several scores is mostly the luckiest. So the one-standard-error rule of cross-validation decides (Breiman, Friedman, Olshen and
Stone: Classification and Regression Trees, 1984): of all that are as good as the highest within its standard error, the one that has
learned longest. With many requests the error goes to zero, and the highest score wins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from molmopoint.errors import TrainingError
from molmopoint.files import is_partial, remove_leftovers, write_text_whole
from molmopoint.files.lock import alone_in, is_lock
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import recipe_to_dict

ERROR = "_error"
"""What follows the name of a score in the name of its standard error."""


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; 0 for fewer than two, which tell nothing about it."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def best_step(history: Sequence[Mapping[str, Any]], name: str) -> tuple[int, float] | None:
    """The best step of a run and its score.

    Args:
        history: lines of the log; those that were scored have "step", the score, more is better, and maybe its standard error
            under `name + "_error"`, else 0.
        name: of the score.

    Returns:
        The newest step whose score is the highest less its standard error or more; of equal highest scores the newest counts.
        None if nothing was scored.
    """
    scored = [(line[name], line["step"], line.get(name + ERROR, 0.0)) for line in history if name in line]
    if not scored:
        return None
    highest, _, error = max(scored)
    step, score = max((step, score) for score, step, _ in scored if score >= highest - error)
    return step, score


_NAME = re.compile(r"checkpoint-(\d+)")
_BESIDE = ".saving-"

WRITING_FAILS = (OSError, RuntimeError, SafetensorError)
"""What a full disk looks like: torch and safetensors have errors of their own for it."""


def checkpoint_folder(out: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return out / f"checkpoint-{step:06d}"


def complete_checkpoints(out: Path) -> dict[int, Path]:
    """Step -> folder, in ascending order."""
    found = [(_NAME.fullmatch(path.name), path) for path in out.iterdir()] if out.is_dir() else []
    return dict(sorted((int(match[1]), path) for match, path in found if match is not None))


def newest_checkpoint(out: Path) -> Path | None:
    """The newest complete one, None if there is none."""
    return next(reversed(complete_checkpoints(out).values()), None)


def remove_unfinished(out: Path) -> None:
    """Removes what a killed run was writing; on one process, before any of them saves."""
    for path in out.glob(f"{_BESIDE}*"):
        shutil.rmtree(path, ignore_errors=True)


def write_whole(target: Path, write: Callable[[Path], Any], *, main: bool, agree: Callable[[bool], bool]) -> None:
    """Lets `write` fill a folder beside the target on every process, and gives it its name when all are done.

    Args:
        target: the folder; one of this name is replaced.
        write: fills the folder it is given.
        main: whether this process makes, renames and removes folders.
        agree: waits for all processes and returns whether all of them said True.

    Raises:
        TrainingError: a process could not write; what it wrote is removed.
    """
    beside = target.with_name(_BESIDE + target.name)
    failure: Exception | None = None
    try:
        if main:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
        if agree(True):
            write(beside)
    except WRITING_FAILS as error:
        failure = error
    if agree(failure is None):
        if main:
            old = target.with_name(f"{_BESIDE}old-{target.name}")
            if target.exists():
                target.replace(old)
            beside.replace(target)
            shutil.rmtree(old, ignore_errors=True)
        agree(True)
        return
    if main:
        shutil.rmtree(beside, ignore_errors=True)
    last = newest_checkpoint(target.parent)
    raise TrainingError(
        f"expected to write {target.name} into {target.parent}, got {failure or 'an error in another process'}; "
        f"{_free_space(target.parent)}; make room or choose another folder, then give the same command again: "
        f"it goes on from {last.name if last else 'the start'}, which is untouched"
    ) from failure


def prune(out: Path, keep: int, best: int | None) -> None:
    """Removes all but the newest `keep` checkpoints and that of the step `best`; hidden first, so that none is half there."""
    found = complete_checkpoints(out)
    for step in list(found)[: -max(keep, 1)]:
        if step != best:
            hidden = found[step].with_name(_BESIDE + found[step].name)
            found[step].replace(hidden)
            shutil.rmtree(hidden, ignore_errors=True)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two nested tables, as "a.b 1, now 2"."""
    before, after = dict(_flat(saved)), dict(_flat(now))
    names = [*before, *(name for name in after if name not in before)]
    nothing = "nothing"
    return [f"{name} {before.get(name, nothing)}, now {after.get(name, nothing)}" for name in names if before.get(name) != after.get(name)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def _free_space(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB are free there"
    except OSError as error:
        return f"the free space is unknown ({os.strerror(error.errno or 0)})"


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
