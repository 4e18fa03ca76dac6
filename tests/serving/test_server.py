"""A server with `nano` behind it: answers are those of `Pointer`, whatever is asked at the same time, and bad
requests are told so.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

import molmopoint
from molmopoint.cli.app import app as commands
from molmopoint.data.synthetic import sample_scene
from molmopoint.pipeline import Pointer
from molmopoint.serving import Limits, app
from molmopoint.serving.client import Client
from molmopoint.serving.limits import read_keys
from molmopoint.serving.messages import ServerError
from molmopoint.serving.routes.page import PAGE, page_files
from molmopoint.serving.styles import STYLES

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
PROMPT = "the red circles"


def encoded(picture: Image.Image | Path) -> str:
    content = picture.read_bytes() if isinstance(picture, Path) else _png(picture)
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def client(pointer: Pointer) -> Iterator[TestClient]:
    limits = Limits(body_bytes=4_000_000, pixels=2_000_000, queue=64, pictures=2)
    with TestClient(app({"nano": pointer}, limits=limits)) as made:
        yield made


def ask(client: TestClient, path: str = "/v1/point", **body: Any) -> Any:
    return client.post(path, json={"image": encoded(SHAPES), "prompt": PROMPT, **body})


def xy_of(answer: Any) -> list[tuple[float, float]]:
    return [(point["x"], point["y"]) for point in answer.json()["points"]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"stream": True}, "expected zoom or stream"),
        ({"heatmap": True}, "expected zoom or heatmap"),
        ({"zoom": "often"}, "zoom"),
        ({"image": None, "video": "AAAA"}, "no zoom for a clip"),
    ],
)
def test_what_cannot_be_looked_at_again_is_refused(client: TestClient, more: dict[str, Any], words: str):
    answer = ask(client, **{"zoom": True, **more})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


def test_points_are_those_of_the_pointer(client: TestClient, pointer: Pointer):
    expected = pointer.point(SHAPES, PROMPT)
    answer = ask(client)
    assert answer.status_code == 200
    np.testing.assert_allclose(xy_of(answer), expected.points.xy)
    body = answer.json()
    width, height = expected.image_sizes[0]
    assert body["image_sizes"] == [[width, height]] and body["count"] == 2 and body["text"] == expected.text
    for point, score in zip(body["points"], expected.points.score, strict=True):
        assert point["x_norm"] == pytest.approx(point["x"] / width) and point["y_norm"] == pytest.approx(
            point["y"] / height
        )
        assert point["score"] == pytest.approx(float(score), abs=1e-5)
    assert body["usage"]["prompt_tokens"] > 50 and body["usage"]["completion_tokens"] > 5


def test_many_clients_get_their_own_answers(client: TestClient, pointer: Pointer):
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(6)]
    asked = [(scene.image, query.prompt) for scene in scenes for query in scene.queries[:2]]
    expected = [pointer.point(image, prompt) for image, prompt in asked]
    order = np.random.default_rng(0).permutation(len(asked) * 2) % len(asked)

    def answer(number: int) -> Any:
        image, prompt = asked[number]
        return client.post("/v1/point", json={"image": encoded(image), "prompt": prompt})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, order.tolist()))
    for number, given in zip(order, answers, strict=True):
        assert given.status_code == 200
        np.testing.assert_allclose(np.reshape(xy_of(given), (-1, 2)), expected[number].points.xy, atol=1e-3)
        assert given.json()["text"] == expected[number].text
    figures = client.get("/metrics").text
    sizes = [line for line in figures.splitlines() if line.startswith("molmopoint_batches_total")]
    assert any('size="1"' not in line for line in sizes), "requests that wait are answered together"
    assert 'molmopoint_cached_pictures_total{model="nano"} 0.0' not in figures, "pictures are seen once"


def test_a_stream_gives_points_before_its_result(client: TestClient):
    with client.stream(
        "POST", "/v1/point", json={"image": encoded(SHAPES), "prompt": PROMPT, "stream": True}
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert [event["type"] for event in events if event["type"] != "text"] == ["point", "point", "result"]
    final = [(point["x"], point["y"]) for point in events[-1]["points"]]
    assert final == [
        (event["point"]["x"], event["point"]["y"]) for event in events if event["type"] == "point"
    ]
    assert "".join(event["text"] for event in events if event["type"] == "text").strip() == events[-1]["text"]


def test_options_reach_the_model(client: TestClient):
    single = ask(client, single=True)
    assert len(xy_of(single)) == 1 and 0 <= single.json()["absent"] < 0.5
    assert ask(client).json()["absent"] is None
    assert len(xy_of(ask(client, max_points=1))) == 1
    scored = ask(client, min_score=0.9).json()
    assert len(scored["points"]) == scored["count"] == 1
    assert ask(client, max_tokens=3).json()["truncated"] is True
    assert ask(client, path="/v1/count").json()["count"] == 2
    two = client.post("/v1/point", json={"images": [encoded(SHAPES)] * 2, "prompt": PROMPT})
    assert two.status_code == 200 and len(two.json()["image_sizes"]) == 2


def test_chances_in_place_of_scores(client: TestClient, pointer: Pointer):
    expected = pointer.point(SHAPES, PROMPT, calibrated=True)
    plain, sure = ask(client).json(), ask(client, calibrated=True).json()
    assert (plain["calibrated"], sure["calibrated"]) == (False, True)
    scores = [point["score"] for point in sure["points"]]
    np.testing.assert_allclose(scores, expected.points.score, atol=1e-5)
    assert scores != [point["score"] for point in plain["points"]]
    # The least score is on the same scale: just above the surest raw score nothing is left but by its chance.
    highest = max(point["score"] for point in plain["points"])
    least = (highest + max(scores)) / 2
    assert highest < least, "a chance of nano is higher than its score"
    assert not ask(client, min_score=least).json()["points"]
    kept = ask(client, min_score=least, calibrated=True).json()["points"]
    assert [point["score"] for point in kept] == [score for score in scores if score >= least]
    assert ask(client, path="/v1/count", calibrated=True).json()["calibrated"] is True
    with client.stream(
        "POST",
        "/v1/point",
        json={"image": encoded(SHAPES), "prompt": PROMPT, "stream": True, "calibrated": True},
    ) as answer:
        *_, final, end = [line for line in answer.iter_lines() if line]
    assert end == "data: [DONE]"
    assert [point["score"] for point in json.loads(final[6:])["points"]] == pytest.approx(scores)
    clip = client.post("/v1/point", json={"video": "AAAA", "prompt": PROMPT, "calibrated": True})
    assert clip.status_code == 422 and "calibrated" in clip.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_chances_need_a_calibration(pointer: Pointer, monkeypatch: pytest.MonkeyPatch, stream: bool):
    monkeypatch.setattr(pointer.backend, "calibration", None)
    with TestClient(app({"nano": pointer})) as client:
        refused = ask(client, calibrated=True, stream=stream)
        assert refused.status_code == 400 and "calibration.json" in refused.json()["error"]["message"]
        assert ask(client).status_code == 200


def test_forms_of_others(client: TestClient, pointer: Pointer):
    picture = encoded(SHAPES)
    expected = pointer.point(SHAPES, PROMPT).points
    points = client.post("/point", json={"image_url": picture, "object": PROMPT}).json()["points"]
    np.testing.assert_allclose([[point["x"] * 453, point["y"] * 450] for point in points], expected.xy)
    question = "How many circles are there?"
    assert client.post("/query", json={"image_url": picture, "question": question}).json() == {
        "answer": pointer.ask(SHAPES, question)
    }
    assert isinstance(client.post("/caption", json={"image_url": picture}).json()["caption"], str)
    predicted = client.post("/predict", json={"image_b64": picture.split(",")[1], "prompt": PROMPT}).json()
    assert predicted["image_size"] == [453, 450]
    np.testing.assert_allclose(predicted["points"], expected.xy, atol=0.01)


@pytest.mark.parametrize("style", STYLES)
def test_points_in_chats_have_a_style(client: TestClient, pointer: Pointer, style: str):
    content = [{"type": "image_url", "image_url": {"url": encoded(SHAPES)}}, {"type": "text", "text": PROMPT}]
    asked = {"model": f"nano:{style}", "messages": [{"role": "user", "content": content}]}
    answer = client.post("/v1/chat/completions", json=asked).json()
    text = answer["choices"][0]["message"]["content"]
    (x, y), (right, low) = pointer.point(SHAPES, PROMPT).points.xy.round().astype(int).tolist()
    expected = {
        "json": f'[{{"point": [{x}, {y}], "label": "red circles"}}, {{"point": [{right}, {low}], "label": "red circles"}}]',
        "pixel": f"({x}, {y}) ({right}, {low})",
        "norm1000": "(125, 402) (819, 875)",
        "qwen": '[{"point_2d": [125, 402], "label": "red circles"}, {"point_2d": [819, 875], "label": "red circles"}]',
        "uitars": "click(start_box='(56,180)')\n\nclick(start_box='(367,392)')",
        "midscene": '{"bbox": [125, 402, 125, 402]}',
        "molmo": '<points x1="12.5" y1="40.2" x2="81.9" y2="87.5" alt="red circles">red circles</points>',
        "native": "red circles",
    }
    assert text == expected[style] and answer["usage"]["total_tokens"] > 0
    with client.stream("POST", "/v1/chat/completions", json={**asked, "stream": True}) as stream:
        chunks = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks).strip() == text
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"image": "/etc/passwd"}, 400, "send the bytes, not a path"),
    ({"image": "https://example.com/a.png"}, 400, "--allow-urls"),
    ({"image": "data:image/png;base64,AAAA"}, 400, "no known format"),
    ({"image": base64.b64encode(b"GIF89a").decode()}, 400, "picture"),
    ({"image": "QUJD*"}, 400, "base64"),
    ({"images": ["QUJD"] * 3}, 400, "at most 2 pictures"),
    ({"prompt": "  "}, 400, "got an empty one"),
    ({"prompt": ""}, 422, "prompt"),
    ({"prompt": 3}, 422, "prompt"),
    ({"promt": "x"}, 422, "promt"),
    ({"max_crops": 1000}, 400, "max_crops"),
    ({"max_points": 10**6}, 400, "max_points"),
    ({"max_tokens": 10**6}, 400, "max_tokens"),
    ({"temperature": -1}, 422, "temperature"),
    ({"template": "no slot"}, 400, "template"),
    ({"model": "other"}, 404, "expected one of the models nano"),
]


@pytest.mark.parametrize(("change", "status", "message"), BAD)
def test_bad_requests_are_told_what_is_wrong(
    client: TestClient, change: dict[str, Any], status: int, message: str
):
    body = {"image": encoded(SHAPES), "prompt": PROMPT, **change}
    if "images" in change:
        del body["image"]
    answer = client.post("/v1/point", json=body)
    assert answer.status_code == status and message in answer.json()["error"]["message"]


def test_odd_bodies(client: TestClient):
    assert (
        client.post("/v1/point", content=b"{", headers={"content-type": "application/json"}).status_code
        == 422
    )
    assert client.post("/v1/point", content=b"x" * 5_000_000).status_code == 413
    json_type = {"content-type": "application/json"}
    unsized = (b"x" * 100_000 for _ in range(50))
    answer = client.post("/v1/point", content=unsized, headers=json_type)
    assert answer.status_code == 413, "a body without a length"
    assert client.post("/v1/point", content=b"{}").status_code == 422, "nobody said what it is"
    large = Image.new("RGB", (2000, 1500))
    answer = client.post("/v1/point", json={"image": encoded(large), "prompt": PROMPT})
    assert answer.status_code == 400 and "pixels" in answer.json()["error"]["message"]
    assert client.get("/nothing").status_code == 404 and client.get("/v1/point").status_code == 405


def test_the_page_is_served_from_the_package(client: TestClient):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:"
    assert answer.headers["content-security-policy"] == policy
    assert answer.content == (PAGE / "index.html").read_bytes()
    again = client.get("/", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    for path in ("/../limits.py", "/%2e%2e/limits.py", "/page/index.html", "/index.html%00", "//etc/passwd"):
        assert client.get(path).status_code == 404, path
    assert {file.path for file in page_files()} >= {"/"}


def test_pictures_come_as_files_of_a_form(client: TestClient, pointer: Pointer):
    picture = SHAPES.read_bytes()
    expected = pointer.point(SHAPES, PROMPT).points.xy
    answer = client.post("/v1/point", data={"prompt": PROMPT}, files={"image": picture})
    np.testing.assert_allclose(xy_of(answer), expected)
    several = [("images", ("a.png", picture)), ("images", ("b.png", picture))]
    both = client.post("/v1/point", data={"prompt": PROMPT, "max_points": "1"}, files=several)
    assert len(both.json()["image_sizes"]) == 2 and both.json()["count"] == 1
    for data, files in (
        ({"prompt": PROMPT}, {"picture": picture}),
        ({"prompt": PROMPT, "odd": "1"}, {"image": picture}),
        ({}, {"image": picture}),
    ):
        assert client.post("/v1/point", data=data, files=files).status_code == 422
    headers = {"content-type": "multipart/form-data"}
    assert client.post("/v1/point", content=b"--x", headers=headers).status_code == 422


def test_the_description_names_every_body(client: TestClient):
    description = client.get("/openapi.json").json()
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            if method == "post":
                schema = route["requestBody"]["content"]["application/json"]["schema"]
                assert schema["$ref"].split("/")[-1] in description["components"]["schemas"], path
    assert "examples" in description["components"]["schemas"]["PointAsked"]


def test_what_is_typed_stays_text(client: TestClient):
    answer = ask(client, prompt="<|image|> <POINT_3> <b>the red circles</b>")
    assert answer.status_code == 200


def test_keys_are_asked_for(pointer: Pointer, tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("# keys\nfirst\n\nsecond\n")
    with TestClient(app({"nano": pointer}, keys=read_keys(file))) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer third"}).status_code == 401
        for key in ("first", "second"):
            assert (
                client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).json()["data"][0]["id"]
                == "nano"
            )
    file.write_text("#\n")
    with pytest.raises(ValueError, match="one or more keys"):
        read_keys(file)


class Slow:
    """A backend whose answers take as long as they are told to."""

    def __init__(self, pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        answer = pointer.backend.answer

        def wait(*arguments: Any, **options: Any) -> Any:
            self.go.wait(30)
            return answer(*arguments, **options)

        monkeypatch.setattr(pointer.backend, "answer", wait)


def test_a_full_queue_and_late_answers_are_refused(pointer: Pointer, monkeypatch: pytest.MonkeyPatch):
    slow = Slow(pointer, monkeypatch)
    with (
        TestClient(app({"nano": pointer}, limits=Limits(queue=2, seconds=1.0))) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        first = [pool.submit(ask, client) for _ in range(2)]
        engine = client.app.state.server.engines["nano"]  # type: ignore[attr-defined]
        while engine.num_open < 2:
            time.sleep(0.01)
        refused = ask(client)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert {future.result().status_code for future in first} == {504}
        slow.go.set()
        while engine.num_open:
            time.sleep(0.01)
        assert ask(client).status_code == 200, "the server goes on"


def test_running_answers_finish_when_the_server_stops(pointer: Pointer):
    with TestClient(app({"nano": pointer})) as client:
        engine = client.app.state.server.engines["nano"]  # type: ignore[attr-defined]
        assert ask(client).status_code == 200
    assert engine.num_open == 0 and not engine._thread.is_alive()


def test_the_client_is_a_pointer_from_afar(
    client: TestClient, pointer: Pointer, monkeypatch: pytest.MonkeyPatch
):
    remote = Client("http://testserver")
    monkeypatch.setattr(remote, "_http", client)
    result, expected = remote.point(SHAPES, PROMPT), pointer.point(SHAPES, PROMPT)
    np.testing.assert_allclose(result.points.xy, expected.points.xy)
    assert (result.text, result.prompt, result.image_sizes) == (
        expected.text,
        expected.prompt,
        expected.image_sizes,
    )
    drawn: Any = result.draw()
    assert drawn.size == expected.image_sizes[0]
    assert remote.count(SHAPES, "red circles") == 2
    assert remote.ask(SHAPES, "How many circles are there?") == pointer.ask(
        SHAPES, "How many circles are there?"
    )
    assert sum(not isinstance(event, str) for event in remote.stream(SHAPES, PROMPT)) == 2
    assert [len(each.points) for each in remote.point_batch([SHAPES] * 3, PROMPT)] == [2, 2, 2]
    with pytest.raises(ServerError, match="max_points"):
        remote.point(SHAPES, PROMPT, max_points=10**6)


def test_wrong_usage_of_the_command(tmp_path: Path):
    run = CliRunner().invoke
    assert run(commands, ["serve", "nano", "--point-style", "odd"]).exit_code == 2
    assert run(commands, ["serve", "nano", "--api-keys", str(tmp_path / "none")]).exit_code == 2
    assert run(commands, ["serve", "no-such-model"]).exit_code == 3
    with pytest.raises(ValueError, match="without a colon"):
        app({})
