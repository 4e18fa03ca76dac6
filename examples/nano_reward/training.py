"""The training of the embedded reward model: that of `finetune-reward`, with two short cuts that change no
score.

What the vision side of `nano` makes of each picture is computed once: it stays as it is while a judge learns.
And adapters are added to their weights before these meet the tokens.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from molmopoint.adapters import ADAPTER_NAME
from molmopoint.adapters import WEIGHTS_FILE as ADAPTERS
from molmopoint.data.preferences import PreferenceRecord, read_preferences
from molmopoint.reward import RowBuilder
from molmopoint.reward.files import find_reward
from molmopoint.reward.rows import PromptPart
from molmopoint.training.precision import autocast, resolve_precision, settle_precision
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.reward.finetune import budget_of, new_network, new_trainer
from molmopoint.training.reward.prepare import PreferencePreparer
from molmopoint.training.reward.scoring import JudgingScore
from molmopoint.training.run import find_processes
from molmopoint.training.sources import split_records

BASE, RECIPE = "nano", "nano-reward"
_PREFIX = "base_model.model."
"""What PEFT puts before the names of stored layers."""

_TILES = 1
"""Tiles beside the overview: the pictures are no larger than one."""


def train(data: Path, folder: Path, changes: list[str], start: str | None = None) -> dict[str, float]:
    """Trains on the rows of `data`, goes on where it was stopped, and writes the best model to `folder /
    "model"`.

    Args:
        data: rows of preferences.
        folder: of the run.
        changes: of the recipe, KEY=VALUE.
        start: reward model with the same base whose adapters and head training begins with.

    Returns:
        Scores on the pictures that are held out.
    """
    recipe = settle_precision(load_recipe(RECIPE, changes))
    network, builder = new_network(BASE, recipe)
    if start is not None:
        start_from(network, start)
    if start is not None:
        start_from(network, start)
    add_up_first(network.backbone)
    read = read_preferences(data)
    names = sorted({str(record.images[0]) for record in read.records})
    features = see_pictures(data.parent / "features.pt", read.folder, names, network.backbone, builder)
    parts = split_records(read.records, recipe.data.held_out, recipe.data.seed)
    learned, kept = (
        SeenPreparer(features, names, part, read.folder, builder, budget_of(recipe)) for part in parts
    )
    score = JudgingScore(
        kept, recipe.scoring.examples, recipe.scoring.batch_size, resolve_precision(recipe.dtype)
    )
    trainer = new_trainer(network, learned, recipe, folder, score, find_processes(recipe, folder))
    trainer.train()
    trainer.load_best()
    network.base = BASE
    network.save_pretrained(folder / "model")
    return score(network)


@torch.no_grad()
def start_from(network: Any, start: str) -> None:
    """Gives a new network the adapters, the head and the separator of a reward model.

    Raises:
        ValueError: its adapters are of other layers.
    """
    found = find_reward(start)
    adapters: dict[str, Tensor] = {}
    for name, tensor in load_file(found.path / ADAPTERS).items():
        layer, kind = name.removeprefix(_PREFIX).rsplit(".", 1)
        adapters[f"{layer}.{ADAPTER_NAME}.{kind}"] = tensor
    own = {name for name, _ in network.backbone.named_parameters() if ".lora_" in name}
    if own != set(adapters):
        raise ValueError(f"expected adapters of the layers of {BASE}, got others in {found.path}")
    network.backbone.load_state_dict(adapters, strict=False)
    network.separator.copy_(found.tensors["separator"])
    head = {name.removeprefix("value."): tensor for name, tensor in found.tensors.items() if "value." in name}
    network.value.load_state_dict(head)


def see_pictures(file: Path, pictures: Path, names: list[str], backbone: Any, builder: RowBuilder) -> Tensor:
    """Image features (pictures, image tokens, H) bfloat16 of the named pictures, kept in `file` beside their
    names.

    Raises:
        ValueError: pictures of different numbers of image tokens.
    """
    index = file.with_suffix(".json")
    if file.exists() and json.loads(index.read_text(encoding="utf-8")) == names:
        return torch.load(file, weights_only=True)
    seen = []
    for name in track(names, "seeing pictures"):
        prompt = builder.prompt("?", pictures / name, max_crops=_TILES)
        with torch.no_grad(), autocast():
            features = backbone.model.get_visual_features(prompt.pixel_values, prompt.pooling).image_features
        if seen and features.shape != seen[0].shape:
            raise ValueError(
                f"expected {len(seen[0])} image tokens in every picture, got {len(features)} in {name}"
            )
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


def add_up_first(model: nn.Module) -> None:
    """Changes how the adapters of a model are computed, not what they are: x (W + s B A) instead of x W + s
    (x A) B.

    Adapters almost as wide as their layers, as here, cost more than the layers do; added up they cost nothing
    per token. There must be no dropout on their input.
    """
    for module in model.modules():
        layer: Any = module
        if hasattr(layer, "lora_A") and hasattr(layer, "base_layer"):
            layer.forward = partial(_forward, layer)


def _forward(layer: Any, x: Tensor) -> Tensor:
    down, up = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    with torch.autocast(x.device.type, enabled=False):
        weight = layer.base_layer.weight + layer.scaling[ADAPTER_NAME] * (up @ down)
    return functional.linear(x, weight, layer.base_layer.bias)
