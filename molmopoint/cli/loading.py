"""Loading the model of a command."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.markup import escape

from molmopoint.cli import console
from molmopoint.errors import MolmoPointError
from molmopoint.lazy import without_collecting

if TYPE_CHECKING:
    from molmopoint.pipeline import Pointer

LOADING_FAULTS = (MolmoPointError, OSError, ImportError, RuntimeError, ValueError)
"""What loading may raise where a name, a file or a device is not what it should be."""


def load_pointer(
    model: str,
    dtype: str | None,
    device: str | None,
    quantize: str | None = None,
    compile_steps: bool = False,
) -> Pointer:
    """The model, with a note on stderr while it loads, and the libraries of models before it.

    Args:
        model: zoo name, hub id or folder.
        dtype: precision, None for the default.
        device: None for the default.
        quantize: None for weights as they are.
        compile_steps: make graphs of the steps of answers.
    """
    started = time.perf_counter()
    with console.notes().status(f"Loading {escape(model)} ..."):
        from molmopoint.pipeline import load

        with without_collecting():
            from transformers.utils import logging

        logging.disable_progress_bar()
        # An option is a member of an enumeration, which messages would show as such.
        form = None if quantize is None else str(quantize)
        pointer = load(model, dtype=dtype, device_map=device, quantize=form, compile=compile_steps)
    console.detail(f"loaded {pointer!r} in {time.perf_counter() - started:.1f} s")
    return pointer
