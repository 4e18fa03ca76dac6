"""A server as if its model were here: the methods of `Pointer`, over HTTP."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, overload

from molmopoint.backends.options import COUNTING_TEMPLATE, complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.pipeline import TrackingResult
from molmopoint.pipeline.batching import OnError, paired
from molmopoint.points import Point
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

POLL_SECONDS = 0.5
"""Between two looks at a job."""

Progress = Callable[[int, int], None]


class RemoteStream(Iterator[str | Point]):
    """An answer while it is being written: pieces of its words, and points as soon as they are complete.

    Args:
        lines: of the stream.
        reader: of the lines.
    """

    def __init__(self, lines: Iterator[str], reader: StreamReader) -> None:
        self._reader = reader
        self._events = (event for line in lines for event in reader.events(line))

    def __next__(self) -> str | Point:
        return next(self._events)

    @property
    def result(self) -> PointingResult | None:
        """The whole answer with scores, once all events were taken; None before."""
        return self._reader.result


class Client:
    """A server that points.

        client = molmopoint.Client("http://127.0.0.1:8000")
        client.point("photo.jpg", "the red circles").points

    Pictures are read here and sent; a client may be used by several threads.

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
        self._http: Any = import_httpx().Client(base_url=url, headers=headers_of(key), timeout=timeout)
        self.model = model

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def models(self) -> list[str]:
        """Names of the models of the server, the default one first."""
        response = self._http.get("/v1/models")
        check(response)
        return [model["id"] for model in response.json()["data"]]

    @overload
    def point(self, image: Any, prompt: str, **options: Any) -> PointingResult: ...
    @overload
    def point(self, image: Any, prompt: Sequence[str], **options: Any) -> list[PointingResult]: ...

    def point(
        self, image: Any, prompt: str | Sequence[str], *, template: str | None = None, **options: Any
    ) -> PointingResult | list[PointingResult]:
        """Points at what the prompt names; arguments as in `Pointer.point`.

        Args:
            image: a picture in any form that `Pointer.point` takes, or a list of them.
            prompt: a noun phrase, a request or a question; several give a list of results.
            template: where the prompt goes instead.
            **options: `single`, `max_points`, `min_score`, `calibrated`, `max_crops`, `max_new_tokens`,
                `temperature`, `top_p`.

        Raises:
            ServerError: the server refused it.
        """
        if not isinstance(prompt, str):
            return [self.point(image, each, template=template, **options) for each in prompt]
        asked = self._question(image, prompt, template, options)
        return pointing_result(self._post("/v1/point", asked.body), asked)

    def count(self, image: Any, phrase: str, *, template: str | None = None, **options: Any) -> int:
        """How many there are; arguments as in `Pointer.count`."""
        sent = complete_prompt(phrase, template, default=COUNTING_TEMPLATE)
        asked = self._question(image, sent, "{}", options)
        return int(self._post("/v1/count", asked.body)["count"])

    def ask(self, image: Any, question: str, **options: Any) -> str:
        """An answer in words; arguments as in `Pointer.ask`."""
        body = self._question(image, question, "{}", options).body
        del body["template"]
        body["question"] = body.pop("prompt")
        return str(self._post("/v1/query", body)["answer"])

    def point_batch(
        self,
        images: Iterable[Any],
        prompts: str | Iterable[str],
        *,
        batch_size: int = 8,
        on_error: OnError = "raise",
        **options: Any,
    ) -> Iterator[PointingResult | Exception]:
        """Answers to many requests, in order; so many are under way at a time, and the server puts them
        together. Arguments as in `Pointer.point_batch`.
        """
        with ThreadPoolExecutor(batch_size) as pool:
            under_way: deque[Future[PointingResult]] = deque()
            for image, prompt in paired(images, prompts):
                under_way.append(pool.submit(partial(self.point, image, prompt, **options)))
                if len(under_way) == 2 * batch_size:
                    yield _outcome(under_way.popleft(), on_error)
            while under_way:
                yield _outcome(under_way.popleft(), on_error)

    def stream(self, image: Any, prompt: str, *, template: str | None = None, **options: Any) -> RemoteStream:
        """Pieces of the answer's words and points as soon as they are complete; arguments as in `point`."""
        asked = self._question(image, prompt, template, options)
        return RemoteStream(self._lines(asked), StreamReader(asked))

    def point_video(
        self, video: Any, prompt: str, *, progress: Progress | None = None, **options: Any
    ) -> PointingResult:
        """Points in a clip; arguments as in `Pointer.point_video`.

        Args:
            video: a file, or its bytes.
            prompt: as in `point`.
            progress: is told how many windows were answered, and how many there are.
            **options: of `Pointer.point_video`, without frames in memory, subtitles and history.

        Raises:
            ServerError: the server refused it.
        """
        answer = self._clip("/v1/video/point", video, prompt, options, progress)
        return clip_result(answer, video, complete_prompt(prompt, options.get("template")))

    def track(
        self, video: Any, prompt: str, *, progress: Progress | None = None, **options: Any
    ) -> TrackingResult:
        """Follows objects through a clip; arguments as in `Pointer.track` and `point_video`."""
        return tracking_result(self._clip("/v1/video/track", video, prompt, options, progress), video)

    def score(
        self, prompt: str, responses: Sequence[str], images: Any = None, *, permutations: int = 1
    ) -> list[float]:
        """Scores of answers, higher is better, where the server has a reward model; as `Judge.score`."""
        asked = self._question(images, prompt, None, {}, model=None)
        body = asked.body | {"responses": list(responses), "permutations": permutations}
        return [float(score) for score in self._post("/v1/reward", body)["scores"]]

    def _question(
        self, image: Any, prompt: str, template: str | None, options: dict[str, Any], **more: Any
    ) -> Question:
        settings = {"model": self.model, **more}
        return question(image, prompt, template, options, **settings)

    def _post(self, path: str, body: Document) -> Document:
        response = self._http.post(path, json=body)
        check(response)
        return response.json()

    def _lines(self, asked: Question) -> Iterator[str]:
        with self._http.stream("POST", "/v1/point", json=asked.body | {"stream": True}) as response:
            if not response.is_success:
                response.read()
                check(response)
            yield from response.iter_lines()

    def _clip(
        self, path: str, video: Any, prompt: str, options: dict[str, Any], progress: Progress | None
    ) -> Document:
        """The answer about a clip; what becomes a job is waited for, and ended if the caller is interrupted."""
        data = form({"model": self.model, "prompt": prompt, **options})
        response = self._http.post(path, data=data, files={"video": video_of(video)})
        check(response)
        if response.status_code != 202:
            return response.json()
        job = response.json()
        try:
            return self._finished(job, progress)
        except BaseException:
            self._http.delete(f"/v1/jobs/{job['id']}")
            raise

    def _finished(self, job: Document, progress: Progress | None) -> Document:
        told = None
        while job["status"] in ("queued", "running"):
            time.sleep(POLL_SECONDS)
            response = self._http.get(f"/v1/jobs/{job['id']}")
            check(response)
            job = response.json()
            if progress is not None and job["progress"] not in (None, told):
                told = job["progress"]
                progress(told["done"], told["of"])
        if job["result"] is None:
            raise failed_job(job)
        return job["result"]


def _outcome(future: Future[PointingResult], on_error: OnError) -> PointingResult | Exception:
    try:
        return future.result()
    except Exception as error:
        if on_error == "yield":
            return error
        raise
