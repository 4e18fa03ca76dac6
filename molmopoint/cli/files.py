"""Where drawn pictures go, and writing them so that no half-written file is ever seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.files import remove_leftovers, written_whole

_JPEG_OPTIONS = {"quality": 95, "subsampling": 0}


def plan_outputs(out: Path, pictures: Sequence[Path]) -> list[Path]:
    """One file per picture: `out` itself for a single picture, else files in the folder `out`.

    What killed commands were writing there is removed.

    Args:
        out: a picture file or a folder, which need not exist.
        pictures: the input files; files in a folder are named after them, apart even where names repeat.

    Raises:
        ProcessingError: a file is asked for where a folder is needed, or its ending is no known picture format.
    """
    remove_leftovers(out if out.is_dir() else out.parent)
    if len(pictures) == 1 and out.suffix and not out.is_dir():
        if out.suffix.lower() not in _writable_endings():
            raise ProcessingError(f"expected --out to end in .png, .jpg or another picture format, got {out.name!r}")
        return [out]
    if out.is_file() or (out.suffix.lower() in _writable_endings() and not out.is_dir()):
        raise ProcessingError(f"expected --out to be a folder for {len(pictures)} pictures, got the file name {str(out)!r}; pass a folder")
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
            raise ProcessingError(f"expected --out beside the pictures, got {str(output)!r}, which is one of them; choose another name")


def write_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture so that `path` is either the old file or the whole new one.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    file_format = Image.registered_extensions()[path.suffix.lower()]
    options = _JPEG_OPTIONS if file_format == "JPEG" else {}
    with written_whole(path) as beside:
        picture.save(beside, format=file_format, **options)


def _writable_endings() -> set[str]:
    Image.init()
    return {ending for ending, name in Image.registered_extensions().items() if name in Image.SAVE}
