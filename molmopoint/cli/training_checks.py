"""What a training run is given, checked before the libraries of models are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from molmopoint.cli.folders import leave_if_busy
from molmopoint.cli.inputs import check_can_write, check_model, check_rows, leave
from molmopoint.errors import MolmoPointError, RecipeError, TrainingError
from molmopoint.files import is_file, is_folder

SYNTHETIC = "synthetic"
"""Replay of what the embedded model has learned, in place of a file."""


def check_training(
    data: Path,
    model: str,
    out: Path,
    recipe: str | None,
    changes: Sequence[str],
    held_out: Path | None,
    replay: str | None = None,
    *,
    judges: bool = False,
) -> None:
    """Ends the command where a file is missing, the model is unknown, or the recipe has no such setting.

    Args:
        data: as typed, like the others.
        model: zoo name, hub id or folder.
        out: folder of the run.
        recipe: name or file; None for that of the model.
        changes: of the recipe, KEY=VALUE.
        held_out: rows to score on.
        replay: rows to mix in, or `SYNTHETIC`.
        judges: whether the rows are preferences, for a reward model.
    """
    try:
        check_rows(data, "DATA")
        if held_out is not None:
            check_rows(held_out, "--held-out")
        if replay is not None and replay != SYNTHETIC and not is_file(Path(replay)):
            raise TrainingError(
                f"expected --replay as a JSONL file or {SYNTHETIC!r}, got {replay!r}; check the path"
            )
        _check_out(out)
        _check_recipe(recipe, changes)
    except MolmoPointError as error:
        raise leave(error) from error
    check_model(model)
    try:
        for rows in (data, held_out, None if replay == SYNTHETIC else replay):
            _check_first(rows, judges)
    except (MolmoPointError, OSError) as error:
        raise leave(error) from error


def _check_out(out: Path) -> None:
    """Raises a MolmoPointError where the folder of a run is a file or lies below one, holds other files, or
    cannot be written to; ends the command where another process is in it.
    """
    for place in (out, *out.parents):
        if is_file(place):
            raise TrainingError(f"expected --out as a folder, got {str(out)!r}, and {str(place)!r} is a file")
        if is_folder(place):
            break
    leave_if_busy([out])
    from molmopoint.training.run_folder import RUN_FILE, RunFolder

    folder = RunFolder(out)
    if folder.read(RUN_FILE) is None:
        folder.check_unused()
    check_can_write("--out", out)


def _check_first(rows: str | Path | None, judges: bool) -> None:
    """Raises ProcessingError where the first rows of a JSONL file are faulty; other sources are read later."""
    if rows is None or not is_file(Path(rows)):
        return
    if judges:
        from molmopoint.data.preferences import check_first_preferences

        check_first_preferences(rows)
        return
    from molmopoint.training.sources import check_first_rows

    check_first_rows(rows)


def _check_recipe(recipe: str | None, changes: Sequence[str]) -> None:
    """Raises RecipeError for an unknown recipe or setting; without a recipe changes are tried on every one."""
    from molmopoint.training.recipe_files import load_recipe

    try:
        load_recipe(recipe or "full", changes)
    except RecipeError:
        if recipe is None and _fits_another(changes):
            return
        raise


def _fits_another(changes: Sequence[str]) -> bool:
    """Whether some recipe of the package takes the changes: which one a model has is not known yet."""
    from molmopoint.training.recipe_files import load_recipe, recipe_names

    for name in recipe_names():
        try:
            load_recipe(name, changes)
        except RecipeError:
            continue
        return True
    return False
