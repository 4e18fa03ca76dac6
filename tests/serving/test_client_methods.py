"""Clients have the methods of a `Pointer`, with its options and its answers; what stays with the model is named."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_server import live_server
from PIL import Image

import molmopoint
from molmopoint.errors import ProcessingError
from molmopoint.pipeline import Pointer
from molmopoint.serving.messages import ServerError

IMAGES = Path(__file__).resolve().parents[2] / "examples" / "images"
SHAPES = IMAGES / "shapes.png"
PROMPT, OTHER = "the red circles", "the blue square"
QUESTION = "How many circles are there?"

STAYS_WITH_THE_MODEL = {
    "to": "a server has its devices",
    "through": "a server has its queue",
    "backend": "the model is not here",
}
OPTIONS_THAT_STAY = {
    "on_phase": "times are in /metrics",
    "subtitles": "its files are here",
    "timestamps": "a file has them",
    "history": "for clips alone",
}


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def address(pointer: Pointer) -> Iterator[str]:
    with live_server({"nano": pointer}) as found:
        yield found


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("client", [molmopoint.Client, molmopoint.AsyncClient])
def test_every_method_is_there_or_named(client: type):
    assert public(Pointer) - public(client) == STAYS_WITH_THE_MODEL.keys()
    for name in public(Pointer) & public(client):
        wanted = inspect.signature(getattr(Pointer, name)).parameters
        has = inspect.signature(getattr(client, name)).parameters
        takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in has.values())
        missing = {option for option in wanted if option not in has and not takes_all}
        assert not missing, f"{client.__name__}.{name} has {missing}"


def test_both_clients_have_the_same():
    closing = {"close"}
    assert public(molmopoint.Client) == public(molmopoint.AsyncClient) >= closing


def test_options_that_stay_are_refused_by_name(address: str):
    video = IMAGES / "no.mp4"
    with molmopoint.Client(address) as client:
        asked = {
            "on_phase": lambda: list(client.point_batch([SHAPES], PROMPT, on_phase=print)),
            "subtitles": lambda: client.point_video(video, PROMPT, subtitles="a.srt"),
            "timestamps": lambda: client.track(video, PROMPT, timestamps=[0.0]),
            "history": lambda: client.point_video(video, PROMPT, history=[("a", "b")]),
        }
        assert asked.keys() == OPTIONS_THAT_STAY.keys()
        for name, ask in asked.items():
            with pytest.raises(ProcessingError, match=f"expected no {name} for a"):
                ask()
        with pytest.raises(ProcessingError, match="got a video"):
            client.ask(None, QUESTION, video="a.mp4")
        for batch in (client.point_batch, client.track_batch):
            with pytest.raises(ProcessingError, match="batch_size"):
                batch([SHAPES], PROMPT, batch_size=0)
            with pytest.raises(ProcessingError, match="on_error"):
                batch([SHAPES], PROMPT, on_error="never")  # type: ignore[arg-type]


def test_answers_in_words_come_in_pieces(address: str, pointer: Pointer):
    expected = pointer.ask(SHAPES, QUESTION)
    with molmopoint.Client(address) as client:
        stream = client.ask_stream(SHAPES, QUESTION)
        assert stream.result is None
        assert "".join(stream).strip() == expected
        assert stream.result is not None and stream.result.text == expected
        with client.ask_stream(SHAPES, "Point to the red circles") as pointed:
            assert all(isinstance(piece, str) for piece in pointed)
        assert pointed.result is not None and len(pointed.result.points) == 2
        with client.ask_stream(SHAPES, QUESTION) as left:
            next(left)
        assert not list(left)

    async def ask() -> None:
        async with molmopoint.AsyncClient(address) as client:
            stream = client.ask_stream(SHAPES, QUESTION)
            assert "".join([piece async for piece in stream]).strip() == expected
            assert stream.result is not None and stream.result.text == expected

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore:the model knows one turn")
def test_follow_up_turns(address: str, pointer: Pointer):
    first = pointer.point(SHAPES, PROMPT)
    expected = pointer.point(SHAPES, PROMPT, history=[(first.prompt, first.points)])
    words = pointer.ask(SHAPES, QUESTION, history=[("What is this?", "Shapes.")])
    with molmopoint.Client(address) as client:
        sent = client.point(SHAPES, PROMPT)
        for history in ([first], [sent], [(first.prompt, first.points)]):
            found = client.point(SHAPES, PROMPT, history=history)
            np.testing.assert_allclose(found.points.xy, expected.points.xy, atol=1e-3)
            np.testing.assert_allclose(found.points.score, expected.points.score, atol=1e-4)
        assert not np.array_equal(found.points.score, sent.points.score), "turns reach the model"
        assert client.ask(SHAPES, QUESTION, history=[("What is this?", "Shapes.")]) == words
        stream = client.stream(SHAPES, PROMPT, history=[sent])
        assert len([event for event in stream if not isinstance(event, str)]) == len(expected.points)
        with pytest.raises(ProcessingError, match="earlier turns"):
            client.point(SHAPES, PROMPT, history=["words"])


POINT = {"x": 10, "y": 10}


@pytest.mark.filterwarnings("ignore:the model knows one turn")
@pytest.mark.parametrize(
    ("turn", "status"),
    [
        ({"prompt": "a", "points": [POINT | {"x": 1e9}]}, 400),
        ({"prompt": "a", "points": [POINT | {"image": 5}]}, 400),
        ({"prompt": "a", "points": [POINT | {"image": 2**40}]}, 422),
        ({"prompt": "a", "points": [POINT | {"x": "Infinity"}]}, 422),
        ({"prompt": "a", "points": []}, 422),
        ({"prompt": "a"}, 422),
        ({"prompt": "a", "points": [POINT], "text": "b"}, 422),
        ({"prompt": "a", "text": "b" * 20_000}, 400),
        ({"prompt": "a", "text": "b", "video": "c"}, 422),
    ],
)
@pytest.mark.parametrize("path", ["/v1/point", "/v1/query"])
def test_turns_that_cannot_be(address: str, turn: dict[str, Any], status: int, path: str):
    with molmopoint.Client(address) as client:
        pictures = list(client.encode(SHAPES).addresses)
    text = "question" if path == "/v1/query" else "prompt"
    answer = httpx.post(address + path, json={"images": pictures, text: PROMPT, "history": [turn]})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"].startswith("expected")


def test_pictures_are_read_once(address: str, pointer: Pointer, tmp_path: Path):
    file = tmp_path / "shapes.png"
    file.write_bytes(SHAPES.read_bytes())
    expected = pointer.point(SHAPES, PROMPT)
    with molmopoint.Client(address) as client:
        seen = client.encode(file)
        several = client.encode([file, file], max_crops=1)
        assert seen.image_sizes == expected.image_sizes and len(several) == 2 and several.as_list
        file.unlink()
        result = client.point(seen, PROMPT)
        np.testing.assert_allclose(result.points.xy, expected.points.xy)
        assert client.count(seen, "red circles") == pointer.count(SHAPES, "red circles")
        first, second = client.point_batch(seen, [PROMPT, OTHER])
        assert not isinstance(first, Exception) and first.text == expected.text
        assert not isinstance(second, Exception) and second.prompt == "Point to the blue square"
        assert getattr(result.draw(), "size", None) == expected.image_sizes[0]
        assert len(client.point(several, PROMPT).image_sizes) == 2
        with pytest.raises(ProcessingError, match="max_crops as encoded"):
            client.point(several, PROMPT, max_crops=2)
        with pytest.raises(ProcessingError, match="use `point`"):
            client.point_batch(seen, PROMPT)
        with pytest.raises(ProcessingError, match="expected a picture to encode"):
            client.encode(None)

    async def ask() -> None:
        async with molmopoint.AsyncClient(address) as client:
            ready = await client.encode(SHAPES)
            found = await client.point(ready, [PROMPT, OTHER])
            assert [each.prompt for each in found] == ["Point to the red circles", "Point to the blue square"]
            assert found[0].text == expected.text
            stream = client.stream(ready, PROMPT)
            assert [event async for event in stream] and stream.result is not None
            np.testing.assert_allclose(stream.result.points.xy, expected.points.xy)

    asyncio.run(ask())


def test_files_are_sent_as_they_are(address: str, monkeypatch: pytest.MonkeyPatch):
    """Decoding costs more than sending: only what is drawn on is decoded, here by the server's threads alone."""
    import molmopoint.serving.sent_pictures as sent_pictures

    decoded: list[str] = []
    load = sent_pictures.load_picture

    def noted(source: Any) -> Image.Image:
        decoded.append(threading.current_thread().name)
        return load(source)

    monkeypatch.setattr(sent_pictures, "load_picture", noted)
    with molmopoint.Client(address) as client:
        results = [client.point(source, PROMPT) for source in (SHAPES, str(SHAPES), SHAPES.read_bytes())]
        assert not decoded
        results[0].draw()
        assert len(decoded) == 1
        client.point(np.asarray(Image.open(SHAPES).convert("RGB")), PROMPT)
        assert len(decoded) == 2, "what is no file is made one"
        with pytest.raises(ServerError, match="picture"):
            client.point(SHAPES.read_bytes()[:500], PROMPT)
        for broken in (b"", b"no picture", "missing.png", IMAGES, "https://example.org/a.png"):
            with pytest.raises(ProcessingError, match="expected"):
                client.point(broken, PROMPT)
