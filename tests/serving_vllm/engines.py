"""Engines of vLLM for tests, and what is asked of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import molmopoint
from molmopoint.backends.result import PointingResult
from molmopoint.data.synthetic import sample_scene
from molmopoint.pipeline import Pointer

SMALL: dict[str, Any] = {
    "enforce_eager": True,
    "max_model_len": 1024,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 1024,
    "disable_log_stats": True,
}
"""A small engine that starts soon."""

TOLERANCE = {"float32": 2e-3, "bfloat16": 0.1}
"""Of scores; in bfloat16 kernels of the two round at other places."""


def questions(count: int, seed: int = 7) -> list[tuple[Any, str]]:
    """Pictures of synthetic scenes, each with up to three questions."""
    asked: list[tuple[Any, str]] = []
    while len(asked) < count:
        scene = sample_scene(np.random.default_rng(seed))
        asked += [(scene.image, query.prompt) for query in scene.queries[:3]]
        seed += 1
    return asked[:count]


@contextmanager
def engine(model: str = "nano", dtype: str = "float32", **options: Any) -> Iterator[Pointer]:
    """A pointer on an engine of its own, which ends."""
    pointer = molmopoint.load(model, dtype=dtype, engine="vllm", engine_options={**SMALL, **options})
    try:
        yield pointer
    finally:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        core = pointer.model.engine.llm_engine.engine_core
        core.shutdown()
        pointer.model.engine = None
        gc.collect()
        cleanup_dist_env_and_memory()


def state_of(pointer: Pointer) -> Any:
    """The state of requests, of an engine in this process."""
    core = pointer.model.engine.llm_engine.engine_core.engine_core
    return core.model_executor.driver_worker.worker.model_runner.model_state


def answers(pointer: Pointer, asked: Sequence[tuple[Any, str]], **options: Any) -> list[PointingResult]:
    """Results of all questions at once."""
    pictures = [picture for picture, _ in asked]
    prompts = [prompt for _, prompt in asked]
    found = []
    for result in pointer.point_batch(pictures, prompts, batch_size=len(asked), **options):
        assert isinstance(result, PointingResult), result
        found.append(result)
    return found


def assert_equal(
    found: Sequence[PointingResult], wanted: Sequence[PointingResult], dtype: str = "float32"
) -> None:
    """The same answers, points and, closely, scores."""
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        assert got.raw_text == want.raw_text, want.prompt
        np.testing.assert_allclose(got.points.xy, want.points.xy, atol=1e-6)
        np.testing.assert_allclose(got.points.score, want.points.score, atol=TOLERANCE[dtype])
        assert (got.truncated, got.invalid) == (want.truncated, want.invalid)
