"""Coloured masks on pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from molmopoint.drawing import colour_of
from molmopoint.errors import ProcessingError
from molmopoint.metrics.segmentation import outline_of


def draw_masks(picture: Image.Image, masks: Iterable[tuple[int, np.ndarray]], *, opacity: float = 0.45) -> Image.Image:
    """A copy of the picture in which every object is tinted and outlined in its colour.

    Args:
        picture: any mode.
        masks: object id and (height, width) bool of the picture.
        opacity: of the tint, 0..1; the outline is opaque.

    Returns:
        An RGB picture of the same size.

    Raises:
        ProcessingError: the opacity is out of range, or a mask has another size.
    """
    if not 0 <= opacity <= 1:
        raise ProcessingError(f"expected an opacity from 0 to 1, got {opacity}")
    canvas = np.array(picture.convert("RGB"))
    for object_id, mask in masks:
        if mask.shape != canvas.shape[:2]:
            raise ProcessingError(f"expected a mask of (height, width) {canvas.shape[:2]}, got {mask.shape}; draw it on its own picture")
        colour = np.array(colour_of(object_id))
        canvas[mask] = np.round(canvas[mask] * (1 - opacity) + colour * opacity)
        canvas[outline_of(mask)] = colour
    return Image.fromarray(canvas)
