"""The table of model families: what a config says, and where the backend of such models is.

A family is one module with a subclass of `Backend`, and one row here. Nothing of a model is imported to read
the table, so a wrong name or a foreign folder is told at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmopoint.checkpoints import registry
from molmopoint.errors import CheckpointError
from molmopoint.files import is_file

if TYPE_CHECKING:
    from molmopoint.backends.base import Backend

WITH_POINTER = "+pointer"
"""Behind the model type of a host with the pointer head of GUI-Actor, which keeps the host's model type."""

BACKENDS: dict[str, str | type[Backend]] = {
    "molmo_point": "molmopoint.backends.molmopoint:MolmoPointBackend",
    "molmo2": "molmopoint.backends.molmo2:Molmo2Backend",
    "molmo_point_graft": "molmopoint.backends.graft:GraftBackend",
    "qwen2_vl+pointer": "molmopoint.backends.gui_actor:GuiActorBackend",
    "qwen2_5_vl+pointer": "molmopoint.backends.gui_actor:GuiActorBackend",
    "qwen3_vl+pointer": "molmopoint.backends.gui_actor:GuiActorBackend",
    "qwen2_5_vl": "molmopoint.backends.coordinates:CoordinateBackend",
    "qwen3_vl": "molmopoint.backends.coordinates:CoordinateBackend",
    "qwen3_vl_moe": "molmopoint.backends.coordinates:CoordinateBackend",
    "florence2": "molmopoint.backends.coordinates:CoordinateBackend",
    "paligemma": "molmopoint.backends.coordinates:CoordinateBackend",
}
"""Kind of a model, as `kind_of` tells it, and the class of its family: itself, or its module and name."""


def kind_of(fields: Mapping[str, Any]) -> str:
    """Key of `BACKENDS` for what a config.json says: its model type, and whether there is a pointer head.

    >>> kind_of({"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGenerationWithPointer"]})
    'qwen2_vl+pointer'
    """
    model_type = str(fields.get("model_type"))
    classes = fields.get("architectures") or ()
    names_pointer = isinstance(classes, list | tuple) and any(
        str(name).endswith("WithPointer") for name in classes
    )
    has_pointer = names_pointer or fields.get("pointer_pad_token_id") is not None
    return model_type + WITH_POINTER if has_pointer else model_type


def check_family(source: str) -> None:
    """Refuses a folder whose config.json is that of another kind of model, before any library is loaded.

    Raises:
        CheckpointError: as said; or the file cannot be read.
    """
    file = Path(source) / registry.CONFIGS["points"]
    if not is_file(file):
        return  # on the hub
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"expected a config.json that is JSON in {source}, got: {error}") from error
    stated = fields if isinstance(fields, dict) else {}
    if kind_of(stated) not in BACKENDS:
        raise CheckpointError(_unknown(stated.get("model_type"), source))


def check_kind(kind: str, source: str) -> None:
    """Refuses a kind without a row.

    Args:
        kind: as `kind_of` tells it.
        source: where it was found, for the message.

    Raises:
        CheckpointError: there is no such family.
    """
    if kind not in BACKENDS:
        raise CheckpointError(_unknown(kind, source))


def _unknown(model_type: Any, source: str) -> str:
    got = "none" if model_type is None else repr(model_type)
    return (
        f"expected a checkpoint with a model_type of {', '.join(BACKENDS)}, got model_type {got} at {source!r}; "
        "choose a model of one of these families"
    )
