"""The model that a fine-tuning starts from, and what of it trains.

Low-rank adapters on the text model as a recipe asks for them; everything else trains in full.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from molmopoint.adapters import put_adapters
from molmopoint.backends import Backend, backend_class_of
from molmopoint.checkpoints import registry
from molmopoint.checkpoints.locating import locate
from molmopoint.checkpoints.quantising import check_widths, store_for_adapters
from molmopoint.errors import CheckpointError, MolmoPointError, RecipeError
from molmopoint.load_checks import FILE_ERRORS
from molmopoint.registration import register
from molmopoint.training.recipe import Lora, Recipe
from molmopoint.training.recipe_files import recipe_names


def add_adapters(model: nn.Module, settings: Lora) -> None:
    """Puts adapters on the linear layers of the text model that `settings.targets` names; at first they
    change nothing.

    Raises:
        RecipeError: peft is missing, or the text model has no layer of such a name.
    """
    put_adapters(model, settings.targets, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout)


def check_bits(recipe: Recipe) -> None:
    """Refuses a recipe that stores matrices in fewer bits where that cannot be done.

    Raises:
        RecipeError: bitsandbytes is missing.
    """
    if recipe.lora is None or recipe.lora.bits == 16 or importlib.util.find_spec("bitsandbytes") is not None:
        return
    remedy = 'pip install "molmopoint[quantize]", or set lora.bits=16'
    raise RecipeError(
        f"expected bitsandbytes for lora.bits={recipe.lora.bits}, got no such package; {remedy}"
    )


EAGER_TOKENS = 2048
"""Longest packed row for plain attention on a processor: longer ones would need too much memory for their
scores.
"""


def default_recipe(model: str | Path) -> str:
    """The recipe of a model that is named without one: its own if the zoo name is a recipe, else "lora"."""
    entry = registry.find(str(model))
    return entry.name if entry is not None and entry.name in recipe_names() else "lora"


def load_start(model: str | Path, recipe: Recipe) -> tuple[Any, Backend]:
    """Model in training precision on the CPU, and its backend with the processor that `molmopoint.load` reads
    as well.

    Args:
        model: zoo name, hub id or folder.
        recipe: says the crops per picture and whether weights are quantised.

    Raises:
        CheckpointError: there is no such model, it is of another family, its tokenizer lacks the special
            tokens, or its chat template cannot be followed.
    """
    register()
    source, revision = locate(model)
    family = backend_class_of(source, revision=revision)
    family.check_trains(source)
    with _told_as_checkpoint_errors(source):
        backend = family(
            family.read_processor(source, revision=revision), max_crops=recipe.data.crops_per_image
        )
        # What cannot be followed is told before the weights are read.
        backend.processor.chat.prompts(["?"])
    if not backend.packs_rows and recipe.data.pool > 1:
        raise RecipeError(
            f"expected data.pool = 1 for {source!r}, whose linear attention cannot keep examples of a row apart, got "
            f"{recipe.data.pool}; set data.pool=1"
        )
    return load_network(source, revision, recipe), backend


def load_network(source: str, revision: str | None, recipe: Recipe) -> Any:
    """The network alone, in training precision on the CPU.

    Args:
        source: folder or hub id, as `locate` returns it.
        revision: on the hub.
        recipe: says whether weights are quantised.

    Raises:
        CheckpointError: there is no such model, it is of another family, or its weights cannot be stored so.
        RecipeError: bitsandbytes is missing.
    """
    register()
    family = backend_class_of(source, revision=revision)
    family.check_trains(source)
    check_bits(recipe)
    bits = 16 if recipe.lora is None else recipe.lora.bits
    settings: dict[str, Any] = {"revision": revision, "dtype": torch.float32}
    with _told_as_checkpoint_errors(source):
        if bits == 4:
            check_widths(family.read_config(source, revision=revision), "nf4", source)
        network = family.read_for_training(source, attention_of(recipe), settings)
        if bits < 16:
            store_for_adapters(network, bits)
        return network


@contextmanager
def _told_as_checkpoint_errors(source: str) -> Iterator[None]:
    """What goes wrong while files are read, as a `CheckpointError`."""
    try:
        yield
    except MolmoPointError as error:
        raise CheckpointError(f"expected a model to fine-tune at {source!r}, got: {error}") from error
    except FILE_ERRORS as error:
        reason = str(error).strip().split("\n", 1)[0]
        remedy = "the folder needs weights, tokenizer and processor"
        raise CheckpointError(f"expected a whole model at {source!r}, got: {reason}; {remedy}") from error


def attention_of(recipe: Recipe) -> str:
    """The attention to train with: SDPA, but on a processor and short rows the plain one, whose backward pass
    is quicker there.

    Measured with the embedded model, rows of 161 tokens and bfloat16 on one core: backward 0.26 s with SDPA,
    0.16 s without.
    """
    return "sdpa" if torch.accelerator.is_available() or recipe.data.max_tokens > EAGER_TOKENS else "eager"
