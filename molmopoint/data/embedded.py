"""Pictures that lie inside a data set instead of in files of their own.

Two rows are on the same picture if their pictures have the same content, so what names an embedded picture is
a digest. The bytes of a stored data set stay where they are, on disk, and are read when the picture is
opened.

What must be known of a picture file to check points on it.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import open_picture


@dataclass(frozen=True)
class StoredBytes:
    """Where a Hugging Face data set keeps the bytes of a picture; small, and as picklable as the data set is.

    Attributes:
        table: the data set, in arrow format.
        row: index of its row, from 0.
        column: name of the column.
        index: place in a column of lists; None in a column of single pictures.
    """

    table: Any
    row: int
    column: str
    index: int | None

    def read(self) -> bytes:
        """The file's bytes; only this row is read."""
        value = self.table[self.row][self.column][0].as_py()
        return (value if self.index is None else value[self.index])["bytes"]


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture without a file. Equal to another one with the same content, whatever holds it.

    Attributes:
        digest: of the bytes of the file, or of the pixels of a PIL picture.
        name: for messages: the file it once was, else the beginning of the digest.
        source: the bytes, where to find them, or the PIL picture.
    """

    digest: str
    name: str = field(compare=False)
    source: bytes | StoredBytes | Image.Image = field(compare=False, repr=False)

    def open(self) -> Image.Image:
        """The picture, not decoded yet; EXIF orientation is not applied.

        Raises:
            ProcessingError: the bytes are no picture.
        """
        if isinstance(self.source, Image.Image):
            return self.source
        try:
            return open_picture(io.BytesIO(self.read()))
        except OSError as error:
            raise ProcessingError(
                f"expected a picture in the bytes of {self.name}, got {error}; replace them"
            ) from error

    def read(self) -> bytes:
        """Bytes of a picture file; those of a PIL picture are written as PNG, its EXIF data with it."""
        if isinstance(self.source, StoredBytes):
            return self.source.read()
        if isinstance(self.source, bytes):
            return self.source
        buffer = io.BytesIO()
        picture = self.source if self.source.mode in _PNG_MODES else self.source.convert("RGB")
        picture.save(buffer, format="PNG", exif=self.source.getexif())
        return buffer.getvalue()


_PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})


def embedded_picture(value: Any, where: StoredBytes | None = None) -> EmbeddedPicture | None:
    """An embedded picture from a PIL picture or from {"bytes": ..., "path": ...}; None from anything else.

    Args:
        value: a cell of a data set.
        where: where its bytes are kept; they are then read again when needed, and not held in memory.
    """
    if isinstance(value, Image.Image):
        exif = value.getexif().tobytes() if value.getexif() else b""
        content = repr((value.mode, value.size, value.getpalette())).encode() + exif + value.tobytes()
        digest = hashlib.sha256(content).hexdigest()
        return EmbeddedPicture(digest, str(getattr(value, "filename", "") or f"picture {digest[:12]}"), value)
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        digest = hashlib.sha256(value["bytes"]).hexdigest()
        return EmbeddedPicture(
            digest, str(value.get("path") or f"picture {digest[:12]}"), where or value["bytes"]
        )
    return None


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
        decode: decode all pixels, which alone finds files that are cut off; else the header and a hash of it
            are enough.
    """
    try:
        with (
            warnings.catch_warnings(),
            source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read()) as file,
        ):
            warnings.simplefilter("ignore")  # of odd metadata; what cannot be read raises
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with open_picture(file, decode=decode) as picture:
                # The method of the base class: that of PNG files decodes all pixels to look for EXIF data
                # behind them.
                exif = picture.getexif() if decode else Image.Image.getexif(picture)
                size, orientation = picture.size, exif.get(_ORIENTATION, 1)
    except UnidentifiedImageError:
        return "a file of no known picture format"
    except MolmoPointError as error:
        return str(error)
    except Exception as error:  # decoders raise nearly anything on broken files
        return f"{type(error).__name__}: {error}"
    return PictureFile(size, orientation if orientation in range(1, 9) else 1, digest)
