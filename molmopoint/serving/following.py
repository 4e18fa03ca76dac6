"""The events of one job, brought from the threads of an engine to the loop of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import Request

from molmopoint.backends.result import PointingResult
from molmopoint.points import Point
from molmopoint.serving.engine import Event, Job, Prepared
from molmopoint.serving.refusals import CLIENT_GONE, SERVER_ERROR, Refused, as_refused


class Following:
    """Waits for the answer to a job, and ends the job once its client is gone or the time is over.

    Args:
        request: of the client.
        seconds: until the whole answer must be there.

    Attributes:
        job: that is followed; set before it is handed to the engine.
    """

    job: Job

    def __init__(self, request: Request, seconds: float) -> None:
        self._request = request
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + seconds
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._watcher: asyncio.Task[None] | None = None

    def notify(self, event: Event) -> None:
        """Takes an event, from any thread."""
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def begun(self) -> None:
        """Waits until the request of a stream is known to be a good one, so that a bad one gets its status.

        Raises:
            Refused: it is not.
        """
        try:
            event = await self._next()
            if isinstance(event, BaseException):
                raise as_refused(event)
        except BaseException:
            self._end()
            raise

    async def result(self) -> PointingResult:
        """The whole answer.

        Raises:
            Refused: there is none.
        """
        async for event in self:
            if isinstance(event, PointingResult):
                return event
        raise Refused(500, "expected an answer of the model, got none; ask again", SERVER_ERROR)

    async def __aiter__(self) -> AsyncIterator[str | Point | PointingResult]:
        try:
            while True:
                event = await self._next()
                if isinstance(event, BaseException):
                    raise as_refused(event)
                if isinstance(event, Prepared):
                    continue
                yield event
                if isinstance(event, PointingResult):
                    return
        finally:
            self._end()

    async def _next(self) -> Event:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout_at(self._until):
                return await self._events.get()
        except TimeoutError:
            raise Refused(
                504,
                f"expected an answer within {self._seconds:g} seconds, got none; ask for fewer points "
                "or tokens",
                "timeout",
            ) from None

    async def _watch(self) -> None:
        """Waits until the client is gone; then the job ends at its next token."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.job.cancelled.set()
        self._events.put_nowait(Refused(CLIENT_GONE, "the client is gone", "client_gone"))

    def _end(self) -> None:
        self.job.cancelled.set()
        if self._watcher is not None:
            self._watcher.cancel()
