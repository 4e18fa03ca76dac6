"""What `compile=True` needs, told before a model is read.

torch writes C++ for a processor and Triton for a GPU, and has it compiled by a program of the machine.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmopoint.errors import CheckpointError

if TYPE_CHECKING:
    import torch

ATTENTION = "sdpa"
"""The one attention whose steps are compiled."""

FORM = "nf4"
"""The one form of weights in fewer bits whose layers have been tried in graphs."""

_WITHOUT = "or leave compile out"


def check_compile(value: Any, attn_implementation: str | None, quantize: str | None) -> None:
    """Refuses what cannot be meant. Loads no library.

    Args:
        value: of the argument `compile`.
        attn_implementation: that was asked for; None for the default.
        quantize: as in `molmopoint.load`.

    Raises:
        CheckpointError: neither True nor False, or with another attention than SDPA, or with another form of
            weights in fewer bits.
    """
    if not isinstance(value, bool):
        raise CheckpointError(f"expected compile to be True or False, got {value!r:.80}; pass one of them")
    if value and attn_implementation not in (None, ATTENTION):
        raise CheckpointError(
            f"expected attn_implementation={ATTENTION!r} with compile=True, got {attn_implementation!r}; "
            f"leave it out, {_WITHOUT}"
        )
    if value and quantize not in (None, FORM):
        raise CheckpointError(
            f"expected quantize={FORM!r} or none with compile=True, got {quantize!r}, which has not been tried in "
            f"graphs; take {FORM!r}, {_WITHOUT}"
        )


def check_tools(device: torch.device | None) -> None:
    """Checks that torch finds what it compiles with.

    Args:
        device: of the model; None where it is spread over several.

    Raises:
        CheckpointError: no compiler, none of the files it needs, or several devices.
    """
    if device is None:
        raise CheckpointError(
            f"expected one device with compile=True, got a device map; pass device=, {_WITHOUT}"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise CheckpointError(
            f"expected the package triton for compile=True on {device}, got none; pip install triton, {_WITHOUT}"
        )
    compiler = _compiler()
    if shutil.which(compiler) is None:
        raise CheckpointError(
            f"expected a C++ compiler for compile=True, got no program {compiler!r}; install one (such as the "
            f"package g++), name it in the environment variable CXX, {_WITHOUT}"
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if device.type == "cpu" and not header.is_file():
        raise CheckpointError(
            f"expected the headers of Python for compile=True, got no {header}; install them (such as the "
            f"package python3-dev), {_WITHOUT}"
        )


def _compiler() -> str:
    """The program that torch compiles C++ with."""
    named = os.environ.get("CXX", "").strip()
    if named:
        try:
            return shlex.split(named)[0]
        except ValueError:  # a quotation mark without its other
            return named
    return {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
