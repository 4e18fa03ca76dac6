"""Names at the top of a room that are imported when they are first used, so that the room costs nothing before."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_collecting() -> Iterator[None]:
    """Pauses Python's search for reference cycles while libraries are imported.

    The three thousand modules of torch and transformers stay for good, so there is nothing to find among
    them; looking all the same takes a fifth of the processor time of an import.
    """
    if not gc.isenabled():  # it is paused already, or whoever runs us wants it so
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def lazy_names(room: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a room.

    Args:
        room: its module name.
        homes: modules of the room that define its public names, by name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(
                f"module {room!r} has no attribute {name!r}; public names: {', '.join(homes)}"
            )
        with without_collecting():
            value = getattr(importlib.import_module(f"{room}.{homes[name]}"), name)
        setattr(sys.modules[room], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[room]), *homes})

    return get, names
