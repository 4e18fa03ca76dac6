"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tiny import random_model
from tiny_molmo2 import molmo2_processor, random_molmo2
from toy_pointer import toy_pointer

from molmopoint.modeling import MolmoPointForConditionalGeneration

# Time says nothing on a busy machine, so no property fails for it. What hypothesis sets on a CI machine stays.
settings.register_profile("molmopoint", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("molmopoint")


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


@pytest.fixture(scope="session")
def molmo2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Molmo2 with the files of transformers' own processor; nobody writes into it."""
    path = tmp_path_factory.mktemp("molmo2")
    random_molmo2().save_pretrained(path)
    molmo2_processor().save_pretrained(path)
    return path
