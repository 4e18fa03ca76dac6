"""What the vision side of `nano` makes of each picture, computed once: it stays as it is while a judge learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from molmopoint.data.preferences import PreferenceRecord
from molmopoint.reward import RowBuilder
from molmopoint.reward.rows import PromptPart
from molmopoint.training.reward.prepare import PreferencePreparer

_TILES = 1
"""Tiles beside the overview: the pictures are no larger than one."""


def see_pictures(file: Path, pictures: Path, names: list[str], backbone: Any, builder: RowBuilder) -> Tensor:
    """Image features (pictures, image tokens, H) bfloat16 of the named pictures, kept in `file` beside their names.

    Raises:
        ValueError: pictures of different numbers of image tokens.
    """
    index = file.with_suffix(".json")
    if file.exists() and json.loads(index.read_text(encoding="utf-8")) == names:
        return torch.load(file, weights_only=True)
    seen = []
    for name in track(names, "seeing pictures"):
        prompt = builder.prompt("?", pictures / name, max_crops=_TILES)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = backbone.model.get_visual_features(prompt.pixel_values, prompt.pooling).image_features
        if seen and features.shape != seen[0].shape:
            raise ValueError(f"expected {len(seen[0])} image tokens in every picture, got {len(features)} in {name}")
        seen.append(features.bfloat16())
    table = torch.stack(seen)
    torch.save(table, file)
    index.write_text(json.dumps(names), encoding="utf-8")
    return table


class SeenPreparer(PreferencePreparer):
    """Makes rows of pictures that were seen before.

    Args:
        features: (pictures, image tokens, H).
        names: of these pictures.
        given: arguments of `PreferencePreparer`.
    """

    def __init__(self, features: Tensor, names: list[str], *given: Any) -> None:
        super().__init__(*given)
        self.features = features
        self.place = {name: i for i, name in enumerate(names)}
        self.asked: dict[str, PromptPart] = {}

    def prompt(self, record: PreferenceRecord) -> PromptPart:
        """The question of a row about the features of its picture."""
        name = str(record.images[0])
        question = str(record.prompt)
        if question not in self.asked:  # every picture has the same image tokens, so any will do
            made = self.builder.prompt(question, self.folder / name, max_crops=_TILES)
            self.asked[question] = replace(made, pixel_values=None, pooling=None)
        return replace(self.asked[question], image_features=self.features[self.place[name]].float())
