"""Writing pictures to files, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.files import written_whole

_JPEG_OPTIONS = {"quality": 95, "subsampling": 0}


def write_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture in the format of the ending so that `path` is either the old file or the whole new
    one.

    Raises:
        OSError: the folder cannot be made or written to.
        ProcessingError: the format cannot hold this picture.
    """
    file_format = Image.registered_extensions()[path.suffix.lower()]
    options = _JPEG_OPTIONS if file_format == "JPEG" else {}
    with written_whole(path) as beside:
        try:
            picture.save(beside, format=file_format, **options)
        except ValueError as error:  # a form that holds no picture of this size, such as an icon of a pixel
            raise ProcessingError(
                f"expected a picture that fits the format {file_format}, got {picture.width} x {picture.height} pixels "
                f"({error}); write PNG"
            ) from error


def picture_endings() -> set[str]:
    """Endings of the files that `write_picture` can write, such as ".png"."""
    Image.init()
    return {ending for ending, name in Image.registered_extensions().items() if name in Image.SAVE}
