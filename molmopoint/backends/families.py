"""Which family a model is of, by the table of `molmopoint.backends.table`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError

from molmopoint.backends.base import Backend
from molmopoint.backends.engine import EngineBackend, EngineModel
from molmopoint.backends.table import BACKENDS, check_kind, kind_of
from molmopoint.checkpoints.locating import config_at
from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.load_checks import FILE_ERRORS, reason_of


def backend_class(kind: str, source: str = "the model") -> type[Backend]:
    """The family of a kind of model.

    Args:
        kind: a key of the table; for most families the model type of the config.
        source: where it was found, for the message.

    Raises:
        CheckpointError: there is no such family.
    """
    check_kind(kind, source)
    family = BACKENDS[kind]
    if isinstance(family, str):
        module, _, name = family.partition(":")
        family = getattr(importlib.import_module(module), name)
    return family


def backend_class_of(source: str, **where: Any) -> type[Backend]:
    """The family of a checkpoint, read from its config.json.

    Args:
        source: folder or hub id, as `locate` returns it.
        **where: `revision`, `cache_dir`, `token` and the other arguments of `from_pretrained` that say where
            files come from.

    Raises:
        CheckpointError: there is no such model, it is of another family, or its config asks for code of
            another repository.
    """
    return backend_class(kind_of(config_at(source, **where)), source)


def family_of_model(model: Any, source: str = "the model") -> type[Backend]:
    """The family of a model that is loaded.

    Args:
        model: with a config.
        source: where it came from, for the message.

    Raises:
        CheckpointError: there is no such family.
    """
    fields = {"model_type": model.config.model_type, "architectures": [type(model).__name__]}
    return backend_class(kind_of(fields), source)


def backend_of(model: Any, processor: Any, *, max_pixels: int | None = None) -> Backend:
    """The backend of a model that is loaded.

    Raises:
        CheckpointError: the processor is that of another family, or does not fit the model.
    """
    if isinstance(model, EngineModel):
        return EngineBackend(processor, model, max_pixels=max_pixels)
    return family_of_model(model)(processor, model, max_pixels=max_pixels)


@contextmanager
def reading(source: str, what: str, advice: str = "") -> Iterator[None]:
    """Tells what goes wrong while files of a checkpoint are read as a `CheckpointError`; our own errors pass, and
    that a GPU is full.

    Args:
        source: folder or hub id.
        what: was expected there, such as "a Molmo2".
        advice: what to do, at the end of the message.
    """
    try:
        yield
    except (MolmoPointError, torch.OutOfMemoryError):
        raise
    except (*FILE_ERRORS, RuntimeError, MemoryError, AssertionError, SafetensorError) as error:
        raise CheckpointError(f"expected {what} at {source!r}, got: {reason_of(error)}{advice}") from error
