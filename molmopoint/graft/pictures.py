"""Pictures as hosts see them, with the tables that say which ViT patches lie behind which image token.

The host's own image processor makes the pixels. Tables are those of this library, so geometry, packing and
results need not know whose pixels they are.

Letters: J pictures of the call, P image tokens of a picture, K ViT patches behind an image token, N ViT
patches of the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molmopoint.errors import ProcessingError

CROP_TOKENS = 256
"""Image tokens that count as a crop where a host cuts no crops, so that `max_crops` limits it too."""


@dataclass(frozen=True, eq=False)
class SeenPictures:
    """Pictures as model input.

    Attributes:
        pixel_values: of the host; (N, 1, patch values), or (tiles, ViT patches, patch values).
        pooling: per picture (P, K) its ViT patches, counted from its own first one.
        patch_maps: per picture (rows, cols) ViT patch at each place, counted as in `pooling`.
        grids: (J, 4) rows and columns of image tokens of the overview, then of the canvas. The tokens of the
            canvas come first; those of the overview cannot be chosen.
    """

    pixel_values: Tensor
    pooling: Sequence[np.ndarray]
    patch_maps: Sequence[np.ndarray]
    grids: Tensor

    @property
    def num_patches(self) -> list[int]:
        """ViT patches of each picture."""
        return [int(table.max()) + 1 for table in self.pooling]


class PictureReader(ABC):
    """How a family of hosts is given pictures."""

    @abstractmethod
    def settings(self, image_processor: Any, max_crops: int) -> dict[str, Any]:
        """Settings of the host's image processor that keep a picture to so many crops."""

    def picture_format(self, tokenizer: Any) -> str:
        """What stands for the placeholder of a picture, around its image tokens "{}"."""
        return "{}"

    @abstractmethod
    def read(
        self, image_processor: Any, pictures: Sequence[Tensor], settings: dict[str, Any]
    ) -> SeenPictures:
        """Pictures (3, height, width) of bytes as model input."""


class QwenReader(PictureReader):
    """Pictures of any size, whose image tokens are squares of merged ViT patches."""

    def settings(self, image_processor: Any, max_crops: int) -> dict[str, Any]:
        """As many pixels as `CROP_TOKENS` tokens per crop have."""
        side = image_processor.patch_size * image_processor.merge_size
        most = max_crops * CROP_TOKENS * side**2
        least = min(image_processor.size["shortest_edge"], most)
        return {"size": {"shortest_edge": least, "longest_edge": most}}

    def read(
        self, image_processor: Any, pictures: Sequence[Tensor], settings: dict[str, Any]
    ) -> SeenPictures:
        """See `PictureReader`.

        Raises:
            ProcessingError: a picture is too long for its width.
        """
        try:
            seen = image_processor(list(pictures), return_tensors="pt", **settings)
        except ValueError as error:
            raise ProcessingError(
                f"expected pictures that the image processor of the host takes, got: {error}; cut them"
            ) from error
        merge = image_processor.merge_size
        grids_thw = torch.as_tensor(seen["image_grid_thw"])  # (J, 3) in ViT patches
        pooling, maps = [], []
        for _, rows, columns in grids_thw.tolist():
            numbers = np.arange(rows * columns)
            # Squares of merged patches come row by row, and so do the patches inside a square.
            pooling.append(numbers.reshape(-1, merge**2))
            squares = numbers.reshape(rows // merge, columns // merge, merge, merge)
            maps.append(squares.transpose(0, 2, 1, 3).reshape(rows, columns))
        sides = grids_thw[:, 1:] // merge
        return SeenPictures(
            pixel_values=torch.as_tensor(seen["pixel_values"]).unsqueeze(1),
            pooling=pooling,
            patch_maps=maps,
            grids=torch.cat([torch.zeros_like(sides), sides], 1),
        )


READERS: Mapping[str, PictureReader] = {
    "qwen2_vl": QwenReader(),
    "qwen2_5_vl": QwenReader(),
    "qwen3_vl": QwenReader(),
    "qwen3_vl_moe": QwenReader(),
    "qwen3_5": QwenReader(),
}
"""By the model type of the host's config."""
