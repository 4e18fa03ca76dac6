"""From points to masks, with SAM 2 of transformers: pictures and clips, for results, tracks and J&F alike."""

from molmopoint.segmentation.masks import Mask, Masks
from molmopoint.segmentation.segmenter import Segmenter, load_segmenter

__all__ = ["Mask", "Masks", "Segmenter", "load_segmenter"]
