"""Crops that are equal are looked at once.

A picture no larger than a crop has one tile, and it is the same as its overview; sets of pictures may repeat one. The ViT need not
see a crop twice: image tokens of both may pool the patches of one.

Letters: N crops, G ViT patches per crop, P image tokens, K slots.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from molmopoint.geometry import EMPTY_SLOT
from molmopoint.processing.rows import Row


def share_equal_crops(row: Row) -> Row:
    """A row with the same loss and gradients whose crops all differ.

    Args:
        row: one example, with pixel_values (N, G, patch values) and pooling (P, K) that counts over its own crops.
    """
    if row.pixel_values is None or row.pooling is None or len(row.pixel_values) < 2:
        return row
    digests = [hashlib.blake2b(crop.contiguous().view(torch.uint8).numpy().data).digest() for crop in row.pixel_values]
    first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    kept = sorted(first.values())
    if len(kept) == len(digests):
        return row
    place = {crop: number for number, crop in enumerate(kept)}
    moved = torch.tensor([place[first[digest]] for digest in digests])
    num_patches = row.pixel_values.shape[1]
    crops, patches = row.pooling.clamp(min=0) // num_patches, row.pooling % num_patches
    pooling = torch.where(row.pooling >= 0, moved[crops] * num_patches + patches, EMPTY_SLOT)
    return replace(row, pixel_values=row.pixel_values[kept], pooling=pooling)
