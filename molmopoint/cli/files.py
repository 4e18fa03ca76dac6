"""Where drawn pictures go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from molmopoint.drawing import check_style, picture_endings
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file, is_folder, remove_leftovers


def plan_outputs(out: Path, pictures: Sequence[Path]) -> list[Path]:
    """One file per picture: `out` itself for a single picture, else files in the folder `out`.

    What killed commands were writing there is removed.

    Args:
        out: a picture file or a folder, which need not exist.
        pictures: the input files; files in a folder are named after them, apart even where names repeat.

    Raises:
        ProcessingError: a file is asked for where a folder is needed, or its ending is no known picture
            format.
    """
    remove_leftovers(out if is_folder(out) else out.parent)
    if len(pictures) == 1 and out.suffix and not is_folder(out):
        if out.suffix.lower() not in picture_endings():
            raise ProcessingError(
                f"expected --out to end in .png, .jpg or another picture format, got {out.name!r}"
            )
        return [out]
    if is_file(out) or (out.suffix.lower() in picture_endings() and not is_folder(out)):
        raise ProcessingError(
            f"expected --out to be a folder for {len(pictures)} pictures, got the file name {str(out)!r}; "
            "pass a folder"
        )
    taken: set[str] = set()
    planned = []
    for picture in pictures:
        name, number = f"{picture.stem}.png", 2
        while name.lower() in taken:
            name, number = f"{picture.stem}-{number}.png", number + 1
        taken.add(name.lower())
        planned.append(out / name)
    return planned


def check_not_overwriting(outputs: Sequence[Path], pictures: Sequence[Path]) -> None:
    """Refuses to draw over an input picture.

    Raises:
        ProcessingError: an output is one of the inputs.
    """
    inputs = {picture.resolve() for picture in pictures}
    for output in outputs:
        if output.resolve() in inputs:
            raise ProcessingError(
                f"expected --out beside the pictures, got {str(output)!r}, which is one of them; choose "
                "another name"
            )


_AS_USUAL = {"style": "marker", "labels": False, "scores": False}
"""Options of drawing that nobody asked to change."""


def changed_options(drawing: Mapping[str, Any]) -> list[str]:
    """The names of options of drawing that are not as usual, as they are typed."""
    return [f"--{name}" for name, value in drawing.items() if value != _AS_USUAL[name]]


def check_drawing(drawing: Mapping[str, Any], out: Path | None) -> None:
    """Refuses options of drawing that cannot be.

    Raises:
        ProcessingError: there is no such style, or nothing is drawn.
    """
    check_style(drawing.get("style", "marker"))
    changed = changed_options(drawing)
    if changed and out is None:
        raise ProcessingError(f"expected --out together with {' and '.join(changed)}; say where to draw")
