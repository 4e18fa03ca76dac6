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
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

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


@dataclass(frozen=True)
class HostSizes:
    """What an image processor does not say of its host.

    Attributes:
        tile_patches: ViT patches along a side of a tile; 0 where pictures are not cut.
        token_side: ViT patches along a side of an image token.
    """

    tile_patches: int
    token_side: int


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
        self, image_processor: Any, pictures: Sequence[Tensor], settings: dict[str, Any], host: HostSizes
    ) -> SeenPictures:
        """Pictures (3, height, width) of bytes as model input. What the image processor fails with is raised as it
        is; see `using_image_processor`.
        """


class QwenReader(PictureReader):
    """Pictures of any size, whose image tokens are squares of merged ViT patches."""

    def settings(self, image_processor: Any, max_crops: int) -> dict[str, Any]:
        """As many pixels as `CROP_TOKENS` tokens per crop have."""
        side = image_processor.patch_size * image_processor.merge_size
        most = max_crops * CROP_TOKENS * side**2
        least = min(image_processor.size["shortest_edge"], most)
        return {"size": {"shortest_edge": least, "longest_edge": most}}

    def read(
        self, image_processor: Any, pictures: Sequence[Tensor], settings: dict[str, Any], host: HostSizes
    ) -> SeenPictures:
        """See `PictureReader`."""
        seen = image_processor(list(pictures), return_tensors="pt", **settings)
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


class InternReader(PictureReader):
    """Tiles of one size that cover the picture, and an overview behind them if there are several."""

    def settings(self, image_processor: Any, max_crops: int) -> dict[str, Any]:
        """A crop is a tile."""
        return {"max_patches": max_crops, "min_patches": min(image_processor.min_patches, max_crops)}

    def picture_format(self, tokenizer: Any) -> str:
        """The tokens that the host puts around image tokens."""
        return f"{tokenizer.start_image_token}{{}}{tokenizer.end_image_token}"

    def read(
        self, image_processor: Any, pictures: Sequence[Tensor], settings: dict[str, Any], host: HostSizes
    ) -> SeenPictures:
        """See `PictureReader`."""
        seen = image_processor(list(pictures), return_tensors="pt", crop_to_patches=True, **settings)
        tiles = torch.as_tensor(seen["pixel_values"])  # (tiles, 3, height, width)
        patches, side = host.tile_patches, host.token_side
        tokens = patches // side
        pooling, maps, grids = [], [], []
        for picture in pictures:
            rows, columns = self._tiling(image_processor, picture, settings)
            count = rows * columns
            overview = tokens if count > 1 else 0
            numbers = np.arange((count + (count > 1)) * patches**2)
            squares = numbers.reshape(-1, tokens, side, tokens, side).transpose(0, 1, 3, 2, 4)
            pooling.append(squares.reshape(-1, side**2))
            canvas = numbers[: count * patches**2].reshape(rows, columns, patches, patches)
            maps.append(canvas.transpose(0, 2, 1, 3).reshape(rows * patches, columns * patches))
            grids.append([overview, overview, rows * tokens, columns * tokens])
        return SeenPictures(
            # Only the form is that of patches; the numbers of a tile stay in their order.
            pixel_values=tiles.reshape(len(tiles), patches**2, -1),
            pooling=pooling,
            patch_maps=maps,
            grids=torch.tensor(grids),
        )

    def _tiling(self, image_processor: Any, picture: Tensor, settings: dict[str, Any]) -> tuple[int, int]:
        """Rows and columns of the tiles of a picture, as its image processor chooses them."""
        size = image_processor.size
        least = settings.get("min_patches", image_processor.min_patches)
        most = settings.get("max_patches", image_processor.max_patches)
        height, width = picture.shape[1:]
        columns, rows = get_optimal_tiled_canvas(
            (height, width), (size["height"], size["width"]), least, most
        )
        return rows, columns


READERS: Mapping[str, PictureReader] = {
    "qwen2_vl": QwenReader(),
    "qwen2_5_vl": QwenReader(),
    "qwen3_vl": QwenReader(),
    "qwen3_vl_moe": QwenReader(),
    "qwen3_5": QwenReader(),
    "qwen3_5_moe": QwenReader(),
    "internvl": InternReader(),
}
"""By the model type of the host's config."""
