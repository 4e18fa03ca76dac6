"""How sure the model was, place by place, of one point.

Letters: P image tokens of a row, K slots per image token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.geometry import PointingMetadata


@dataclass(frozen=True, eq=False)
class PointDistributions:
    """The choices behind the points of one answer, on the host and in half precision.

    Attributes:
        patch: (num_points, P) probability of every image token when the point's patch was chosen; what is missing to 1
            went to no-more-points.
        subpatch: (num_points, K) probability of every slot of the chosen patch.
    """

    patch: np.ndarray
    subpatch: np.ndarray

    def __len__(self) -> int:
        return len(self.patch)


def spread_over_picture(
    distributions: PointDistributions, index: int, patch_id: int, metadata: PointingMetadata, picture: int
) -> np.ndarray:
    """One point's patch and subpatch probabilities, spread evenly over the area each ViT patch covers.

    The chosen patch is split by the subpatch probabilities; all others, whose split was never asked for, evenly over
    their slots.

    Args:
        distributions: of the answer.
        index: of the point in the answer.
        patch_id: patch the point chose.
        metadata: of the request.
        picture: index of the patch map: the picture, or the frame of a clip.

    Returns:
        (height, width) float32 density of the displayed picture; it sums to the probability that fell on this picture.

    Raises:
        GroundingError: there is no such point or picture.
    """
    if not 0 <= index < len(distributions):
        raise GroundingError(f"expected the index of one of {len(distributions)} points, got {index}")
    if not 0 <= picture < len(metadata.patch_maps):
        raise GroundingError(f"expected one of {len(metadata.patch_maps)} pictures, got {picture}")
    weights = _vit_patch_weights(distributions, index, patch_id, metadata.pooling)
    canvas = weights[metadata.patch_maps[picture]].astype(np.float32)
    width, height = metadata.image_sizes[0 if metadata.is_video else picture]
    return _shares(canvas.shape[0], height).T @ canvas @ _shares(canvas.shape[1], width)


def _shares(cells: int, pixels: int) -> np.ndarray:
    """(cells, pixels) float32, which share of each cell along an axis falls on each pixel; rows sum to 1."""
    cell_edges, pixel_edges = np.arange(cells + 1) / cells, np.arange(pixels + 1) / pixels
    end = np.minimum(cell_edges[1:, None], pixel_edges[None, 1:])
    start = np.maximum(cell_edges[:-1, None], pixel_edges[None, :-1])
    return (np.maximum(end - start, 0.0) * cells).astype(np.float32)


def _vit_patch_weights(distributions: PointDistributions, index: int, patch_id: int, pooling: np.ndarray) -> np.ndarray:
    """(num_vit_patches + 1,) probability of every ViT patch; the last entry collects the empty slots."""
    filled = pooling >= 0
    per_patch = distributions.patch[index].astype(np.float64)
    per_slot = (per_patch / np.maximum(filled.sum(axis=1), 1))[:, None] * filled
    per_slot[patch_id] = per_patch[patch_id] * distributions.subpatch[index].astype(np.float64) * filled[patch_id]
    weights = np.zeros(int(pooling.max(initial=-1)) + 2)
    np.add.at(weights, pooling, per_slot)
    return weights
