"""Tests that run vLLM itself; `.ci/vllm` makes an environment for them. Elsewhere they are left out."""

import importlib.util
import os

import pytest

# vLLM fills memory by a share of it unless it is told, and prints much.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]


@pytest.fixture(scope="session")
def library():
    """The same model on this library's own network."""
    import molmopoint

    return molmopoint.load("nano", device="cpu", dtype="float32")
