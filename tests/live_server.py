"""A server on a port of this machine, run by uvicorn in a thread as the command runs it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from molmopoint.serving import Limits, app
from molmopoint.serving.running import Running


@contextmanager
def live_server(models: Mapping[str, Any], **options: Any) -> Iterator[str]:
    """Its address, while it runs."""
    started = threading.Event()
    addresses: list[str] = []

    def tell(address: str) -> None:
        addresses.append(address)
        started.set()

    application = app(models, **options)
    limits: Limits = application.state.server.limits
    running = Running(application, "127.0.0.1", 0, grace=limits.seconds, on_start=tell)
    thread = threading.Thread(target=running.run, name="live-server")
    thread.start()
    try:
        assert started.wait(30), "the server listens"
        yield addresses[0]
    finally:
        running.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server ends"


def connected(address: str) -> socket.socket:
    """A bare connection to it."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)
