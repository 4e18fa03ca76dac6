"""Two models of one process under mixed load, and what a server counts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_server import live_server
from prometheus_client.parser import text_string_to_metric_families

import molmopoint
from molmopoint.pipeline import Pointer
from molmopoint.serving import Limits
from molmopoint.serving.messages import ServerError

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
PROMPTS = ("the red circles", "the blue square", "the green triangle")
QUESTION = "How many circles are there?"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


def figures(address: str) -> dict[tuple[str, ...], float]:
    """Values of /metrics by name and values of labels."""
    text = httpx.get(f"{address}/metrics").text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[(sample.name, *sorted(sample.labels.values()))] = sample.value
    return found


def test_two_models_answer_as_each_does_alone(pointer: Pointer):
    models = {"nano": pointer, "nano-screens": molmopoint.load("nano-screens", device_map="cpu")}
    asked = [(name, prompt) for name in models for prompt in PROMPTS]
    expected = {pair: models[pair[0]].point(SHAPES, pair[1]) for pair in asked}
    words = models["nano"].ask(SHAPES, QUESTION)
    first, second = (expected[name, PROMPTS[0]].points.score for name in models)
    assert not np.array_equal(first, second), "the models differ, so a mix-up would show"
    order = np.random.default_rng(0).permutation(len(asked) * 2) % len(asked)
    with live_server(models) as address:
        clients = {name: molmopoint.Client(address, model=name) for name in models}

        def answer(number: int) -> Any:
            name, prompt = asked[number]
            kind = number % 3
            if kind == 0:
                assert clients["nano"].ask(SHAPES, QUESTION) == words
            if kind == 1:
                stream = clients[name].stream(SHAPES, prompt)
                assert list(stream) is not None
                return stream.result
            return clients[name].point(SHAPES, prompt)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(answer, order.tolist()))
        counted = figures(address)
        for client in clients.values():
            client.close()
    for number, given in zip(order, answers, strict=True):
        wanted = expected[asked[number]]
        assert given.text == wanted.text
        np.testing.assert_allclose(given.points.xy, wanted.points.xy, atol=1e-3)
        np.testing.assert_allclose(given.points.score, wanted.points.score, atol=1e-4)
    for name in models:
        assert counted["molmopoint_answer_seconds_count", name] >= 6
        assert counted["molmopoint_open_requests", name] == 0


def test_figures_move(pointer: Pointer, monkeypatch: pytest.MonkeyPatch):
    begun, go = threading.Event(), threading.Event()
    answer = pointer.backend.answer

    def held(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return answer(*arguments, **options)

    monkeypatch.setattr(pointer.backend, "answer", held)
    with (
        live_server({"nano": pointer}, limits=Limits(batch=1)) as address,
        molmopoint.Client(address) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        before = figures(address)
        assert not [key for key in before if key[0] == "molmopoint_requests_total" and "/v1/point" in key]
        waiting = [pool.submit(client.point, SHAPES, PROMPTS[0]) for _ in range(3)]
        assert begun.wait(30)
        until = time.monotonic() + 20
        while figures(address)["molmopoint_queue", "nano"] != 2:
            assert time.monotonic() < until, "one is answered, two wait"
            time.sleep(0.02)
        assert figures(address)["molmopoint_open_requests", "nano"] == 3
        go.set()
        results = [each.result() for each in waiting]
        results.append(client.point(SHAPES, PROMPTS[0]))
        with pytest.raises(ServerError):
            client.point(SHAPES, PROMPTS[0], max_points=10**6)
        with pytest.raises(ServerError):
            client.point(SHAPES, PROMPTS[0], unknown=1)
        after = figures(address)
    assert all(result.text for result in results)
    assert after["molmopoint_requests_total", "/v1/point", "200"] == 4
    of_route = [
        value for key, value in after.items() if key[:2] == ("molmopoint_requests_total", "/v1/point")
    ]
    assert sum(of_route) == 6
    errors = {key: value for key, value in after.items() if key[0] == "molmopoint_errors_total"}
    assert sum(errors.values()) == 2, errors
    assert after["molmopoint_queue", "nano"] == after["molmopoint_open_requests", "nano"] == 0
    assert after["molmopoint_tokens_total", "completion", "nano"] > 10
    assert after["molmopoint_batches_total", "1", "nano"] == 4
    assert after["molmopoint_answer_seconds_count", "nano"] == 4
    assert after["molmopoint_cached_pictures_total", "nano"] >= 1, "the picture is known"
    for stage in ("prepare", "encode", "answer"):
        key = ("molmopoint_stage_seconds_total", *sorted(("nano", stage)))
        assert after[key] > before[key]
