"""`molmopoint serve` as a process: it says where it is, ends on a signal, and a hard end loses only what ran."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

import molmopoint
from molmopoint.eval.speed.serve import Soak, served

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
PROMPT = "the red circles"

pytestmark = pytest.mark.slow


def test_a_signal_ends_it(tmp_path: Path):
    with served("nano", 1) as server:
        assert httpx.get(f"{server.address}/health").json()["status"] == "ok"
        os.kill(server.process, signal.SIGTERM)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                httpx.get(f"{server.address}/health")
            except httpx.TransportError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the server goes on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_in_order_is_code_0(number: int):
    command = [sys.executable, "-m", "molmopoint", "serve", "nano", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1]
        until = time.monotonic() + 60
        while httpx.get(f"{address}/health").status_code != httpx.codes.OK:
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(30) == 0


def test_a_hard_end_loses_only_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with (
        served("nano", 1) as server,
        served("nano", 1) as other,
        ThreadPoolExecutor(8) as pool,
        molmopoint.Client(server.address, timeout=60) as client,
        molmopoint.Client(other.address) as spare,
    ):
        expected = client.point(SHAPES, PROMPT).points.xy
        under_way = [pool.submit(client.point, SHAPES, PROMPT) for _ in range(32)]
        while not any(each.done() for each in under_way):
            time.sleep(0.002)
        os.kill(server.process, signal.SIGKILL)
        errors = [each.exception(30) for each in under_way]
        lost = [error for error in errors if error is not None]
        assert lost and all(isinstance(error, httpx.TransportError) for error in lost), "none hangs"
        answered = [each.result() for each in under_way if each.exception() is None]
        for result in (*answered, spare.point(SHAPES, PROMPT)):
            np.testing.assert_allclose(result.points.xy, expected, atol=1e-3)
        with pytest.raises(httpx.TransportError):
            client.point(SHAPES, PROMPT)
    assert not list(tmp_path.iterdir()), "it left nothing behind"
    with served("nano", 1) as server, molmopoint.Client(server.address) as client:
        np.testing.assert_array_equal(client.point(SHAPES, PROMPT).points.xy, expected)


def test_a_short_soak():
    import asyncio

    with served("nano", 1) as server:
        found = asyncio.run(Soak(server, 32).run(300, 0.0))
    assert found["requests"] >= 300 and found["different"] == found["failed"] == 0, found


def test_a_model_that_cannot_be_loaded_ends_it(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    command = [sys.executable, "-m", "molmopoint", "serve", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3 and "expected" in done.stderr, done.stderr
