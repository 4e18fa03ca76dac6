"""What a model sees of pictures or of a clip, before any text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from molmopoint.geometry import PointingMetadata
from molmopoint.processing.rows import PIXELS_OF, Row


@dataclass(frozen=True, eq=False)
class MediaInputs:
    """Pictures or a clip as model input; any number of rows can be made about them.
    `MolmoPointProcessor.media` makes it.

    Attributes:
        metadata: what turns grounding tokens into pixels.
        pixels: crops or frames and their pooling table, by the names of model input, on the CPU; empty
            without pictures.
        spans: text of the image tokens that stands for each placeholder.
    """

    metadata: PointingMetadata
    pixels: Mapping[str, Tensor] = field(repr=False)
    spans: tuple[str, ...] = field(repr=False)

    @property
    def kind(self) -> Literal["image", "video"]:
        """What the placeholders stand for."""
        return "video" if self.metadata.is_video else "image"

    def row(self, input_ids: Tensor, mm_token_type_ids: Tensor, selection_ids: Tensor) -> Row:
        """A row about them, of ids (S,) with image tokens expanded."""
        is_clip = self.metadata.is_video
        pixels, pooling = PIXELS_OF[is_clip]
        return Row(
            input_ids=input_ids,
            mm_token_type_ids=mm_token_type_ids,
            pixel_values=self.pixels.get(pixels),
            pooling=self.pixels.get(pooling),
            grids=self.pixels.get("image_grids"),
            selection_ids=selection_ids,
            is_clip=is_clip,
        )
