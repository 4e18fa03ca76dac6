"""The phases of an answer, each as runs that measure themselves.

preprocessing: a picture file's pixels to crops. vision: crops to image tokens (ViT and connector). prefill:
    from the prompt with
its image tokens to the first token of the answer. decode: one token of every row per step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from molmopoint.eval.speed.answers import BareText, points_turn, text_turn
from molmopoint.eval.speed.models import Subject
from molmopoint.eval.speed.prompts import picture, picture_prompt
from molmopoint.eval.speed.settings import Setting
from molmopoint.eval.speed.timing import Turn, seconds_of

PIXELS = ("pixel_values", "image_token_pooling")
Run = Callable[[], Turn]


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        batches: rows per call.
        steps: decode steps per turn.
        sizes: (width, height) of the pictures that are preprocessed.
        prompt_size: (width, height) of the picture of every prompt.
        repeats: turns.
    """

    batches: tuple[int, ...] = (1, 4, 8)
    steps: int = 32
    sizes: tuple[tuple[int, int], ...] = ((640, 480), (1920, 1080), (3840, 2160))
    prompt_size: tuple[int, int] = (640, 480)
    repeats: int = 5


def preprocessing_runs(subject: Subject, setting: Setting, plan: Plan) -> dict[str, Run]:
    """One run per picture size and limit of crops; seconds per megapixel of the picture."""

    def run(image: Any, crops: int) -> Turn:
        setting.activate()
        work = partial(subject.image_processor, [image], max_crops=crops, return_tensors="pt")
        return {f"{image.width}x{image.height}, {crops} crops": seconds_of(work, setting) / (image.width * image.height / 1e6)}

    pictures = [picture(*size) for size in plan.sizes]
    return {f"{image.size} {crops}": partial(run, image, crops) for image in pictures for crops in subject.max_crops}


def vision_runs(subject: Subject, setting: Setting, plan: Plan) -> dict[str, Run]:
    """ViT and connector over the crops of one prompt."""
    inputs = picture_prompt(subject, 1, *plan.prompt_size)
    pixels = {name: inputs[name] for name in PIXELS}

    def run() -> Turn:
        setting.activate()
        with torch.inference_mode():
            return {"picture": seconds_of(lambda: subject.model.get_visual_features(**pixels), setting)}

    return {"vision": run}


def seen_prompt(subject: Subject, plan: Plan, batch: int) -> dict[str, Any]:
    """Arguments of `generate` for a batch whose pictures were seen already."""
    inputs: dict[str, Any] = dict(picture_prompt(subject, batch, *plan.prompt_size))
    pixels = {name: inputs.pop(name) for name in PIXELS}
    with torch.inference_mode():
        return inputs | {"visual_features": subject.model.get_visual_features(**pixels)}


def answer_runs(subject: Subject, setting: Setting, plan: Plan) -> dict[tuple[int, str], Run]:
    """(rows, kind) -> decoding of points, beside steps of the bare text model, and prefill and decoding of
    text.
    """

    def points(inputs: dict[str, Any], bare: BareText) -> Turn:
        setting.activate()
        return points_turn(subject, setting, inputs, plan.steps, bare)

    def text(inputs: dict[str, Any]) -> Turn:
        setting.activate()
        return text_turn(subject, setting, inputs, plan.steps)

    runs: dict[tuple[int, str], Run] = {}
    for batch in plan.batches:
        inputs = seen_prompt(subject, plan, batch)
        bare = BareText(subject, setting, batch, inputs["input_ids"].shape[1])
        runs |= {(batch, "points"): partial(points, inputs, bare), (batch, "text"): partial(text, inputs)}
    return runs
