"""The same client for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from molmopoint.backends.options import COUNTING_TEMPLATE, complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.pipeline import TrackingResult
from molmopoint.pipeline.batching import OnError, paired
from molmopoint.points import Point
from molmopoint.serving.client import POLL_SECONDS, Progress
from molmopoint.serving.messages import (
    Document,
    Question,
    StreamReader,
    check,
    clip_result,
    failed_job,
    form,
    headers_of,
    import_httpx,
    pointing_result,
    question,
    tracking_result,
    video_of,
)


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

    async def point(
        self, image: Any, prompt: str, *, template: str | None = None, **options: Any
    ) -> PointingResult:
        """Points at what the prompt names; as `Client.point`."""
        asked = await self._question(image, prompt, template, options)
        return pointing_result(await self._post("/v1/point", asked.body), asked)

    async def count(self, image: Any, phrase: str, *, template: str | None = None, **options: Any) -> int:
        """How many there are; as `Client.count`."""
        sent = complete_prompt(phrase, template, default=COUNTING_TEMPLATE)
        asked = await self._question(image, sent, "{}", options)
        return int((await self._post("/v1/count", asked.body))["count"])

    async def ask(self, image: Any, question: str, **options: Any) -> str:
        """An answer in words; as `Client.ask`."""
        body = (await self._question(image, question, "{}", options)).body
        del body["template"]
        body["question"] = body.pop("prompt")
        return str((await self._post("/v1/query", body))["answer"])

    async def point_batch(
        self,
        images: Iterable[Any],
        prompts: str | Iterable[str],
        *,
        batch_size: int = 8,
        on_error: OnError = "raise",
        **options: Any,
    ) -> AsyncIterator[PointingResult | Exception]:
        """Answers to many requests, in order, so many of them under way at a time; as `Client.point_batch`."""
        under_way: deque[asyncio.Task[PointingResult]] = deque()
        try:
            for image, prompt in paired(images, prompts):
                under_way.append(asyncio.create_task(self.point(image, prompt, **options)))
                if len(under_way) == batch_size:
                    yield await _outcome(under_way.popleft(), on_error)
            while under_way:
                yield await _outcome(under_way.popleft(), on_error)
        finally:
            for task in under_way:
                task.cancel()

    async def stream(
        self, image: Any, prompt: str, *, template: str | None = None, **options: Any
    ) -> AsyncIterator[str | Point]:
        """Pieces of the answer's words and points as soon as they are complete."""
        asked = await self._question(image, prompt, template, options)
        reader = StreamReader(asked)
        body = asked.body | {"stream": True}
        async with self._http.stream("POST", "/v1/point", json=body) as response:
            if not response.is_success:
                await response.aread()
                check(response)
            async for line in response.aiter_lines():
                for event in reader.events(line):
                    yield event

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

    async def _question(
        self, image: Any, prompt: str, template: str | None, options: dict[str, Any], **more: Any
    ) -> Question:
        """Reads pictures in a thread, for that takes time."""
        settings = {"model": self.model, **more}
        return await asyncio.to_thread(question, image, prompt, template, options, **settings)

    async def _post(self, path: str, body: Document) -> Document:
        response = await self._http.post(path, json=body)
        check(response)
        return response.json()

    async def _clip(
        self, path: str, video: Any, prompt: str, options: dict[str, Any], progress: Progress | None
    ) -> Document:
        data = form({"model": self.model, "prompt": prompt, **options})
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


async def _outcome(task: asyncio.Task[PointingResult], on_error: OnError) -> PointingResult | Exception:
    try:
        return await task
    except Exception as error:
        if on_error == "yield":
            return error
        raise
