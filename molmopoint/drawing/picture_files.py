"""Writing pictures to files, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from molmopoint.files import written_whole

_JPEG_OPTIONS = {"quality": 95, "subsampling": 0}


def write_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture in the format of the ending so that `path` is either the old file or the whole new
    one.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    file_format = Image.registered_extensions()[path.suffix.lower()]
    options = _JPEG_OPTIONS if file_format == "JPEG" else {}
    with written_whole(path) as beside:
        picture.save(beside, format=file_format, **options)


def picture_endings() -> set[str]:
    """Endings of the files that `write_picture` can write, such as ".png"."""
    Image.init()
    return {ending for ending, name in Image.registered_extensions().items() if name in Image.SAVE}
