"""J and F: how well a mask covers an object, and how well its outline follows the object's.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR
2016). Masks are boolean arrays (height, width).
"""

from __future__ import annotations

import math

import numpy as np
import scipy  # its parts are imported when they are used

OUTLINE_TOLERANCE = 0.008
"""Part of the picture's diagonal that an outline may be off."""


def region_similarity(predicted: np.ndarray, true: np.ndarray) -> float:
    """J: intersection over union of two masks; 1 if both are empty."""
    _check(predicted, true)
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else 1.0


def outline_accuracy(predicted: np.ndarray, true: np.ndarray, tolerance: float = OUTLINE_TOLERANCE) -> float:
    """F: harmonic mean of the shares of both outlines that lie near the other one; 1 if both masks are empty,
    0 if one is.

    Args:
        predicted: of the answer.
        true: of the object.
        tolerance: part of the diagonal, rounded up to whole pixels.
    """
    _check(predicted, true)
    radius = math.ceil(tolerance * math.hypot(*true.shape))
    outline, wanted = outline_of(predicted), outline_of(true)
    if not outline.any() or not wanted.any():
        return float(not outline.any() and not wanted.any())
    precision = np.count_nonzero(outline & _near(wanted, radius)) / np.count_nonzero(outline)
    recall = np.count_nonzero(wanted & _near(outline, radius)) / np.count_nonzero(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline_of(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one to the right, below, or right below; the last row and column have only
    one of these.
    """
    right, below, both = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    both[:-1, :-1] = mask[1:, 1:]
    outline = (mask ^ right) | (mask ^ below) | (mask ^ both)
    outline[-1] = mask[-1] ^ right[-1]
    outline[:, -1] = mask[:, -1] ^ below[:, -1]
    return outline


def _near(outline: np.ndarray, radius: int) -> np.ndarray:
    """Pixels within a disk of an outline; the distance transform costs the same for every radius."""
    return np.asarray(scipy.ndimage.distance_transform_edt(~outline)) <= radius


def _check(predicted: np.ndarray, true: np.ndarray) -> None:
    for mask in (predicted, true):
        if mask.ndim != 2 or mask.dtype != np.bool_:
            raise ValueError(
                f"expected boolean masks of shape (height, width), got {mask.dtype} {mask.shape}"
            )
    if predicted.shape != true.shape:
        raise ValueError(
            f"expected masks of one size, got {predicted.shape} and {true.shape}; resize the predicted one "
            "first"
        )
