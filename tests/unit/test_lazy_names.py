"""Rooms whose public names are imported when they are first used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

LAZY = (
    "molmopoint.backends",
    "molmopoint.data",
    "molmopoint.training",
    "molmopoint.screens",
    "molmopoint.eval",
    "molmopoint.serving",
)


@pytest.mark.parametrize("room", LAZY)
def test_every_public_name_is_there(room: str):
    if room == "molmopoint.serving":
        pytest.importorskip("fastapi")
    module = importlib.import_module(room)
    assert set(module.__all__) == set(module._HOMES) <= set(dir(module))
    for name in module.__all__:
        home = importlib.import_module(f"{room}.{module._HOMES[name]}")
        assert getattr(module, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="public names"):
        _ = module.nothing


def test_importing_a_room_loads_nothing_of_it():
    loads = "pydantic", "torch", "playwright"
    code = f"import sys, {', '.join(LAZY)}; sys.exit(any(name in sys.modules for name in {loads}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
