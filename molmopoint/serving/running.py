"""Running an application with uvicorn: limits of connections, and an end that lets answers finish."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

_MOST_HEADER_BYTES = 64 * 1024
_KEEP_ALIVE = 30
_CONNECTIONS_BESIDE = 1024
"""Connections beyond those of the queue: they are told so, each by its status."""


def check_address(host: str, port: int) -> None:
    """Refuses an address that nothing can listen at, before models are loaded.

    Args:
        host: name or number of this machine.
        port: 0 for any.

    Raises:
        ValueError: there is no such host, it is not this machine, or the port is taken or not allowed.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as asyncio does
            probe.bind(address)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(
            f"expected --host and --port at which this machine can listen, got {host!r} and {port} ({reason}); choose "
            "others"
        ) from error


class Running(uvicorn.Server):
    """A server that refuses its queue when it is told to stop, and ends once running answers are whole.

    Args:
        application: made by `molmopoint.serving.app`.
        host: address to listen at.
        port: to listen at; 0 for any.
        grace: seconds that running answers have.
        on_start: is told the address once the server listens.
    """

    def __init__(
        self,
        application: FastAPI,
        host: str,
        port: int,
        *,
        grace: float,
        on_start: Callable[[str], None] | None = None,
    ) -> None:
        self._served = application.state.server
        self._on_start = on_start
        config = uvicorn.Config(
            application,
            host=host,
            port=port,
            http="h11",  # whose limit on headers is the one that is set here
            ws="none",
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(grace) + 1,
            limit_concurrency=self._served.limits.queue + _CONNECTIONS_BESIDE,
            backlog=2048,
            log_level="warning",
            access_log=False,
            server_header=False,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and says where."""
        await super().startup(sockets)
        if self._on_start is not None and self.started and self.servers:
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            named = f"[{host}]" if ":" in host else host
            self._on_start(f"http://{named}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end; a second Ctrl-C does not wait for answers.

        uvicorn would also take note of the signal, and end the process by it; an end in order is exit code 0.
        """
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses what waits, and lets answers finish."""
        self._served.refuse_queue()
        await super().shutdown(sockets)
