"""GUI-Actor and its line: a host points with one pointer token, which a head compares with the image tokens.

One pass through the prompt gives a score per image token; regions of high scores are the points, best first.
There is always an answer, and its score, the mean of its region's probabilities (V2P: the largest), falls with the
resolution of the picture and is not calibrated.

Letters: B rows, S tokens, P image tokens of one picture, Q pointers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import AutoConfig

from molmopoint.backends.gui_actor_network import HEAD, NETWORKS, PictureFeatures
from molmopoint.backends.maps import MapBackend, MapRequests
from molmopoint.backends.regions import RegionValue
from molmopoint.backends.requests import Request
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.heads.region import ATTENTION_HEADS, RegionHead
from molmopoint.load_checks import check_head, check_loading_info, refuse_torchao, verify_source
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.rows import collate

POINTER, POINTER_START, POINTER_END = "<|pointer_pad|>", "<|pointer_start|>", "<|pointer_end|>"
IMAGE = "<|image_pad|>"
_NEEDED = ("<|recipient|>", POINTER_START, POINTER_END, POINTER, IMAGE, "<|vision_start|>", "<|vision_end|>")
_POINTING = f"{POINTER_START}{POINTER}{POINTER_END}"

_CLICKING = (
    "You are a GUI agent. Given a screenshot of the current GUI and a human instruction, your task is to locate "
    "the screen element that corresponds to the instruction. You should output a PyAutoGUI action that performs a "
    "click on the correct position. To indicate the click location, we will use some special tokens, which is used "
    "to refer to a visual patch later. For example, you can output: pyautogui.click(<your_special_token_here>)."
)
_ACTING = (
    "You are a GUI agent. You are given a task and a screenshot of the screen. You need to perform a series of "
    "pyautogui actions to complete the task."
)
_PLACING = (
    "You are a GUI agent. Your task is to locate the screen element that corresponds to the instruction. You should "
    "not call any external tools. Output only the coordinate of one point in your response. Format: (x, y)"
)


@dataclass(frozen=True)
class HostForm:
    """How models on one host were trained to be asked.

    Attributes:
        system: what the system turn says.
        answer: beginning of the answer that is given, up to and behind the pointer token.
        resizes_with_pillow: the second resize is Pillow's; else that of the host's processor.
    """

    system: str
    answer: str = f"pyautogui.click({_POINTING})"
    resizes_with_pillow: bool = True


FORMS = {
    "qwen2_vl": HostForm(_ACTING),
    "qwen2_5_vl": HostForm(_CLICKING),
    "qwen3_vl": HostForm(_PLACING, f"({_POINTING})", resizes_with_pillow=False),
}
"""Forms by the model type of the host. Source: microsoft/GUI-Actor, showlab/FocusUI."""

_LEAST_CELLS, _MOST_CELLS = 4, 16384
"""Image tokens of a picture between which the first resize keeps it."""

_LONGEST_SHAPE = 200
"""Most times that one side of a picture may be as long as the other."""

_SCORER = "patch_scorer."
"""Tensors of FocusUI that choose which image tokens are looked at; all are looked at here."""

_BY_MAXIMUM = "v2p"
"""In the name of a model: its regions are ranked by their largest score."""


def multiple_size(width: int, height: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """(width, height) in multiples of a factor, near those of a picture, with an area between two limits.

    Args:
        width: of the picture.
        height: of the picture.
        factor: side of an image token in pixels.
        least: fewest pixels.
        most: most pixels.

    Raises:
        ProcessingError: a side is more than 200 times as long as the other.
    """
    if max(width, height) > _LONGEST_SHAPE * min(width, height):
        raise ProcessingError(
            f"expected a picture with sides of at most 1 to {_LONGEST_SHAPE}, got {width} x {height}; cut it"
        )
    across = max(1, round(width / factor))
    down = max(1, round(height / factor))
    if across * down * factor**2 > most:
        shrink = math.sqrt(width * height / most)
        across = max(1, math.floor(width / shrink / factor))
        down = max(1, math.floor(height / shrink / factor))
    elif across * down * factor**2 < least:
        enlarge = math.sqrt(least / (width * height))
        across = math.ceil(width * enlarge / factor)
        down = math.ceil(height * enlarge / factor)
    return across * factor, down * factor


class GuiActorRequests(MapRequests):
    """Makes rows as GUI-Actor was trained with."""

    title = "GUI-Actor"
    form: HostForm = FORMS["qwen2_5_vl"]
    answer_start = form.answer

    def take_form(self, form: HostForm) -> None:
        """Asks as models on a host were trained to be."""
        self.form = form
        self.answer_start = form.answer

    def see(self, picture: Image.Image) -> tuple[dict[str, Tensor], tuple[int, int]]:
        """Patches of the picture, which is resized twice, as at the authors'."""
        processor = self._processor.image_processor
        factor = processor.patch_size * processor.merge_size
        area = factor * factor
        size = multiple_size(*picture.size, factor, _LEAST_CELLS * area, _MOST_CELLS * area)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        if self.form.resizes_with_pillow:
            limits = processor.size
            size = multiple_size(*size, factor, limits["shortest_edge"], limits["longest_edge"])
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        seen = processor([picture], do_resize=not self.form.resizes_with_pillow, return_tensors="pt")
        _, rows, cols = seen["image_grid_thw"][0].tolist()
        pixels = {name: seen[name] for name in ("pixel_values", "image_grid_thw")}
        return pixels, (rows // processor.merge_size, cols // processor.merge_size)

    def write(self, prompt: str) -> str:
        """System turn, picture and instruction, and the answer that is given."""
        return (
            f"<|im_start|>system\n{self.form.system}<|im_end|>\n"
            f"<|im_start|>user\n<|vision_start|>{IMAGE}<|vision_end|>{prompt}<|im_end|>\n"
            f"<|im_start|>assistant<|recipient|>os\n{self.form.answer}"
        )

    @property
    def image_token_id(self) -> int:
        """See `HostRequests`."""
        return self._processor.tokenizer.convert_tokens_to_ids(IMAGE)


class GuiActorBackend(MapBackend):
    """See `Backend`.

    Attributes:
        pointer_id: the pointer token.

    Raises:
        CheckpointError: the tokenizer lacks a special token, or has another pointer than the model.
    """

    title = "GUI-Actor"
    model_type = "qwen2_5_vl+pointer"
    builder_class = GuiActorRequests

    def __init__(self, processor: Any, model: Any = None, **settings: Any) -> None:
        super().__init__(processor, model, **settings)
        known = processor.tokenizer.get_vocab()
        self.pointer_id: int = known[POINTER]
        if model is None:
            return
        config = model.config
        for name, token, stated in (
            (POINTER, self.pointer_id, getattr(config, "pointer_pad_token_id", None)),
            (IMAGE, known[IMAGE], config.image_token_id),
        ):
            if stated is not None and stated != token:
                raise CheckpointError(
                    f"expected a tokenizer in which {name} is {stated}, as in the model's config, got {token}; "
                    "load both from the same folder"
                )
        cast(GuiActorRequests, self.requests).take_form(FORMS[config.model_type])
        self.region_value = _region_value(config)

    # Loading

    @classmethod
    def check_processor(cls, processor: Any) -> None:
        """See `Backend`; tokens that are missing are named."""
        super().check_processor(processor)
        known = processor.tokenizer.get_vocab()
        if missing := [name for name in _NEEDED if name not in known]:
            raise CheckpointError(
                f"expected the tokenizer of a {cls.title}, got one without {', '.join(missing)}; load the model's "
                "own"
            )

    @classmethod
    def read_config(cls, source: str, **where: Any) -> Any:
        """See `Backend`.

        Raises:
            CheckpointError: the host is none of those that are known, or its width does not fit the head.
        """
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **where)
        if config.model_type not in NETWORKS:
            raise CheckpointError(
                f"expected a pointer head on one of {', '.join(NETWORKS)} at {source!r}, got one on "
                f"{config.model_type}; choose another model"
            )
        width = config.text_config.hidden_size
        if width % ATTENTION_HEADS:
            raise CheckpointError(
                f"expected a text model with a width in multiples of {ATTENTION_HEADS} at {source!r}, "
                f"got {width}"
            )
        return config

    @classmethod
    def read_model(cls, source: str, where: dict[str, Any], settings: dict[str, Any]) -> Any:
        """See `Backend`; a head that is not whole is told before the weights are read."""
        refuse_torchao(settings.get("quantization_config"))
        verify_source(source, **where)
        config = cls.read_config(source, **where)
        wanted = [f"{HEAD}.{name}" for name in RegionHead(ATTENTION_HEADS).state_dict()]
        check_head(source, wanted, f"a pointer head ({HEAD})", **where)
        network = NETWORKS[config.model_type]
        settings = {"ignore_mismatched_sizes": True, **settings, "use_safetensors": True}
        model, info = network.from_pretrained(
            source, trust_remote_code=False, output_loading_info=True, **settings
        )
        left_over = [name for name in info["unexpected_keys"] if not name.startswith(_SCORER)]
        check_loading_info({**info, "unexpected_keys": left_over}, source)
        return model

    # Answers

    def encode(self, media: MediaInputs) -> PictureFeatures:
        """What the host sees of the picture, on its device."""
        with self._without_gradients():
            return self.model.look(**self.on_device(media.pixels))

    def score_maps(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """See `MapBackend`."""
        batch = collate([request.row for request in requests], self._padding_id, "right")
        pictures = [request.features or self.encode(request.media) for request in requests]
        logits = self.model.pointer_logits(
            **self.on_device({name: batch[name] for name in ("input_ids", "attention_mask")}),
            pictures=pictures,
            pointer_id=self.pointer_id,
        )
        return [row[0].softmax(-1).cpu().numpy() for row in logits]  # (P,) each, of the only pointer

    @property
    def _padding_id(self) -> int:
        tokenizer = self.processor.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _region_value(config: Any) -> RegionValue:
    """What regions are ranked by: as config.json says under `region_value`; else by the model's name."""
    stated = getattr(config, "region_value", None)
    if stated is not None:
        if stated not in ("mean", "max"):
            raise CheckpointError(
                f"expected region_value to be 'mean' or 'max' in config.json, got {stated!r}"
            )
        return stated
    name = Path(str(config.name_or_path)).name.lower()
    return "max" if _BY_MAXIMUM in name else "mean"
