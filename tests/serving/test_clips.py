"""Clips over HTTP: points, tracks, and work that becomes a job."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("av")

from fastapi.testclient import TestClient
from films import write_film

import molmopoint
from molmopoint.pipeline import Pointer
from molmopoint.serving import Limits, app
from molmopoint.serving.client import Client
from molmopoint.serving.messages import ServerError

PROMPT = "the white square"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4", size=(128, 96))


@pytest.fixture(scope="module")
def client(pointer: Pointer) -> Iterator[TestClient]:
    limits = Limits(frames=50, jobs=2, job_kept_seconds=2.0, body_bytes=1_000_000, video_bytes=2_000_000)
    with TestClient(app({"nano": pointer}, limits=limits)) as made:
        yield made


def send(client: TestClient, path: str, film: Path, **fields: str) -> Any:
    return client.post(path, data={"prompt": PROMPT, **fields}, files={"video": film.read_bytes()})


def test_points_of_a_clip_are_those_of_the_pointer(client: TestClient, pointer: Pointer, film: Path):
    expected = pointer.point_video(film, PROMPT)
    answer = send(client, "/v1/video/point", film)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    rows = [(point["seconds"], point["x"], point["y"]) for point in body["points"]]
    wanted = np.column_stack([expected.points.group, expected.points.xy])
    np.testing.assert_allclose(np.reshape(rows, (-1, 3)), wanted)
    assert body["text"] == expected.text and body["image_sizes"] == [[128, 96]] and body["windows"] == 1
    assert body["usage"]["prompt_tokens"] > 50 and body["model"] == "nano"
    text = base64.b64encode(film.read_bytes()).decode()
    asked = {"prompt": PROMPT, "video": text}
    for path in ("/v1/video/point", "/v1/point"):
        assert client.post(path, json=asked).json()["points"] == body["points"], path


def test_tracks_are_those_of_the_pointer(client: TestClient, pointer: Pointer, film: Path):
    expected = pointer.track(film, PROMPT, fps=1)
    for path in ("/v1/video/track", "/v1/track"):
        body = send(client, path, film, fps="1").json()
        assert molmopoint.Tracks.from_dict(body["tracks"]) == molmopoint.Tracks.from_dict(
            expected.tracks.to_dict()
        )
        assert body["prompt"] == expected.prompt and body["text"] == expected.text


def test_a_job_tells_how_far_it_is_and_is_forgotten(client: TestClient, film: Path):
    answer = send(client, "/v1/video/point", film, background="true", windows="true")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" and job["result"] is None
    until = time.monotonic() + 60
    while job["status"] in ("queued", "running"):
        assert time.monotonic() < until
        time.sleep(0.05)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["status"] == "done" and job["progress"] == {"done": 1, "of": 1} and job["error"] is None
    assert job["result"]["points"] == send(client, "/v1/video/point", film).json()["points"]
    held = [kept.status for kept in client.app.state.server.jobs._jobs.values()]  # type: ignore[attr-defined]
    assert held == ["done"], "what was answered at once is not kept"
    time.sleep(2.1)
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert client.get("/v1/jobs/none").status_code == client.delete("/v1/jobs/none").status_code == 404


def test_a_job_ends_when_it_is_told_to(pointer: Pointer, film: Path, monkeypatch: pytest.MonkeyPatch):
    go, begun = threading.Event(), threading.Event()
    answer = pointer.backend.answer

    def wait(*arguments: Any, **options: Any) -> Any:
        begun.set()
        go.wait(30)
        return answer(*arguments, **options)

    monkeypatch.setattr(pointer.backend, "answer", wait)
    limits = Limits(jobs=1, inline_seconds=0.1)
    with TestClient(app({"nano": pointer}, keys=["mine", "theirs"], limits=limits)) as client:
        client.headers["authorization"] = "Bearer mine"
        late = send(client, "/v1/video/track", film)
        assert late.status_code == 202, "it takes longer than its client waits"
        assert begun.wait(30)
        identity = late.json()["id"]
        refused = send(client, "/v1/video/track", film)
        assert refused.status_code == 429 and "open jobs" in refused.json()["error"]["message"]
        theirs = {"authorization": "Bearer theirs"}
        assert client.get(f"/v1/jobs/{identity}", headers=theirs).status_code == 404
        ended = client.delete(f"/v1/jobs/{identity}")
        assert ended.json()["status"] == "cancelled"
        go.set()
        assert client.get(f"/v1/jobs/{identity}").json()["result"] is None
        assert send(client, "/v1/video/track", film, background="false").status_code == 200


def test_bad_clips_are_told_so(client: TestClient, film: Path):
    def message(status: int, **fields: Any) -> str:
        files = fields.pop("files", {"video": film.read_bytes()})
        answer = client.post("/v1/video/point", data={"prompt": PROMPT, **fields}, files=files)
        assert answer.status_code == status, answer.text
        return answer.json()["error"]["message"]

    assert "expected a readable video in the video" in message(400, files={"video": b"\0\0\0\x18ftypmp42"})
    for content in (b"GIF89a", b"#EXTM3U\nfile:///etc/passwd", b"ffconcat version 1.0\nfile /etc/passwd"):
        assert "/proc" not in message(400, files={"video": content})
    assert "bytes of a video" in message(400, files={"video": b""})
    assert "frames are looked at" in message(400, max_fps="100", windows="true")
    assert "max_frames" in message(400, max_frames="51")
    assert "a part of the video within" in message(400, start="100")
    assert "end" in message(400, start="2", end="1")
    assert "max_crops" in message(422, max_crops="2")
    assert "odd" in message(422, odd="1")
    assert client.post("/v1/video/point", json={"prompt": PROMPT, "video": "/etc/passwd"}).status_code == 400
    both = {"prompt": PROMPT, "video": "AAAA", "image": "AAAA"}
    assert client.post("/v1/point", json=both).status_code == 422
    large = client.post("/v1/video/point", data={"prompt": PROMPT}, files={"video": b"0" * 2_100_000})
    assert large.status_code == 413


@pytest.mark.parametrize("interpolate", ["1e300", "1e8", "1000"])
def test_filling_in_is_limited_as_looking_is(client: TestClient, film: Path, interpolate: str):
    """Nobody may ask for a hundred million points of an object."""
    answer = send(client, "/v1/video/track", film, interpolate=interpolate)
    assert answer.status_code == 400 and "frames are looked at" in answer.text, answer.text


def test_the_client_asks_about_clips(
    client: TestClient, pointer: Pointer, film: Path, monkeypatch: pytest.MonkeyPatch
):
    remote = Client("http://testserver")
    monkeypatch.setattr(remote, "_http", client)
    monkeypatch.setattr("molmopoint.serving.client.POLL_SECONDS", 0.05)
    told: list[tuple[int, int]] = []
    expected = pointer.point_video(film, PROMPT)
    result = remote.point_video(
        film, PROMPT, background=True, windows=True, progress=lambda *n: told.append(n)
    )
    np.testing.assert_allclose(result.points.xy, expected.points.xy)
    assert result.prompt == expected.prompt and told[-1] == (1, 1)
    tracked = remote.track(film.read_bytes(), PROMPT, max_fps=1.0)
    wanted = pointer.track(film, PROMPT, max_fps=1.0)
    assert tracked.tracks == molmopoint.Tracks.from_dict(wanted.tracks.to_dict())
    assert tracked.size == wanted.size
    with pytest.raises(ServerError, match="frames") as refused:
        remote.point_video(film, PROMPT, max_fps=100.0, windows=True)
    assert refused.value.status == 400
    with pytest.raises(molmopoint.errors.ProcessingError, match="video file"):
        remote.track("none.mp4", PROMPT)
