"""What must be known of a picture file to check points on it."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from molmopoint.data.embedded import EmbeddedPicture
from molmopoint.errors import MolmoPointError
from molmopoint.files import open_picture

_ORIENTATION = 0x0112
"""EXIF tag; from 5 on, height and width change places when the picture is shown."""


@dataclass(frozen=True)
class PictureFile:
    """A readable picture.

    Attributes:
        stored: (width, height) of the pixels in the file.
        orientation: EXIF orientation, 1 upright.
        digest: of the bytes; equal for copies.
    """

    stored: tuple[int, int]
    orientation: int
    digest: str

    @property
    def displayed(self) -> tuple[int, int]:
        """(width, height) as viewers show it, and as points are counted."""
        return (self.stored[1], self.stored[0]) if self.orientation >= 5 else self.stored


def inspect_picture(source: Path | EmbeddedPicture, decode: bool = True) -> PictureFile | str:
    """Size and orientation of a picture, or the reason why it cannot be read.

    Args:
        source: the file, or what a data set embeds.
        decode: decode all pixels, which alone finds files that are cut off; else the header and a hash of it are enough.
    """
    try:
        with warnings.catch_warnings(), source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read()) as file:
            warnings.simplefilter("ignore")  # of odd metadata; what cannot be read raises
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with open_picture(file, decode=decode) as picture:
                # The method of the base class: that of PNG files decodes all pixels to look for EXIF data behind them.
                exif = picture.getexif() if decode else Image.Image.getexif(picture)
                size, orientation = picture.size, exif.get(_ORIENTATION, 1)
    except UnidentifiedImageError:
        return "a file of no known picture format"
    except MolmoPointError as error:
        return str(error)
    except Exception as error:  # decoders raise nearly anything on broken files
        return f"{type(error).__name__}: {error}"
    return PictureFile(size, orientation if orientation in range(1, 9) else 1, digest)
