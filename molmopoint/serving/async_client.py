"""The same client for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Self, TypeVar, overload

from molmopoint.backends.history import Turn
from molmopoint.backends.options import complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.pipeline import TrackingResult
from molmopoint.pipeline.batching import OnError, check_batches, paired
from molmopoint.points import Point
from molmopoint.serving.client import POLL_SECONDS, Progress
from molmopoint.serving.messages import (
    Document,
    Question,
    StreamReader,
    as_query,
    check,
    clip_form,
    clip_result,
    encoded,
    failed_job,
    headers_of,
    import_httpx,
    pairs_of,
    pointing_result,
    question,
    read_once,
    refuse_clip,
    tracking_result,
    video_of,
)
from molmopoint.serving.sent_pictures import SentPictures

Result = TypeVar("Result")


class AsyncRemoteStream(AsyncIterator[str | Point]):
    """An answer while it is being written: pieces of its words, and points as soon as they are complete.

    Closing it, or leaving it as a context, ends the answer on the server.

    Args:
        events: of the answer, its result as the last of them.

    Attributes:
        result: the whole answer with scores, once all events were taken; None before.
    """

    def __init__(self, events: AsyncGenerator[str | Point | PointingResult]) -> None:
        self._events = events
        self.result: PointingResult | None = None

    async def __anext__(self) -> str | Point:
        while isinstance(event := await anext(self._events), PointingResult):
            self.result = event
        return event

    async def aclose(self) -> None:
        """Ends the answer."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncRemoteTextStream(AsyncIterator[str]):
    """Pieces of an answer in words; see `AsyncRemoteStream`, whose points are left out here.

    Args:
        events: of the answer.
    """

    def __init__(self, events: AsyncRemoteStream) -> None:
        self._events = events

    async def __anext__(self) -> str:
        while not isinstance(event := await anext(self._events), str):
            pass
        return event

    @property
    def result(self) -> PointingResult | None:
        """The whole answer, points included, once all pieces were taken; None before."""
        return self._events.result

    async def aclose(self) -> None:
        """Ends the answer."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncClient:
    """A server that points, for programs with an event loop; the methods of `Client`, to be awaited.

    Args:
        url: where the server is.
        key: one of its keys, where it asks for one.
        model: name of one of its models; its first one by default.
        timeout: seconds to wait for an answer.

    Raises:
        ImportError: httpx is missing, which the extra `serve` installs.
    """

    def __init__(
        self, url: str, *, key: str | None = None, model: str | None = None, timeout: float = 120.0
    ) -> None:
        self._http: Any = import_httpx().AsyncClient(base_url=url, headers=headers_of(key), timeout=timeout)
        self.model = model

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    async def models(self) -> list[str]:
        """Names of the models of the server, the default one first."""
        response = await self._http.get("/v1/models")
        check(response)
        return [model["id"] for model in response.json()["data"]]

    @overload
    async def point(self, image: Any, prompt: str, **options: Any) -> PointingResult: ...
    @overload
    async def point(self, image: Any, prompt: Sequence[str], **options: Any) -> list[PointingResult]: ...

    async def point(
        self, image: Any, prompt: str | Sequence[str], *, template: str | None = None, **options: Any
    ) -> PointingResult | list[PointingResult]:
        """Points at what the prompt names; as `Client.point`."""
        if not isinstance(prompt, str) and isinstance(prompt, Sequence):
            images = await asyncio.to_thread(read_once, image, options)
            answers = self.point_batch(images, prompt, template=template, **options)
            return [answer async for answer in answers if isinstance(answer, PointingResult)]
        return await self._point(image, prompt, template=template, **options)

    async def count(self, image: Any, phrase: str, *, template: str | None = None, **options: Any) -> int:
        """How many there are; as `Client.count`."""
        asked = await self._question(image, phrase, template, options)
        return int((await self._post("/v1/count", asked.body))["count"])

    async def ask(
        self,
        image: Any,
        question: str,
        *,
        video: Any = None,
        history: Sequence[Turn] | None = None,
        **options: Any,
    ) -> str:
        """An answer in words; as `Client.ask`."""
        refuse_clip(video)
        asked = await self._question(image, question, "{}", options | {"history": history})
        return str((await self._post("/v1/query", as_query(asked)))["answer"])

    def ask_stream(
        self,
        image: Any,
        question: str,
        *,
        video: Any = None,
        history: Sequence[Turn] | None = None,
        **options: Any,
    ) -> AsyncRemoteTextStream:
        """The answer to a question piece by piece, for `async for`; as `Client.ask_stream`."""
        refuse_clip(video)
        asked = self._question(image, question, "{}", options | {"history": history})
        return AsyncRemoteTextStream(AsyncRemoteStream(self._events("/v1/query", asked, as_query)))

    async def encode(
        self, image: Any, *, max_crops: int | None = None, allow_urls: bool = False
    ) -> SentPictures:
        """Reads a picture, or a list of pictures, once, for any number of prompts; as `Client.encode`."""
        return await asyncio.to_thread(encoded, image, max_crops, allow_urls=allow_urls)

    def point_batch(
        self,
        images: Iterable[Any],
        prompts: str | Iterable[str],
        *,
        batch_size: int = 8,
        on_error: OnError = "raise",
        **options: Any,
    ) -> AsyncGenerator[PointingResult | Exception]:
        """Answers to many requests, in order, so many of them under way at a time; as `Client.point_batch`."""
        pairs = pairs_of(images, prompts, options)
        return _in_order(partial(self._point, **options), pairs, batch_size, on_error)

    def track_batch(
        self,
        videos: Iterable[Any],
        prompts: str | Iterable[str],
        *,
        batch_size: int = 2,
        on_error: OnError = "raise",
        **options: Any,
    ) -> AsyncGenerator[TrackingResult | Exception]:
        """Tracks in many clips, in order, so many of them under way at a time; as `Client.track_batch`."""
        pairs = paired(videos, prompts, "clips")
        return _in_order(partial(self.track, **options), pairs, batch_size, on_error)

    def stream(
        self, image: Any, prompt: str, *, template: str | None = None, **options: Any
    ) -> AsyncRemoteStream:
        """Pieces of the answer's words and points as soon as they are complete, for `async for`; as
        `Client.stream`.
        """
        asked = self._question(image, prompt, template, options)
        return AsyncRemoteStream(self._events("/v1/point", asked, lambda asked: asked.body))

    async def point_video(
        self, video: Any, prompt: str, *, progress: Progress | None = None, **options: Any
    ) -> PointingResult:
        """Points in a clip; as `Client.point_video`."""
        answer = await self._clip("/v1/video/point", video, prompt, options, progress)
        return clip_result(answer, video, complete_prompt(prompt, options.get("template")))

    async def track(
        self, video: Any, prompt: str, *, progress: Progress | None = None, **options: Any
    ) -> TrackingResult:
        """Follows objects through a clip; as `Client.track`."""
        return tracking_result(await self._clip("/v1/video/track", video, prompt, options, progress), video)

    async def score(
        self, prompt: str, responses: Sequence[str], images: Any = None, *, permutations: int = 1
    ) -> list[float]:
        """Scores of answers; as `Client.score`."""
        asked = await self._question(images, prompt, None, {}, model=None)
        body = asked.body | {"responses": list(responses), "permutations": permutations}
        return [float(score) for score in (await self._post("/v1/reward", body))["scores"]]

    async def _point(
        self, image: Any, prompt: str, *, template: str | None = None, **options: Any
    ) -> PointingResult:
        asked = await self._question(image, prompt, template, options)
        return pointing_result(await self._post("/v1/point", asked.body), asked)

    async def _question(
        self, image: Any, prompt: str, template: str | None, options: dict[str, Any], **more: Any
    ) -> Question:
        """Reads pictures in a thread, for that may take time; what is ready to be sent needs none."""
        if image is None or isinstance(image, SentPictures):
            return self._prepared(image, prompt, template, options, **more)
        return await asyncio.to_thread(self._prepared, image, prompt, template, options, **more)

    def _prepared(
        self, image: Any, prompt: str, template: str | None, options: dict[str, Any], **more: Any
    ) -> Question:
        settings = {"model": self.model, **more}
        return question(image, prompt, template, options, **settings)

    async def _events(
        self, path: str, asking: Coroutine[Any, Any, Question], body_of: Callable[[Question], Document]
    ) -> AsyncGenerator[str | Point | PointingResult]:
        asked = await asking
        reader = StreamReader(asked)
        body = body_of(asked) | {"stream": True}
        async with self._http.stream("POST", path, json=body) as response:
            if not response.is_success:
                await response.aread()
                check(response)
            async for line in response.aiter_lines():
                for event in reader.events(line):
                    yield event
        if reader.result is not None:
            yield reader.result

    async def _post(self, path: str, body: Document) -> Document:
        response = await self._http.post(path, json=body)
        check(response)
        return response.json()

    async def _clip(
        self, path: str, video: Any, prompt: str, options: dict[str, Any], progress: Progress | None
    ) -> Document:
        data = clip_form(prompt, self.model, options)
        file = await asyncio.to_thread(video_of, video)
        response = await self._http.post(path, data=data, files={"video": file})
        check(response)
        if response.status_code != 202:
            return response.json()
        job = response.json()
        try:
            return await self._finished(job, progress)
        except BaseException:
            await self._http.delete(f"/v1/jobs/{job['id']}")
            raise

    async def _finished(self, job: Document, progress: Progress | None) -> Document:
        told = None
        while job["status"] in ("queued", "running"):
            await asyncio.sleep(POLL_SECONDS)
            response = await self._http.get(f"/v1/jobs/{job['id']}")
            check(response)
            job = response.json()
            if progress is not None and job["progress"] not in (None, told):
                told = job["progress"]
                progress(told["done"], told["of"])
        if job["result"] is None:
            raise failed_job(job)
        return job["result"]


def _in_order(
    work: Callable[[Any, str], Awaitable[Result]],
    pairs: Iterable[tuple[Any, str]],
    batch_size: int,
    on_error: OnError,
) -> AsyncGenerator[Result | Exception]:
    """What becomes of pairs, in order, with so many of them under way at a time."""
    check_batches(batch_size, on_error)
    return _run(work, pairs, batch_size, on_error)


async def _run(
    work: Callable[[Any, str], Awaitable[Result]],
    pairs: Iterable[tuple[Any, str]],
    batch_size: int,
    on_error: OnError,
) -> AsyncGenerator[Result | Exception]:
    under_way: deque[asyncio.Future[Result]] = deque()
    try:
        for image, prompt in pairs:
            under_way.append(asyncio.ensure_future(work(image, prompt)))
            if len(under_way) == batch_size:
                yield await _outcome(under_way.popleft(), on_error)
        while under_way:
            yield await _outcome(under_way.popleft(), on_error)
    finally:
        for task in under_way:
            task.cancel()


async def _outcome(task: asyncio.Future[Result], on_error: OnError) -> Result | Exception:
    try:
        return await task
    except Exception as error:
        if on_error == "yield":
            return error
        raise
