"""What stands before every route: keys, the size and the pace of bodies, requests per client, and counting."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from molmopoint.serving.figures import Figures
from molmopoint.serving.limits import Limits
from molmopoint.serving.refusals import Refused, error_response

_SLOWEST = 2**18
"""Bytes a second that a large body comes at, beyond the time that every body has."""

CLIENT_KEY = "molmopoint.client"
"""Entry of a scope that says whose key it was."""


class Gate:
    """Asks for a key, refuses bodies that are too large or too slow, and counts requests.

    Args:
        application: behind it.
        keys: of clients; without any, nobody is asked.
        limits: of the server.
        figures: that are counted.
        paths: of all routes; others are counted as one.
        open_paths: that ask for no key and are not limited.
        video_paths: whose bodies may be as large as videos.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        keys: Sequence[str],
        limits: Limits,
        figures: Figures,
        paths: Collection[str],
        open_paths: Collection[str],
        video_paths: Collection[str],
    ) -> None:
        self._application = application
        self._digests = [_digest(key) for key in keys]
        self._limits = limits
        self._figures = figures
        self._paths = frozenset(paths)
        self._open_paths = frozenset(open_paths)
        self._video_paths = frozenset(video_paths)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        known = path if path in self._paths else "other"

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._figures.requests.labels(known, message["status"]).inc()
            await send(message)

        headers = Headers(scope=scope)
        try:
            client = self._checked(path, scope, headers)
        except Refused as error:
            self._figures.count_error(error.kind)
            await error_response(error)(scope, receive, counting)
            return
        self._open[client] += 1
        if self._digests:
            scope[CLIENT_KEY] = client
        body = _Body(receive, self._most_bytes(path), self._limits.body_seconds)
        try:
            await self._application(scope, body.receive, counting)
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]

    def _checked(self, path: str, scope: Scope, headers: Headers) -> str:
        """Who asks.

        Raises:
            Refused: no key of this server, a body that is too large, or too many requests at once.
        """
        if path in self._open_paths:
            return ""
        key = _key(headers)
        if self._digests and not self._is_known(key):
            raise Refused(
                401,
                "expected `Authorization: Bearer KEY` with a key of this server, got another or none",
                "invalid_api_key",
            )
        length = headers.get("content-length", "")
        most = self._most_bytes(path)
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        address = scope.get("client") or ("",)
        client = _digest(key).hex() if self._digests else str(address[0])
        most_open = self._limits.client_requests
        if most_open is not None and self._open[client] >= most_open:
            raise Refused(
                429,
                f"expected at most {most_open} open requests of one client, got more; wait for their answers",
                "rate_limit_exceeded",
            )
        return client

    def _most_bytes(self, path: str) -> int:
        limits = self._limits
        return max(limits.video_bytes, limits.body_bytes) if path in self._video_paths else limits.body_bytes

    def _is_known(self, key: str) -> bool:
        digest = _digest(key)
        found = False
        for known in self._digests:  # all of them, so that the time tells nothing
            found |= hmac.compare_digest(known, digest)
        return found


class _Body:
    """The body of one request, as far as the limits go.

    Args:
        receive: of the request.
        most: bytes.
        seconds: until it must be whole.
    """

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most = most
        self._seconds = seconds
        self._taken = 0
        self._is_whole = False
        self._until = asyncio.get_running_loop().time() + seconds

    async def receive(self) -> Message:
        """The next message.

        Raises:
            Refused: the body is too large, or does not come in time.
        """
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise Refused(
                408,
                f"expected the whole body within {self._seconds:g} seconds, got a part of it; "
                "send it faster, or a smaller picture",
                "timeout",
            ) from None
        length = len(message.get("body", b""))
        self._taken += length
        self._until += length / _SLOWEST
        self._is_whole = not message.get("more_body", False)
        if self._taken > self._most:
            raise _too_large(self._most)
        return message


def _too_large(most: int) -> Refused:
    return Refused(413, f"expected a body of at most {most:,} bytes, got more; send smaller files")


def _key(headers: Headers) -> str:
    """The key that a request has: OpenAI's way, or that of Moondream's client."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return headers.get("x-moondream-auth", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
