"""One place per instruction, from a model here and from a server, or none."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import molmopoint
from molmopoint.agents import AgentError, TargetNotFound, find_target, predict_click
from molmopoint.agents.targets import without_verb
from molmopoint.errors import ProcessingError
from molmopoint.pipeline import Pointer
from molmopoint.serving import Client

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def remote(pointer: Pointer) -> Iterator[Client]:
    """The same model behind a server."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    from molmopoint.serving import app

    server = uvicorn.Server(uvicorn.Config(app({"nano": pointer}), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client:
        yield client
    server.should_exit = True
    thread.join()


def test_the_likeliest_place_is_clicked(pointer: Pointer):
    result = pointer.point(SHAPES, "the red circles", single=True)
    target = find_target(pointer, SHAPES, "click on the red circles")
    point = result.points[0]
    assert (target.x, target.y, target.score, target.absent) == (
        point.x,
        point.y,
        point.score,
        result.absent,
    )
    assert predict_click(SHAPES, "the red circles", pointer=pointer) == (int(point.x), int(point.y))


def test_a_server_gives_the_same_target(pointer: Pointer, remote: Client):
    here = find_target(pointer, SHAPES, "the red circles")
    there = find_target(remote, SHAPES, "the red circles")
    assert (there.x, there.y) == pytest.approx((here.x, here.y))
    assert (there.score, there.absent) == pytest.approx((here.score, here.absent), abs=1e-4)


def test_it_abstains_where_it_is_not_sure(pointer: Pointer):
    with pytest.raises(TargetNotFound, match="score of at least 1") as caught:
        find_target(pointer, SHAPES, "the red circles", min_score=1.0)
    assert caught.value.best is not None and caught.value.best.score < 1
    with pytest.raises(TargetNotFound, match="not there"):
        find_target(pointer, SHAPES, "the red circles", min_score=0.0, max_absent=0.0)
    assert predict_click(SHAPES, "the red circles", pointer=pointer, min_score=1.0) is None


def test_wrong_arguments(pointer: Pointer):
    with pytest.raises(AgentError, match="min_score from 0 to 1"):
        find_target(pointer, SHAPES, "x", min_score=2)
    with pytest.raises(ProcessingError, match="empty"):
        find_target(pointer, SHAPES, " ")


VERBS = {
    "click the Save button": "the Save button",
    "Click on the Save button": "the Save button",
    "Please double-click the icon": "the icon",
    "right click report.pdf": "report.pdf",
    "tap Save": "Save",
    "the Click button": "the Click button",
    "press release": "release",
    "pressed flowers": "pressed flowers",
    "clicks": "clicks",
}


@pytest.mark.parametrize("instruction", VERBS)
def test_verbs_before_a_name_are_left_out(instruction: str):
    assert without_verb(instruction) == VERBS[instruction]


def test_cua_calls_the_agent(pointer: Pointer, remote: Client):
    from molmopoint.agents import cua

    agent = cua.MolmoPointAgent()
    picture = base64.b64encode(SHAPES.read_bytes()).decode()
    here = asyncio.run(agent.predict_click("molmopoint/nano", picture, "the red circles"))
    assert here == predict_click(SHAPES, "the red circles", pointer=pointer)
    address = str(remote._http.base_url).rstrip("/") + "/v1"
    there = agent.predict_click("molmopoint/nano", picture, "the red circles", api_base=address)
    assert asyncio.run(there) == here
    cua._pointer("nano", address, None).close()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AgentError, match="PLANNER"):
        asyncio.run(agent.predict_step([], "molmopoint/nano"))
    assert agent.get_capabilities() == ["click"]


@pytest.mark.skipif(importlib.util.find_spec("cua_agent") is None, reason="cua is not installed")
@pytest.mark.filterwarnings("ignore")
def test_cua_finds_the_agent():
    from cua_agent.decorators import find_agent_config

    from molmopoint.agents import cua

    found = find_agent_config("molmopoint/allenai/MolmoPoint-GUI-8B")
    assert found is not None and found.agent_class is cua.MolmoPointAgent
    paired = find_agent_config("molmopoint/nano-screens+anthropic/claude-sonnet-4-5")
    assert paired is not None and paired.agent_class is not cua.MolmoPointAgent
