"""Which families of models there are, and which of them a model is of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from molmopoint.backends.base import Backend
from molmopoint.backends.molmo2 import Molmo2Backend
from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.checkpoints.locating import model_type_at
from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.load_checks import FILE_ERRORS
from molmopoint.processing import MolmoPointProcessor

BACKENDS: dict[str, type[Backend]] = {
    family.model_type: family for family in (MolmoPointBackend, Molmo2Backend)
}
"""Families by the model type that their config.json states."""


def backend_class(model_type: str, source: str = "the model") -> type[Backend]:
    """The family of a model type.

    Args:
        model_type: of a config.
        source: where it was found, for the message.

    Raises:
        CheckpointError: there is no such family.
    """
    if model_type not in BACKENDS:
        known = " or ".join(f"{family.title} (model_type {kind!r})" for kind, family in BACKENDS.items())
        raise CheckpointError(
            f"expected a checkpoint of {known}, got model_type {model_type!r} at {source!r}; choose one of "
            "these families"
        )
    return BACKENDS[model_type]


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
    return backend_class(model_type_at(source, **where), source)


def backend_of(model: Any, processor: MolmoPointProcessor, *, max_pixels: int | None = None) -> Backend:
    """The backend of a model that is loaded.

    Raises:
        CheckpointError: the processor is that of another family, or does not fit the model.
    """
    return backend_class(model.config.model_type)(processor, model, max_pixels=max_pixels)


@contextmanager
def reading(source: str, what: str, advice: str = "") -> Iterator[None]:
    """Tells what goes wrong while files of a checkpoint are read as a `CheckpointError`; our own errors pass.

    Args:
        source: folder or hub id.
        what: was expected there, such as "a Molmo2".
        advice: what to do, at the end of the message.
    """
    try:
        yield
    except MolmoPointError:
        raise
    except FILE_ERRORS as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(f"expected {what} at {source!r}, got: {reason}{advice}") from error
