"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
from tiny import random_model

from molmopoint.modeling import MolmoPointForConditionalGeneration


@pytest.fixture(scope="session")
def tiny_model() -> MolmoPointForConditionalGeneration:
    """Shared: tests that change it make their own."""
    return random_model()
