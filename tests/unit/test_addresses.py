"""Pictures as bytes, as open files and behind addresses; and which addresses nothing is ever asked of."""

from __future__ import annotations

import base64
import http.server
import io
import threading
import time
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.files import addresses
from molmopoint.processing.pictures import load_picture


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(4, 3, 3)).save(out, "PNG")
    return out.getvalue()


PICTURE = png()
PIXELS = np.asarray(load_picture(Image.open(io.BytesIO(PICTURE)))).tolist()


class Handler(http.server.BaseHTTPRequestHandler):
    """A server with a picture, and with what a picture is not."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/a.png"):
            self._send(200, PICTURE)
        elif self.path == "/on":
            self._redirect("/a.png?x=1")
        elif self.path == "/round":
            self._redirect("/round")
        elif self.path == "/inside":
            self._redirect("http://169.254.169.254/latest")
        elif self.path == "/file":
            self._redirect("file:///etc/passwd")
        elif self.path == "/large":
            self._send(200, bytes(2**20))
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        else:
            self.send_error(404)

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):  # whoever asked has left
            self.close_connection = True


@pytest.fixture(scope="module")
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def public(server, monkeypatch):
    """The server, as if this machine were a public host; other addresses are what they are."""
    real = addresses.check_public
    monkeypatch.setattr(
        addresses, "check_public", lambda number, host: None if number == "127.0.0.1" else real(number, host)
    )
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    "source",
    [
        PICTURE,
        bytearray(PICTURE),
        memoryview(PICTURE),
        io.BytesIO(PICTURE),
        "data:image/png;base64," + base64.b64encode(PICTURE).decode(),
        "DATA:;BASE64,\n" + base64.encodebytes(PICTURE).decode(),
        "data:image/png," + quote_from_bytes(PICTURE),
    ],
)
def test_bytes_are_pictures(source):
    assert np.asarray(load_picture(source)).tolist() == PIXELS


def test_open_files_are_read_from_where_they_are(tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    with (tmp_path / "a.png").open("rb") as file:
        assert np.asarray(load_picture(file)).tolist() == PIXELS
        with pytest.raises(ProcessingError, match="got none; read the file from its beginning"):
            load_picture(file)
    with pytest.raises(ProcessingError, match="open it again"):
        load_picture(file)
    with (
        (tmp_path / "a.png").open(encoding="latin-1") as text,
        pytest.raises(ProcessingError, match="open it with 'rb'"),
    ):
        load_picture(text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "got none"),
        (b"%!PS-Adobe", "no known format"),
        (PICTURE[:60], "broken or truncated|readable picture"),
        ("data:image/png;base64,***", "expected base64"),
        ("data:image/png;base64", "behind the comma"),
        ("data:,", "got none"),
        ("https://a.example/b.png", "allow_urls=True"),
    ],
)
def test_what_is_no_picture_is_told(source, message):
    with pytest.raises(ProcessingError, match=message):
        load_picture(source)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "[fd00::1]",
        "2130706433",
    ],
)
def test_nothing_is_asked_of_private_hosts(server, host):
    server.asked.clear()
    with pytest.raises(ProcessingError, match=r"public host|fetch it yourself"):
        load_picture(f"http://{host}:{server.server_port}/a.png", allow_urls=True)
    assert server.asked == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://user:secret@127.0.0.1/a.png", "without a name or password"),
        ("http://127.0.0.1:99999/a.png", "correct it"),
        ("http://127.0.0.1/a b.png", "%20"),
        ("http:///a.png", "begins with"),
        ("http://" + "a" * 64 + ".example/a.png", "fetch it yourself"),
        ("http://..a/a.png", "fetch it yourself"),
        ("http://\ud800.example/a.png", "fetch it yourself"),
        ("data:,\ud800", "encode the bytes again"),
    ],
)
def test_odd_addresses_are_told(address, message):
    with pytest.raises(ProcessingError, match=message):
        load_picture(address, allow_urls=True)


@pytest.mark.parametrize("redirect", ["http://[", "//[::1", "http://" + "b" * 64 + "/"])
def test_odd_redirects_are_told(monkeypatch, redirect):
    asked = addresses._ask
    monkeypatch.setattr(
        addresses,
        "_ask",
        lambda address, end: (b"", redirect) if ".example" in address else asked(address, end),
    )
    with pytest.raises(ProcessingError, match="fetch it yourself"):
        addresses.fetch("http://a.example/a.png")


def test_a_public_picture_is_fetched(public):
    assert np.asarray(load_picture(f"{public}/a.png?size=1", allow_urls=True)).tolist() == PIXELS
    assert np.asarray(load_picture(f"{public}/on", allow_urls=True)).tolist() == PIXELS


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "status 404"),
        ("/round", "redirects"),
        ("/inside", "public host, got '169.254.169.254'"),
        ("/file", "begins with"),
        ("/large", "expected at most 1,000 bytes"),
        ("/slow", "within 0.3 s|at .*/slow"),
    ],
)
def test_answers_have_limits(public, monkeypatch, path, message):
    monkeypatch.setattr(addresses, "MAX_FETCHED_BYTES", 1000)
    monkeypatch.setattr(addresses, "_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(ProcessingError, match=message):
        load_picture(f"{public}{path}", allow_urls=True)
    assert time.monotonic() - started < 4  # the slow one sends for five seconds


@pytest.mark.parametrize(
    "source",
    ["https://a.org/b.mp4", "FILE:/tmp/a.mp4", "s3://bucket/a", "data:video/mp4;base64,AAAA", "rtsp:/a"],
)
def test_addresses_are_told_from_paths(source):
    assert addresses.is_address(source)


@pytest.mark.parametrize(
    "path", ["a.mp4", "/tmp/a:/b.mp4", "C:/clips/a.mp4", "1:/a", "a b:/c", "", "databases/a.mp4"]
)
def test_paths_are_no_addresses(path):
    assert not addresses.is_address(path)
