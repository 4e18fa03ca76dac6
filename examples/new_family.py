"""A family of one's own: one module, and one row in a table.

The family is made up: a *Swatch* knows a few words for colours, and points where a picture has them. What is said here
is all that a family has to say: its config and network, how a picture is seen and a request is written, and what the
network makes of them. The rest is there already: `molmopoint.load`, `Pointer` with batches, streams, heatmaps and
pictures that are encoded once, benchmarks, the server.

    python examples/new_family.py

A family that writes its answers, or is to be trained, is a subclass of `Backend` itself; `molmopoint/backends/molmo2.py`
is one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel

import molmopoint
from molmopoint.backends import BACKENDS
from molmopoint.backends.maps import MapBackend, MapRequests
from molmopoint.backends.requests import Request
from molmopoint.load_checks import check_loading_info, verify_source
from molmopoint.processing.media import MediaInputs

COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220)}
CELL = 8
"""Side of an image token in pixels."""


# The config and the network are those of any model of transformers.


class SwatchConfig(PreTrainedConfig):
    """What a Swatch is made of."""

    model_type = "swatch"
    words: list[str] | None = None
    max_position_embeddings: int = 4096

    @property
    def text_config(self) -> SwatchConfig:
        """Where the library looks for the number of positions."""
        return self


class SwatchModel(PreTrainedModel):
    """Knows a colour per word, and says how near each part of a picture is to the one that is asked for."""

    config_class = SwatchConfig

    def __init__(self, config: SwatchConfig) -> None:
        super().__init__(config)
        self.colours = nn.Parameter(torch.zeros(len(config.words or ()), 3))  # (words, 3), 0..1
        self.post_init()

    def forward(self, cells: Tensor, word: int) -> Tensor:
        """(P,) logits of image tokens with mean colours (P, 3)."""
        return -100 * (cells - self.colours[word]).square().sum(dim=-1)


# How a picture is seen, and a row of text written.


class SwatchRequests(MapRequests):
    """Makes rows: the placeholder of the picture, and the prompt."""

    title = "Swatch"

    def see(self, picture: Image.Image) -> tuple[dict[str, Tensor], tuple[int, int]]:
        """Mean colours (P, 3) of a grid of cells."""
        cols, rows = (max(1, side // CELL) for side in picture.size)
        small = np.asarray(picture.resize((cols, rows), Image.Resampling.BOX))  # (rows, cols, 3)
        return {"cells": torch.tensor(small.reshape(-1, 3) / 255, dtype=torch.float32)}, (rows, cols)

    def write(self, prompt: str) -> str:
        """The row as text."""
        return f"<|image|>{prompt}"

    @property
    def image_token_id(self) -> int:
        """The placeholder of the picture."""
        return self._processor.tokenizer.convert_tokens_to_ids("<|image|>")


# The backend: reading files, and one map per request.


class SwatchBackend(MapBackend):
    """See `molmopoint.backends.Backend`."""

    model_type = "swatch"
    title = "Swatch"
    builder_class = SwatchRequests

    @classmethod
    def read_config(cls, source: str, **where: Any) -> Any:
        """The config."""
        return SwatchConfig.from_pretrained(source, **where)

    @classmethod
    def read_processor(cls, source: str, **where: Any) -> Any:
        """A tokenizer is all that a Swatch has."""
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)
        return SimpleNamespace(tokenizer=tokenizer, image_processor=CELL)

    @classmethod
    def read_model(cls, source: str, where: dict[str, Any], settings: dict[str, Any]) -> Any:
        """The network; a tensor that is missing is an error, and never filled in at random."""
        verify_source(source, **where)
        loaded: Any = SwatchModel.from_pretrained(source, output_loading_info=True, **settings)
        model, info = loaded
        check_loading_info(info, source)
        return model

    def _take_tokens(self) -> None:
        """Nothing is generated, so there are no tokens that end an answer."""

    def encode(self, media: MediaInputs) -> Tensor:
        """What the model sees of a picture, on its device."""
        return self.on_device(media.pixels)["cells"]

    def score_maps(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """Probabilities of the image tokens of each request; the first word that is known counts."""
        maps = []
        for request in requests:
            cells = self.encode(request.media) if request.features is None else request.features
            said = request.prompt.lower().split()
            known = [number for number, word in enumerate(self.model.config.words) if word in said]
            logits = self.model(cells, known[0] if known else 0)
            maps.append(logits.softmax(dim=-1).cpu().numpy())
        return maps


def register() -> None:
    """The row: from now on every part of the library knows the family. In the library it stands in
    `molmopoint/backends/table.py`.
    """
    BACKENDS[SwatchConfig.model_type] = SwatchBackend
    AutoConfig.register(SwatchConfig.model_type, SwatchConfig, exist_ok=True)


def save(folder: Path) -> None:
    """Writes a Swatch that knows three colours."""
    model = SwatchModel(SwatchConfig(words=list(COLOURS)))
    with torch.no_grad():
        model.colours.copy_(torch.tensor(list(COLOURS.values())) / 255)
    model.save_pretrained(folder)
    molmopoint.load("nano").processor.tokenizer.save_pretrained(folder)


def scene() -> Image.Image:
    """A red and a blue disc."""
    picture = Image.new("RGB", (240, 160), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 30, 80, 90), fill=COLOURS["red"])
    draw.ellipse((150, 70, 210, 130), fill=COLOURS["blue"])
    return picture


def main() -> None:
    """Saves, loads and asks a model of the new family."""
    register()
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        pointer = molmopoint.load(folder, device="cpu")
    for phrase in ("the blue disc", "the red disc"):
        (point,) = pointer.point(scene(), phrase)
        print(f"{phrase}: {point.x:.0f}, {point.y:.0f}")


if __name__ == "__main__":
    main()
