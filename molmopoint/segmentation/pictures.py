"""Masks around the points of one picture: the picture is looked at once, and all points are decoded together.

Letters: n points or prompts, c clicks of a prompt, M masks that the decoder offers per prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_PROMPTS_PER_CALL = 64
"""Prompts of one call of the decoder, which repeats the picture's features for each of them: about 30 MB a prompt in float32."""

_PIXELS_PER_RESIZE = 1 << 24
"""Pixels of masks that are brought to the picture's size at once."""

MOST_NEGATIVES = 8
"""Negative clicks of a prompt: those of the nearest others. A SAM has seen few clicks at once in training."""

POSITIVE, NEGATIVE = 1, 0
"""Labels of clicks, as SAM has them."""


class Prompt(NamedTuple):
    """The clicks that say which object is meant.

    Attributes:
        xy: (c, 2) pixels.
        labels: (c,) of `POSITIVE` and `NEGATIVE`.
    """

    xy: np.ndarray
    labels: np.ndarray


def prompt_of(own: np.ndarray, others: np.ndarray | None = None) -> Prompt:
    """Positive clicks at the points of an object, and negative ones at the nearest points of others.

    Args:
        own: (n, 2) pixels.
        others: (m, 2) pixels.
    """
    if others is None or not len(others):
        return Prompt(own, np.full(len(own), POSITIVE))
    away = np.linalg.norm(others[:, None] - own[None], axis=-1).min(axis=1)
    nearest = others[np.argsort(away, kind="stable")[:MOST_NEGATIVES]]
    return Prompt(np.concatenate([own, nearest]), np.repeat([POSITIVE, NEGATIVE], [len(own), len(nearest)]))


@torch.inference_mode()
def masks_in_picture(
    model: Any, processor: Any, picture: Image.Image, prompts: Sequence[Prompt], *, multimask: bool
) -> Iterator[tuple[int, np.ndarray, float]]:
    """Number, mask (height, width) bool and expected intersection over union of every prompt.

    Prompts with equally many clicks are decoded together. Others are not made equal with padding, as the processor of transformers
    would, because the decoder attends to padded clicks: the answer would depend on what else is asked.

    Args:
        model: a `Sam2Model`, or one of another class with the same calls.
        processor: of the model.
        picture: RGB.
        prompts: one per mask.
        multimask: choose the best of several masks, by what the model expects of them; else take the one for the whole prompt.
    """
    size = picture.height, picture.width
    pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
    embeddings = model.get_image_embeddings(pixels.to(model.device, model.dtype))
    for numbers in _calls(prompts):
        clicks = processor(
            original_sizes=[size], input_points=[[prompts[number].xy.tolist() for number in numbers]],
            input_labels=[[prompts[number].labels.tolist() for number in numbers]], return_tensors="pt",
        )  # fmt: skip
        output = model(
            input_points=clicks["input_points"].to(model.device),
            input_labels=clicks["input_labels"].to(model.device),
            image_embeddings=embeddings,
            multimask_output=multimask,
        )
        logits, scores = _best(output.pred_masks[0], output.iou_scores[0])
        yield from zip(numbers, _in_size(processor, logits, size), scores, strict=True)


def _calls(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Numbers of the prompts that are decoded together."""
    counts = np.array([len(prompt.labels) for prompt in prompts])
    for count in np.unique(counts):
        numbers = np.flatnonzero(counts == count).tolist()
        for start in range(0, len(numbers), _PROMPTS_PER_CALL):
            yield numbers[start : start + _PROMPTS_PER_CALL]


def _best(logits: Tensor, scores: Tensor) -> tuple[Tensor, list[float]]:
    """Of (n, M, height, width) logits and (n, M) scores those of the mask with the highest score, each (n, ...)."""
    best = scores.argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    return logits[rows, best], scores[rows, best].float().tolist()


def _in_size(processor: Any, logits: Tensor, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Masks of the picture's (height, width) from (n, ...) logits of the model's size."""
    per_resize = max(1, _PIXELS_PER_RESIZE // (size[0] * size[1]))
    for part in logits.float().split(per_resize):
        yield from processor.post_process_masks([part[None]], original_sizes=[size])[0][0].cpu().numpy()
