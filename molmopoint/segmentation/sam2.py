"""How SAM 2 is asked: masks around the points of one picture, and masks of objects through a clip.

A picture is looked at once, and all its points are decoded together. In a clip every point is a click at its
frame, and masks are carried from the first click to both ends.

Objects are followed one by one, because an object is not to be disturbed by the others, but frame by frame
together, because looking at a frame is what takes time: it is looked at once per direction, not once per
object. Held in memory are one frame as the model sees it, and per object the outputs that the model can still
look back at. What comes out is what the plain way gives, the whole video in a session and one object after
the other.

Letters: n points or prompts, c clicks of a prompt, M masks that the decoder offers per prompt.

Source of the recipe: VideoMolmo, arXiv 2506.05336.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from molmopoint.metrics.tracking import PredictedTracks

_PROMPTS_PER_CALL = 64
"""Prompts of one call of the decoder, which repeats the picture's features for each of them: about 30 MB a
prompt in float32.
"""

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
    distances = np.linalg.norm(others[:, None] - own[None], axis=-1)  # (m, n)
    order = np.argsort(distances.min(axis=1), kind="stable")
    nearest = others[order[:MOST_NEGATIVES]]
    labels = np.repeat([POSITIVE, NEGATIVE], [len(own), len(nearest)])
    return Prompt(np.concatenate([own, nearest]), labels)


@torch.inference_mode()
def masks_in_picture(
    model: Any, processor: Any, picture: Image.Image, prompts: Sequence[Prompt], *, multimask: bool
) -> Iterator[tuple[int, np.ndarray, float]]:
    """Number, mask (height, width) bool and expected intersection over union of every prompt.

    Prompts with equally many clicks are decoded together. Others are not made equal with padding, as the
    processor of transformers would, because the decoder attends to padded clicks: the answer would depend on
    what else is asked.

    Args:
        model: a `Sam2Model`, or one of another class with the same calls.
        processor: of the model.
        picture: RGB.
        prompts: one per mask.
        multimask: choose the best of several masks, by what the model expects of them; else take the one for
            the whole prompt.
    """
    size = picture.height, picture.width
    pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
    embeddings = model.get_image_embeddings(pixels.to(model.device, model.dtype))
    for numbers in _calls(prompts):
        places = [prompts[number].xy.tolist() for number in numbers]
        labels = [prompts[number].labels.tolist() for number in numbers]
        clicks = processor(
            original_sizes=[size], input_points=[places], input_labels=[labels], return_tensors="pt"
        )
        output = model(
            input_points=clicks["input_points"].to(model.device),
            input_labels=clicks["input_labels"].to(model.device),
            image_embeddings=embeddings,
            multimask_output=multimask,
        )
        logits, scores = _best(output.pred_masks[0], output.iou_scores[0])
        masks = _in_size(processor, logits, size)
        yield from zip(numbers, masks, scores, strict=True)


def _calls(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Numbers of the prompts that are decoded together."""
    counts = np.array([len(prompt.labels) for prompt in prompts])
    for count in np.unique(counts):
        numbers = np.flatnonzero(counts == count).tolist()
        for start in range(0, len(numbers), _PROMPTS_PER_CALL):
            yield numbers[start : start + _PROMPTS_PER_CALL]


def _best(logits: Tensor, scores: Tensor) -> tuple[Tensor, list[float]]:
    """Of (n, M, height, width) logits and (n, M) scores those of the mask with the highest score, each (n,
    ...).
    """
    best = scores.argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    return logits[rows, best], scores[rows, best].float().tolist()


