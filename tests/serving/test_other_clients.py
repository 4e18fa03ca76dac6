"""Clients that other people wrote, against a running server."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import live_server
from PIL import Image

import molmopoint
from molmopoint.pipeline import Pointer

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
PROMPT = "the red circles"
KEY = "a-key"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def address(pointer: Pointer) -> Iterator[str]:
    with live_server({"nano": pointer}, keys=[KEY]) as found:
        yield found


def data_url() -> str:
    return "data:image/png;base64," + base64.b64encode(SHAPES.read_bytes()).decode()


@pytest.mark.filterwarnings("ignore::molmopoint.errors.InputWarning")  # of the history
def test_openai(address: str, pointer: Pointer):
    openai = pytest.importorskip("openai")
    expected = pointer.point(SHAPES, PROMPT)
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["nano"]
        assert client.models.retrieve("nano").owned_by == "molmopoint"
        content = [{"type": "image_url", "image_url": {"url": data_url()}}, {"type": "text", "text": PROMPT}]
        messages: Any = [
            {"role": "system", "content": "You are a pointer."},
            {"role": "user", "content": content},
        ]
        answer = client.chat.completions.create(model="nano", messages=messages)
        places = [entry["point"] for entry in json.loads(answer.choices[0].message.content)]
        np.testing.assert_array_equal(places, expected.points.xy.round())
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        pixel = client.chat.completions.create(
            model="nano", messages=messages, extra_body={"point_style": "pixel"}
        )
        assert pixel.choices[0].message.content == " ".join(
            f"({round(x)}, {round(y)})" for x, y in expected.points.xy
        )
        stream = client.chat.completions.create(
            model="nano:native", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text.strip() == expected.text and chunks[-1].usage.completion_tokens > 5
        later = [
            *messages,
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "How many circles are there?"},
        ]
        said = client.chat.completions.create(model="nano:native", messages=later)
        history = [(PROMPT, "Two.")]
        assert said.choices[0].message.content == pointer.ask(
            SHAPES, "How many circles are there?", history=history
        )
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other", messages=messages)
        with pytest.raises(openai.UnprocessableEntityError):
            client.chat.completions.create(model="nano", messages=messages, n=2)
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_moondream(address: str, pointer: Pointer):
    moondream = pytest.importorskip("moondream")
    client = moondream.vl(endpoint=address, api_key=KEY)
    with Image.open(SHAPES) as picture:
        picture.load()
    # Its client sends JPEG, so the places are nearly those of the file.
    expected = pointer.point(SHAPES, PROMPT).points.xy / pointer.point(SHAPES, PROMPT).image_sizes[0]
    points = client.point(picture, PROMPT)["points"]
    np.testing.assert_allclose([[point["x"], point["y"]] for point in points], expected, atol=0.03)
    question = "How many circles are there?"
    whole = client.query(picture, question)["answer"]
    assert isinstance(whole, str) and whole
    assert "".join(client.query(picture, question, stream=True)["answer"]).strip() == whole
    assert isinstance(client.caption(picture, length="short")["caption"], str)
    assert len(client.point(picture, PROMPT, settings={"max_objects": 1})["points"]) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(address: str, pointer: Pointer, tmp_path: Path):
    expected = pointer.point(SHAPES, PROMPT).points.xy

    def curl(path: str, *arguments: str) -> Any:
        command = ["curl", "-sS", "--max-time", "60", "-H", f"authorization: Bearer {KEY}", *arguments]
        done = subprocess.run([*command, address + path], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    body = tmp_path / "body.json"
    body.write_text(json.dumps({"prompt": PROMPT, "image": data_url().split(",")[1]}))
    answer = curl("/v1/point", "-H", "content-type: application/json", "-d", f"@{body}")
    np.testing.assert_allclose([[point["x"], point["y"]] for point in answer["points"]], expected)
    answer = curl("/v1/point", "-F", f"prompt={PROMPT}", "-F", f"image=@{SHAPES}")
    np.testing.assert_allclose([[point["x"], point["y"]] for point in answer["points"]], expected)
