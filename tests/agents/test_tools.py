"""The tools of `molmopoint mcp`, asked by the protocol's own client over stdio and HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("mcp", reason="the extra serve is not installed")

from mcp import Client, StdioServerParameters, stdio_client

import molmopoint
from molmopoint.agents.folders import Sources
from molmopoint.agents.tools import tool_server
from molmopoint.cli.app import app as commands
from molmopoint.pipeline import Pointer

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "examples" / "images"
PROMPT = "the red circles"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def command(*options: str) -> list[str]:
    return ["-m", "molmopoint", "mcp", "--allow-folder", str(IMAGES), *options]


def data_of(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


async def check(client: Client, pointer: Pointer) -> None:
    """Every tool for pictures gives the answers of the pointer."""
    listed = await client.list_tools()
    assert {tool.name for tool in listed.tools} == {"point", "count", "ask", "click_target", "track"}
    expected = pointer.point(IMAGES / "shapes.png", PROMPT)
    for image in ("shapes.png", str(IMAGES / "shapes.png"), data_of(IMAGES / "shapes.png")):
        answer = await client.call_tool("point", {"image": image, "prompt": PROMPT})
        assert not answer.is_error
        told = answer.structured_content or {}
        assert json.loads(text_of(answer)) == told
        found = [(point["x"], point["y"]) for point in told["points"]]
        np.testing.assert_allclose(found, expected.points.xy, atol=0.01)
        with Image.open(io.BytesIO(base64.b64decode(answer.content[1].data))) as drawn:
            assert drawn.size == expected.image_sizes[0]
    count = await client.call_tool("count", {"image": "shapes.png", "phrase": "red circles"})
    assert count.structured_content == {"count": 2}
    question = "How many circles are there?"
    said = await client.call_tool("ask", {"image": "shapes.png", "question": question})
    assert said.structured_content == {"answer": pointer.ask(IMAGES / "shapes.png", question)}
    clicked = await client.call_tool(
        "click_target", {"image": "shapes.png", "instruction": "click the red circles", "annotated": True}
    )
    single = pointer.point(IMAGES / "shapes.png", PROMPT, single=True).points[0]
    told = clicked.structured_content or {}
    assert told["found"] and (told["x"], told["y"]) == pytest.approx((single.x, single.y), abs=0.01)
    refused = await client.call_tool("point", {"image": "../../README.md", "prompt": PROMPT})
    assert refused.is_error and "inside" in text_of(refused)


def text_of(answer: Any) -> str:
    return answer.content[0].text


def test_over_stdio(pointer: Pointer):
    async def run() -> None:
        server = StdioServerParameters(command=sys.executable, args=command(), env=environment())
        async with Client(stdio_client(server)) as client:
            await check(client, pointer)

    asyncio.run(run())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server in a process of its own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *command("--http", "--port", str(port))],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        for _ in range(300):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_over_http(pointer: Pointer, address: str):
    async def run() -> None:
        async with Client(address) as client:
            await check(client, pointer)

    asyncio.run(run())


def test_other_hosts_are_refused(address: str):
    httpx = pytest.importorskip("httpx")
    asked = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accepted = {"accept": "application/json, text/event-stream"}
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        answer = httpx.post(address, json=asked, headers={**accepted, **headers})
        assert answer.status_code in (403, 421)


@asynccontextmanager
async def tools_of(pointer: Any, sources: Sources | None = None) -> AsyncIterator[Client]:
    async with Client(tool_server(pointer, sources)) as client:
        yield client


def test_a_clip_is_followed(pointer: Pointer, tmp_path: Path):
    pytest.importorskip("av")
    from films import write_film

    path = write_film(tmp_path / "clip.mp4")
    expected = pointer.track(path, PROMPT)

    async def run() -> None:
        async with tools_of(pointer, Sources.of([tmp_path])) as client:
            answer = await client.call_tool("track", {"video": "clip.mp4", "prompt": PROMPT})
            assert not answer.is_error, text_of(answer)
            assert (answer.structured_content or {})["tracks"] == expected.tracks.to_dict()
            gone = await client.call_tool("track", {"video": "none.mp4", "prompt": PROMPT})
            assert gone.is_error

    asyncio.run(run())


BAD = [
    ("point", {"image": "data:image/png;base64,AAAA", "prompt": PROMPT}),
    ("point", {"image": "data:image/png;base64,AAAA"}),
    ("point", {"image": 3, "prompt": PROMPT}),
    ("point", {"image": data_of(IMAGES / "shapes.png"), "prompt": "  "}),
    ("point", {"image": data_of(IMAGES / "shapes.png"), "prompt": PROMPT, "max_points": 10**9}),
    ("point", {"image": data_of(IMAGES / "shapes.png"), "prompt": PROMPT, "min_score": 2}),
    ("click_target", {"image": data_of(IMAGES / "shapes.png"), "instruction": ""}),
    ("ask", {"image": "/etc/passwd", "question": "what?"}),
    ("no_such_tool", {}),
]


def test_bad_calls_are_told_and_the_server_goes_on(pointer: Pointer):
    async def run() -> None:
        async with tools_of(pointer) as client:
            for name, arguments in BAD:
                answer = await client.call_tool(name, arguments)
                assert answer.is_error, (name, arguments)
            assert len((await client.list_tools()).tools) == 5

    asyncio.run(run())


def test_nothing_is_clicked_where_the_model_is_not_sure(pointer: Pointer):
    async def run() -> None:
        async with tools_of(pointer) as client:
            asked = {"image": data_of(IMAGES / "shapes.png"), "instruction": PROMPT, "min_score": 1.0}
            answer = await client.call_tool("click_target", asked)
            told = answer.structured_content or {}
            assert told["found"] is False and "score" in told["reason"]

    asyncio.run(run())


def test_wrong_usage_of_the_command(tmp_path: Path):
    run = CliRunner().invoke
    assert run(commands, ["mcp", "--allow-folder", str(tmp_path / "none")]).exit_code == 2
    assert run(commands, ["mcp", "--model", "no-such-model"]).exit_code == 3
