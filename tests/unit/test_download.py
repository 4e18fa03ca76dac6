"""Fetching models: from a hub that runs here, that breaks, and that is not there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from molmopoint.checkpoints.hub import in_bytes

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"model_type": "molmo_point"}',
    "model.safetensors": os.urandom(2**20) * 25,
    "tokenizer.json": b"{}",
    "modeling_molmo_point.py": b"raise SystemExit('code of a repository ran')",
    "old/model.safetensors": b"of another folder",
}
CUT = 12 * 2**20
"""Bytes that come before a connection breaks; the client keeps whole pieces of ten mebibytes."""

READ = ("config.json", "model.safetensors", "tokenizer.json")


class Hub(BaseHTTPRequestHandler):
    """The routes that the client of the hub asks; `cuts` breaks so many answers of the weights in the middle."""

    cuts: ClassVar[int] = 0
    asked: ClassVar[list[tuple[str, str, str | None]]] = []

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append((self.command, path, self.headers.get("Range")))
        name = path.rpartition(f"/resolve/{COMMIT}/")[2] if "/resolve/" in path else ""
        if "/resolve/main/" in path:
            name = path.rpartition("/resolve/main/")[2]
        if path.startswith("/api/models/some/model"):
            siblings = [{"rfilename": each, "size": len(FILES[each])} for each in FILES]
            document = {"id": "some/model", "modelId": "some/model", "sha": COMMIT, "siblings": siblings}
            if "/tree/" in path:
                document = [
                    {"type": "file", "path": each, "size": len(FILES[each]), "oid": _digest(each)}
                    for each in FILES
                ]
            self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/some/model") and name in FILES:
            self._file(name, with_body=with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str, *, with_body: bool) -> None:
        content = FILES[name]
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = {"ETag": f'"{_digest(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if asked else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not with_body:
            return
        if name.endswith(".safetensors") and Hub.cuts:
            Hub.cuts -= 1
            self.wfile.write(content[start : start + CUT])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(name: str) -> str:
    return hashlib.sha256(FILES[name]).hexdigest()


@pytest.fixture
def hub(tmp_path):
    Hub.asked.clear()
    Hub.cuts = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(endpoint, home, *arguments, offline=False):
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "molmopoint", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_size_first_then_a_connection_that_breaks_and_goes_on(hub, tmp_path):
    told = run(hub, tmp_path, "download", "some/model", "--dry-run")
    assert told.returncode == 0 and "3 of 3 files to fetch, 26.2 MB" in told.stderr, told.stderr
    assert "modeling_molmo_point.py" in told.stderr and not any(
        "/resolve/" in path for _, path, _ in Hub.asked
    )

    Hub.cuts = 2
    done = run(hub, tmp_path, "download", "some/model", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    folder = document["folder"]
    assert sorted(os.listdir(folder)) == sorted(READ) and document["commit"] == COMMIT
    with open(f"{folder}/model.safetensors", "rb") as file:
        assert file.read() == FILES["model.safetensors"]
    ranges = [
        part for method, path, part in Hub.asked if method == "GET" and path.endswith("model.safetensors")
    ]
    assert ranges == [None, "bytes=10485760-", "bytes=20971520-"], "goes on where it broke"
    assert not any(path.endswith((".py", "old/model.safetensors")) for _, path, _ in Hub.asked)

    again = run(hub, tmp_path, "download", "some/model")
    assert again.returncode == 0 and "all 3 files are here" in again.stderr and folder in again.stdout


def test_the_same_command_goes_on_with_the_files_that_are_missing(hub, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(FILES["model.safetensors"][:1000])
    done = run(hub, tmp_path, "download", "some/model", "--local-dir", folder)
    assert done.returncode == 0 and "3 of 3 files" in done.stderr, done.stderr
    (folder / "tokenizer.json").unlink()
    Hub.asked.clear()
    done = run(hub, tmp_path, "download", "some/model", "--local-dir", folder)
    assert done.returncode == 0 and "1 of 3 files to fetch, 2 bytes" in done.stderr, done.stderr
    fetched = [path for method, path, _ in Hub.asked if method == "GET" and "/resolve/" in path]
    assert [path.rpartition("/")[2] for path in fetched] == ["tokenizer.json"]


def test_what_cannot_be_fetched_is_told_in_a_sentence(hub, tmp_path):
    gone = run(hub, tmp_path, "download", "other/model")
    assert gone.returncode == 3 and "found none named 'other/model'" in gone.stderr
    for arguments, offline, reason in (
        (("download", "molmopoint-8b"), True, "HF_HUB_OFFLINE"),
        (("point", __file__, "cups", "--model", "molmopoint-8b"), False, "cannot be reached"),
    ):
        told = run("http://127.0.0.1:9", tmp_path, *arguments, offline=offline)
        assert told.returncode == 3 and reason in told.stderr and "34.7 GB" in told.stderr
        assert (
            "the name is right" in told.stderr and "molmopoint download allenai/MolmoPoint-8B" in told.stderr
        )
        assert told.stderr.count("error:") == 1 and len(told.stderr.splitlines()) == 1
    here = run(hub, tmp_path, "download", "nano")
    assert here.returncode == 0 and "here already" in here.stdout


def test_bytes_for_people():
    assert [in_bytes(size) for size in (0, 999, 1_000, 34_711_420_260)] == [
        "0 bytes",
        "999 bytes",
        "1.0 KB",
        "34.7 GB",
    ]