def _in_size(processor: Any, logits: Tensor, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Masks of the picture's (height, width) from (n, ...) logits of the model's size."""
    per_resize = max(1, _PIXELS_PER_RESIZE // (size[0] * size[1]))
    for part in logits.float().split(per_resize):
        yield from processor.post_process_masks([part[None]], original_sizes=[size])[0][0].cpu().numpy()


class FrameMask(NamedTuple):
    """The mask of an object in a frame.

    Attributes:
        object_id: of the clicks.
        frame: number of the frame.
        mask: (height, width) bool.
        score: probability that the object is visible.
    """

    object_id: int
    frame: int
    mask: np.ndarray
    score: float


@torch.inference_mode()
def follow_objects(
    model: Any,
    processor: Any,
    frames: Sequence[np.ndarray] | np.ndarray,
    clicks: PredictedTracks,
    *,
    negative_others: bool = False,
) -> Iterator[FrameMask]:
    """One mask per object and frame: first from every object's first click to the end, then back to the
    beginning.

    Args:
        model: a `Sam2VideoModel`, or one of another class with the same calls.
        processor: of the model.
        frames: (height, width, 3) uint8 each, all of one size; looked up by number, so they may be read when
            they are needed.
        clicks: points in pixels of the frames; those outside of the clip are left out.
        negative_others: whether the points of the other objects of a frame count as negative clicks.
    """
    inside = (clicks.frame >= 0) & (clicks.frame < len(frames))
    clicks = PredictedTracks(clicks.xy[inside], clicks.frame[inside], clicks.object_id[inside])
    if not len(clicks.frame):
        return
    seen = _SeenFrames(processor, frames, model.device, model.dtype)
    followed = [
        _Followed(model, processor, seen, object_id) for object_id in np.unique(clicks.object_id).tolist()
    ]
    _click(followed, clicks, negative_others)
    num_frames = len(frames)
    for number in range(num_frames):
        for each in followed:
            if number >= each.first:
                yield each.step(number, reverse=False)
    for number in reversed(range(num_frames)):
        for each in followed:
            if number < each.first:
                yield each.step(number, reverse=True)


def _click(followed: Sequence[_Followed], clicks: PredictedTracks, negative_others: bool) -> None:
    """Gives every object its clicks, frame by frame."""
    for number in np.unique(clicks.frame).tolist():
        here = clicks.frame == number
        for each in followed:
            own = here & (clicks.object_id == each.object_id)
            if own.any():
                others = clicks.xy[here & ~own] if negative_others else None
                each.click(number, prompt_of(clicks.xy[own], others))


class _Followed:
    """An object on its way through the clip, in a session of its own."""

    def __init__(self, model: Any, processor: Any, seen: _SeenFrames, object_id: int) -> None:
        self.object_id = object_id
        self.first = -1
        """Number of the frame of the first click."""
        self._model = model
        self._processor = processor
        self._seen = seen
        self._session = processor.init_video_session(inference_device=model.device, dtype=model.dtype)
        self._session.processed_frames = seen
        seen.share_features(self._session)
        self._reach = max(model.config.num_maskmem, model.config.max_object_pointers_in_encoder)

    def click(self, number: int, prompt: Prompt) -> None:
        """Clicks of one frame; frames come in order."""
        if self.first < 0:
            self.first = number
        self._processor.add_inputs_to_inference_session(
            self._session,
            frame_idx=number,
            obj_ids=1,
            original_size=self._seen.size,
            input_points=[[prompt.xy.tolist()]],
            input_labels=[[prompt.labels.tolist()]],
        )
        self._model(inference_session=self._session, frame_idx=number)
        self._forget(number)

    def step(self, number: int, reverse: bool) -> FrameMask:
        """The mask of a frame, from what came before it in this direction."""
        found = self._model(inference_session=self._session, frame_idx=number, reverse=reverse)
        self._forget(number)
        [logits] = self._processor.post_process_masks(
            [found.pred_masks.float()], original_sizes=[list(self._seen.size)], binarize=False
        )  # (1, 1, height, width)
        mask = (logits[0, 0] > 0).cpu().numpy()
        score = found.object_score_logits.float().sigmoid().item()
        return FrameMask(self.object_id, number, mask, score)

    def _forget(self, number: int) -> None:
        """Drops what no later frame looks back at: masks at the model's full size, and frames out of reach.

        The first steps backwards look at the frames behind the first click once more, so those are kept.
        """
        for outputs in self._session.output_dict_per_obj.values():
            for kind in outputs.values():
                kind.get(number, {}).pop("high_res_masks", None)
            passed = outputs["non_cond_frame_outputs"]
            for other in list(passed):
                if min(abs(other - number), abs(other - self.first)) > self._reach:
                    del passed[other]


class _SeenFrames:
    """Frames as the model sees them, made when they are asked for; stands in for the dictionary of all frames
    of a session.
    """

    def __init__(self, processor: Any, frames: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._processor, self._frames, self._device, self._dtype = processor, frames, device, dtype
        self._features: Any = None
        self.size: tuple[int, int] = frames[0].shape[:2]
        """Height and width of the frames."""

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> Tensor:
        """(3, height, width) of one frame."""
        seen = self._processor.video_processor(
            videos=self._frames[number][None], device=self._device, return_tensors="pt"
        )
        return seen["pixel_values_videos"][0, 0].to(self._dtype)

    def share_features(self, session: Any) -> None:
        """Lets all sessions of the clip use the features of a frame that one of them has looked at."""
        self._features = session.cache = self._features or session.cache
