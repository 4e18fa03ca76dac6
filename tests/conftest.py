"""Fixtures shared by all tests, and how the tests are run. The process that only hands them out never needs
torch: fixtures import.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from molmopoint.modeling import MolmoPointForConditionalGeneration

# Time says nothing on a busy machine, so no property fails for it. What hypothesis sets on a CI machine
# stays.
settings.register_profile(
    "molmopoint", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("molmopoint")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """The whole suite runs in one process per core, named files in one: a worker takes longer to start than a
    file to run.
    """
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers, and what they start, share the cores
    return None


@pytest.fixture(scope="session")
def tiny_model() -> MolmoPointForConditionalGeneration:
    """Shared: tests that change it make their own."""
    from tiny import random_model

    return random_model()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved toy model with its processor; nobody writes into it."""
    from toy_pointer import toy_pointer

    path = tmp_path_factory.mktemp("toy")
    pointer = toy_pointer()
    pointer.model.save_pretrained(path)
    pointer.processor.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def molmo2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Molmo2 with the files of transformers' own processor; nobody writes into it."""
    from tiny_molmo2 import molmo2_processor, random_molmo2

    path = tmp_path_factory.mktemp("molmo2")
    random_molmo2().save_pretrained(path)
    molmo2_processor().save_pretrained(path)
    return path
