"""Model families: everything that differs between them, and the choice among them.

A family is a subclass of `Backend` in a module of its own and a row of `BACKENDS`. Names are imported when
they are first used: options of a call can be checked before the libraries of models are loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.backends.base import Backend, Events, PointWriter
    from molmopoint.backends.families import (
        backend_class,
        backend_class_of,
        backend_of,
        family_of_model,
        reading,
    )
    from molmopoint.backends.options import AnswerOptions, complete_prompt
    from molmopoint.backends.table import BACKENDS

__all__ = [
    "BACKENDS",
    "AnswerOptions",
    "Backend",
    "Events",
    "PointWriter",
    "backend_class",
    "backend_class_of",
    "backend_of",
    "complete_prompt",
    "family_of_model",
    "reading",
]

_HOMES = {
    "BACKENDS": "table",
    "AnswerOptions": "options",
    "Backend": "base",
    "Events": "base",
    "PointWriter": "base",
    "backend_class": "families",
    "backend_class_of": "families",
    "backend_of": "families",
    "complete_prompt": "options",
    "family_of_model": "families",
    "reading": "families",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
