"""Results made by hand, on canvases small enough to count."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from molmopoint.backends.media import DisplayedMedia
from molmopoint.backends.result import PointDistributions
from molmopoint.geometry import PointingMetadata, triples_to_points
from molmopoint.pipeline import PointingResult
from molmopoint.points import Points


def metadata_of(sizes, timestamps=None):
    """Canvases of 2 by 4 ViT patches, pooled 2 by 2, each after a global crop of one image token of its own."""
    pooling, indexable, maps = [], [], []
    for i in range(len(sizes) if timestamps is None else len(timestamps)):
        first = 12 * i
        canvas = np.arange(first + 4, first + 12).reshape(2, 4)
        pooling += [[first, first + 1, first + 2, first + 3], canvas[:, :2].ravel(), canvas[:, 2:].ravel()]
        indexable += [False, True, True]
        maps.append(canvas)
    return PointingMetadata(np.array(pooling), np.array(indexable), maps, sizes, timestamps)


def result_of(triples, sizes=((40, 20),), timestamps=None, patch=None, subpatch=None, as_list=False) -> Any:
    metadata = metadata_of(list(sizes), timestamps)
    triples = np.array(triples, dtype=int).reshape(-1, 3)
    group, xy = triples_to_points(triples, metadata)
    points = Points(
        np.arange(1, len(triples) + 1), group, xy[:, 0], xy[:, 1], triples=triples, image_sizes=sizes
    )
    if patch is None:
        patch, subpatch = np.eye(metadata.num_patches)[triples[:, 0]], np.eye(4)[triples[:, 1]]
    distributions = PointDistributions(np.asarray(patch, np.float16), np.asarray(subpatch, np.float16))
    if timestamps is None:
        displayed = DisplayedMedia(tuple(Image.new("RGB", size, "teal") for size in sizes), as_list=as_list)
    else:
        frames = np.zeros((len(timestamps), sizes[0][1], sizes[0][0], 3), np.uint8)
        displayed = DisplayedMedia(clip=frames, timestamps=metadata.timestamps)
    return PointingResult(
        points, "cups", "raw", "Point to cups", False, 0, tuple(sizes), metadata, displayed, distributions
    )
