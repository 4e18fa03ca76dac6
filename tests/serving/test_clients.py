"""Our clients against a running server: the same calls as those of a `Pointer`, with and without a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live_server import live_server
from PIL import Image

import molmopoint
from molmopoint.pipeline import Pointer
from molmopoint.serving.messages import ServerError

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
PROMPT = "the red circles"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def address(pointer: Pointer) -> Iterator[str]:
    with live_server({"nano": pointer}) as found:
        yield found


@pytest.fixture(scope="module")
def large() -> Image.Image:
    """More pixels than the one crop of `nano` holds."""
    page = Image.new("RGB", (480, 400), "white")
    page.paste(Image.open(SHAPES).convert("RGB"), (100, 60))
    return page


def test_a_server_looks_again(address: str, pointer: Pointer, large: Image.Image):
    expected = pointer.point(large, PROMPT, zoom=True)
    assert expected.looks > 1
    small = large.resize((160, 160))
    with molmopoint.Client(address) as client:
        found = client.point(large, PROMPT, zoom=True)
        np.testing.assert_allclose(found.points.xy, expected.points.xy)
        np.testing.assert_allclose(found.points.score, expected.points.score, atol=1e-5)
        assert found.looks == expected.looks
        many = list(client.point_batch([large, small, large], PROMPT, zoom=True))
        assert [result.looks > 1 for result in many] == [True, False, True]  # type: ignore[union-attr]
        assert client.count(large, "red circles", zoom=True) == pointer.count(large, "red circles", zoom=True)
        with pytest.raises(ServerError, match="expected zoom or stream"):
            list(client.stream(large, PROMPT, zoom=True))
        with pytest.raises(molmopoint.errors.ProcessingError, match="for a server"):
            client.point(large, PROMPT, zoom=molmopoint.Zoom(looks=2))
        with pytest.raises(ServerError, match="one picture with zoom=True, got 2"):
            client.point([large, SHAPES], PROMPT, zoom=True)

    async def asked() -> float:
        async with molmopoint.AsyncClient(address) as client:
            return (await client.point(large, PROMPT, zoom=True)).looks

    assert asyncio.run(asked()) == expected.looks


def test_one_line_moves_code_to_a_server(address: str, pointer: Pointer):
    expected = pointer.point(SHAPES, PROMPT)
    with molmopoint.Client(address) as client:
        assert client.models() == ["nano"]
        for image in (SHAPES, str(SHAPES), SHAPES.read_bytes(), expected.displayed.pictures[0]):
            np.testing.assert_allclose(client.point(image, PROMPT).points.xy, expected.points.xy)
        first, second = client.point(SHAPES, [PROMPT, "the blue square"])
        assert first.text == expected.text and second.prompt == "Point to the blue square"
        single = client.point(SHAPES, PROMPT, single=True)
        assert single.absent == pytest.approx(pointer.point(SHAPES, PROMPT, single=True).absent, abs=1e-5)
        assert client.count(SHAPES, "red circles") == pointer.count(SHAPES, "red circles")
        chances, wanted = (each.point(SHAPES, PROMPT, calibrated=True) for each in (client, pointer))
        assert chances.calibrated and not client.point(SHAPES, PROMPT).calibrated
        np.testing.assert_allclose(chances.points.score, wanted.points.score, atol=1e-5)
        stream = client.stream(SHAPES, PROMPT)
        points = [event for event in stream if not isinstance(event, str)]
        assert stream.result is not None and len(points) == len(stream.result.points) == 2
        np.testing.assert_allclose(stream.result.points.score, expected.points.score, atol=1e-5)
        images = [SHAPES, b"no picture", SHAPES]
        found = list(client.point_batch(images, PROMPT, batch_size=1, on_error="yield"))
        assert isinstance(found[1], molmopoint.errors.ProcessingError)
        assert [len(found[number].points) for number in (0, 2)] == [2, 2]  # type: ignore[union-attr]
        with pytest.raises(molmopoint.errors.ProcessingError):
            list(client.point_batch(images, PROMPT))
    with (
        molmopoint.Client(address, model="other") as client,
        pytest.raises(ServerError, match="expected one of the models nano") as refused,
    ):
        client.point(SHAPES, PROMPT)
    assert (refused.value.status, refused.value.kind) == (404, "model_not_found")


def test_the_same_with_a_loop(address: str, pointer: Pointer):
    expected = pointer.point(SHAPES, PROMPT)

    async def ask() -> None:
        async with molmopoint.AsyncClient(address) as client:
            assert await client.models() == ["nano"]
            answers = await asyncio.gather(*(client.point(SHAPES, PROMPT) for _ in range(4)))
            for answer in answers:
                np.testing.assert_allclose(answer.points.xy, expected.points.xy, atol=1e-3)
            assert await client.count(SHAPES, "red circles") == 2
            sure = await client.point(SHAPES, PROMPT, calibrated=True, min_score=0.5)
            assert sure.calibrated and sure.points.score.min() >= 0.5
            question = "How many circles are there?"
            assert await client.ask(SHAPES, question) == pointer.ask(SHAPES, question)
            events = [event async for event in client.stream(SHAPES, PROMPT)]
            assert sum(not isinstance(event, str) for event in events) == 2
            batch = [answer async for answer in client.point_batch([SHAPES] * 3, PROMPT, batch_size=2)]
            assert [answer.text for answer in batch if not isinstance(answer, Exception)] == [
                expected.text
            ] * 3
            with pytest.raises(ServerError, match="max_points"):
                await client.point(SHAPES, PROMPT, max_points=10**6)

    asyncio.run(ask())


def test_heatmaps_come_when_they_are_asked_for(address: str, pointer: Pointer):
    import base64
    import io

    import httpx
    from PIL import Image

    body = {"image": base64.b64encode(SHAPES.read_bytes()).decode(), "prompt": PROMPT}
    plain = httpx.post(f"{address}/v1/point", json=body).json()
    assert all("heatmap" not in point for point in plain["points"])
    answer = httpx.post(f"{address}/v1/point", json=body | {"heatmap": True}).json()
    result = pointer.point(SHAPES, PROMPT)
    for number, point in enumerate(answer["points"]):
        content = base64.b64decode(point["heatmap"].removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(content)) as picture:
            grey = np.asarray(picture)
        heat = result.heatmap(number, 256)
        assert grey.shape == heat.shape and max(grey.shape) == 256 and grey.max() == 255
        np.testing.assert_allclose(grey, heat * (255 / heat.max()), atol=1)
