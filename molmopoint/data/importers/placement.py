"""From the picture an annotation was made on to the picture as it is displayed.

Annotation files say how large their picture was. Where the file beside them has another size, it was scaled
since then; where it has that size only before its EXIF orientation is applied, the tool did not turn it, and
the points must be turned. Sizes that are explained by neither mean another picture.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.files import open_picture

_ORIENTATION = 0x0112
"""EXIF tag; from 5 on, height and width change places when the picture is shown."""

_WIDTH, _HEIGHT = 0x0100, 0x0101
"""TIFF tags of the stored size."""

_ROUNDING = 1.01
"""Pixels of the smaller size by which rounding may change the shorter side of a scaled picture."""

Size = tuple[float, float]
"""Width and height."""


@dataclass(frozen=True)
class PictureSize:
    """Size of a picture file.

    Attributes:
        stored: width and height of the pixels in the file.
        orientation: EXIF orientation, 1 upright.
    """

    stored: Size
    orientation: int = 1

    @property
    def displayed(self) -> Size:
        """Width and height as viewers show it."""
        return (self.stored[1], self.stored[0]) if self.orientation >= 5 else self.stored


@dataclass(frozen=True)
class Placement:
    """Moves points of an annotation to the picture as displayed.

    Attributes:
        recorded: width and height that the annotation counts in; None if it does not say.
        picture: size of the file; None if it is not there.
        orientation: EXIF orientation that the annotation has not taken into account, 1 for none.
    """

    recorded: Size | None = None
    picture: PictureSize | None = None
    orientation: int = 1

    @property
    def displayed(self) -> Size | None:
        """Width and height that the moved points lie in; None if nobody knows."""
        return self.recorded if self.picture is None else self.picture.displayed

    @property
    def is_scaled(self) -> bool:
        """Whether the picture has another size than the one annotated."""
        if self.recorded is None or self.picture is None:
            return False
        return self.recorded != (self.picture.displayed if self.orientation == 1 else self.picture.stored)

    def moved(self, xy: np.ndarray) -> np.ndarray:
        """(n, 2) places in the picture as displayed, of (n, 2) places in the annotated one."""
        if self.recorded is None or self.displayed is None or (self.orientation == 1 and not self.is_scaled):
            return xy
        across, down = (xy / np.array(self.recorded)).T
        turned = {
            1: (across, down),
            5: (down, across),
            6: (1 - down, across),
            7: (1 - down, 1 - across),
            8: (down, 1 - across),
        }[self.orientation]
        return np.stack(turned, axis=1) * np.array(self.displayed)

    def of_size(self, size: Size) -> Placement:
        """The placement of a mask with a size of its own on the same picture.

        Raises:
            ProcessingError: a mask of this size is none of this picture.
        """
        if size == self.recorded:
            return self
        if self.displayed is None:
            return Placement(size)
        return fitted(size, self.picture or PictureSize(self.displayed))


def fitted(recorded: Size, picture: PictureSize) -> Placement:
    """How an annotation of the recorded size lies on a picture.

    Equal sizes come before scaled ones, and the picture as displayed before the stored one.

    Raises:
        ProcessingError: neither the size as displayed nor the one before turning has this shape.
    """
    turned = picture.orientation if picture.orientation >= 5 else 1
    upright, unturned = Placement(recorded, picture), Placement(recorded, picture, turned)
    if recorded == picture.displayed:
        return upright
    if turned != 1 and recorded == picture.stored:
        return unturned
    if _same_shape(recorded, picture.displayed):
        return upright
    if turned != 1 and _same_shape(recorded, picture.stored):
        return unturned
    found = f"{picture.displayed[0]:g} x {picture.displayed[1]:g}"
    raise ProcessingError(
        f"expected a picture of the recorded size {recorded[0]:g} x {recorded[1]:g}, or scaled from it, got "
        f"{found}; "
        "use the picture that was annotated"
    )


def picture_size(path: str | os.PathLike[str]) -> PictureSize | None:
    """Size and orientation from the header of a file; None if it is no readable picture."""
    try:
        with warnings.catch_warnings(), open_picture(path) as picture:
            warnings.simplefilter("ignore")  # of odd metadata; what cannot be read raises
            # The method of the base class: that of PNG files decodes all pixels to look for EXIF data behind
            # them.
            exif = Image.Image.getexif(picture)
            width, height = picture.size
            if picture.format == "TIFF":  # Pillow has turned the size of these already
                width, height = exif.get(_WIDTH, width), exif.get(_HEIGHT, height)
            orientation = exif.get(_ORIENTATION, 1)
            return PictureSize(
                (float(width), float(height)), orientation if orientation in range(1, 9) else 1
            )
    except Exception:  # decoders raise nearly anything on broken files
        return None


def placement_of(file: Path, recorded: Size | None) -> Placement:
    """How an annotation lies on a picture file; on one that is not there, or no picture, as it was recorded.

    Raises:
        ProcessingError: the file is a picture of another shape.
    """
    picture = picture_size(file)
    if picture is None:
        return Placement(recorded)
    return Placement(None, picture) if recorded is None else fitted(recorded, picture)


def _same_shape(a: Size, b: Size) -> bool:
    """Whether one is the other scaled, up to rounding of the smaller one to whole pixels."""
    small, large = sorted((a, b), key=lambda size: size[0] * size[1])
    longer = 0 if large[0] >= large[1] else 1
    scale = small[longer] / large[longer]
    return abs(large[1 - longer] * scale - small[1 - longer]) <= _ROUNDING
