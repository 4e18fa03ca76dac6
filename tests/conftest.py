"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import random_model
from toy_pointer import toy_pointer

from molmopoint.modeling import MolmoPointForConditionalGeneration


@pytest.fixture(scope="session")
def tiny_model() -> MolmoPointForConditionalGeneration:
    """Shared: tests that change it make their own."""
    return random_model()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved toy model with its processor; nobody writes into it."""
    path = tmp_path_factory.mktemp("toy")
    pointer = toy_pointer()
    pointer.model.save_pretrained(path)
    pointer.processor.save_pretrained(path)
    return path
