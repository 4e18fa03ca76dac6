"""Which group a parameter belongs to, and which ones train.

| group | parameters |
| --- | --- |
| vit | vision tower |
| connector | pooling and projector; the added rows of the input table and of an untied output table |
| llm | text model without those rows, its output rows and its adapters |
| point | grounding heads, and the map of ViT features into the text model |
| value | head of a reward model, and its separator |
| frozen | rows of the text model in the input table; if tied, they are its output rows too |

The tables have to be split first, by `split_output_rows`. Names are those of MolmoPoint and of native Molmo2 models, with or
without the wrappers of PEFT, of DDP and of compiled modules.

Source: public MolmoPoint training code.
"""

from __future__ import annotations

import re

from torch import nn

from molmopoint.errors import RecipeError
from molmopoint.training.recipe import GROUPS, Recipe
from molmopoint.training.vocabulary_rows import EMBEDDING, HEAD, join_output_rows, split_output_rows, tables_are_tied

__all__ = ["FROZEN", "freeze", "group_of", "is_adapter", "join_output_rows", "split_output_rows", "tables_are_tied"]

FROZEN = "frozen"
"""What never trains."""

_RULES = (
    (rf"{EMBEDDING}\.added|{HEAD}\.added", "connector"),
    (rf"{EMBEDDING}\.(base|weight)", FROZEN),
    (r"vision_tower", "vit"),
    (r"point_predictor|build_vit_embedding", "point"),
    (r"connector|multi_modal_projector", "connector"),
    (rf"language_model|{HEAD}", "llm"),
    (r"value|separator", "value"),
)
_PATTERNS = tuple((re.compile(rf"(^|\.)({names})(\.|$)"), group) for names, group in _RULES)
_ADAPTER = re.compile(r"(^|\.)lora_")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name was added by LoRA."""
    return _ADAPTER.search(name) is not None


def group_of(name: str) -> str:
    """Group of a parameter by its name: one of `GROUPS`, or "frozen".

    Raises:
        RecipeError: a name that no part of the model has.
    """
    for pattern, group in _PATTERNS:
        if pattern.search(name):
            return group
    raise RecipeError(f"expected a parameter of a MolmoPoint or Molmo2 model, got {name!r}; train one of these models")


def freeze(model: nn.Module, recipe: Recipe) -> None:
    """Sets what trains.

    Never: the rows of the text model in the input table. Not: groups whose peak is 0; with `recipe.lora` everything of the text
    model but its adapters. Parameters that cannot have a gradient, such as quantised ones, are left as they are.

    Raises:
        RecipeError: nothing is left to train, or `recipe.lora` for a model without adapters.
    """
    peaks = {group: getattr(recipe.groups, group).peak for group in GROUPS}
    adapters = trained = 0
    for name, parameter in model.named_parameters():
        group = group_of(name)
        adapters += is_adapter(name)
        trains = peaks.get(group, 0.0) > 0 and (recipe.lora is None or group != "llm" or is_adapter(name))
        if parameter.is_floating_point():
            parameter.requires_grad_(trains)
            trained += trains
    if recipe.lora is not None and not adapters:
        raise RecipeError("expected a model with the adapters of recipe.lora, got one without; add them before training")
    if not trained:
        raise RecipeError(f"expected a group with a peak above 0, got {peaks}; set one of recipe.groups")
