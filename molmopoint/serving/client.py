"""A server as if its model were here: the methods of `Pointer`, over HTTP."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Self, TypeVar, overload

from molmopoint.backends.history import Turn
from molmopoint.backends.options import complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.pipeline import TrackingResult
from molmopoint.pipeline.batching import OnError, check_batches, paired
from molmopoint.points import Point
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

POLL_SECONDS = 0.5
"""Between two looks at a job."""

Progress = Callable[[int, int], None]


Result = TypeVar("Result")


class RemoteStream(Iterator[str | Point]):
    """An answer while it is being written: pieces of its words, and points as soon as they are complete.

    Closing it, leaving it as a context, or dropping it ends the answer on the server.

    Args:
        lines: of the stream.
        reader: of the lines.
    """

    def __init__(self, lines: Generator[str], reader: StreamReader) -> None:
        self._lines = lines
        self._reader = reader
        self._events = _events(lines, reader)

    def __next__(self) -> str | Point:
        return next(self._events)

    @property
    def result(self) -> PointingResult | None:
        """The whole answer with scores, once all events were taken; None before."""
        return self._reader.result

    def close(self) -> None:
        """Ends the answer."""
        self._events.close()
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteTextStream(Iterator[str]):
    """Pieces of an answer in words; see `RemoteStream`, whose points are left out here.

    Args:
        events: of the answer.
    """

    def __init__(self, events: RemoteStream) -> None:
        self._events = events

    def __next__(self) -> str:
        while not isinstance(event := next(self._events), str):
            pass
        return event

    @property
    def result(self) -> PointingResult | None:
        """The whole answer, points included, once all pieces were taken; None before."""
        return self._events.result

    def close(self) -> None:
        """Ends the answer."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """A server that points.

        client = molmopoint.Client("http://127.0.0.1:8000")
        client.point("photo.jpg", "the red circles").points

    The bytes of pictures are read here and sent; a client may be used by several threads.

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
                `temperature`, `top_p`, `zoom`, `history` and `allow_urls` (pictures are fetched here).

        Raises:
            ServerError: the server refused it.
        """
        if not isinstance(prompt, str) and isinstance(prompt, Sequence):
            answers = self.point_batch(read_once(image, options), prompt, template=template, **options)
            return [answer for answer in answers if isinstance(answer, PointingResult)]  # errors are raised
        asked = self._question(image, prompt, template, options)
        return pointing_result(self._post("/v1/point", asked.body), asked)

    def count(self, image: Any, phrase: str, *, template: str | None = None, **options: Any) -> int:
        """How many there are; arguments as in `Pointer.count`."""
        asked = self._question(image, phrase, template, options)
        return int(self._post("/v1/count", asked.body)["count"])

    def ask(
        self,
        image: Any,
        question: str,
        *,
        video: Any = None,
        history: Sequence[Turn] | None = None,
        **options: Any,
    ) -> str:
        """An answer in words; arguments as in `Pointer.ask`, about pictures.

        Raises:
            ProcessingError: it is about a clip.
        """
        refuse_clip(video)
        asked = self._question(image, question, "{}", options | {"history": history})
        return str(self._post("/v1/query", as_query(asked))["answer"])

    def ask_stream(
        self,
        image: Any,
        question: str,
        *,
        video: Any = None,
        history: Sequence[Turn] | None = None,
        **options: Any,
    ) -> RemoteTextStream:
        """The answer to a question piece by piece; arguments as in `ask`."""
        refuse_clip(video)
        asked = self._question(image, question, "{}", options | {"history": history})
        lines = self._lines("/v1/query", as_query(asked))
        return RemoteTextStream(RemoteStream(lines, StreamReader(asked)))

    def encode(self, image: Any, *, max_crops: int | None = None, allow_urls: bool = False) -> SentPictures:
        """Reads a picture, or a list of pictures, once, for any number of prompts; the server knows them again
        by their bytes, and looks at them once while it keeps them (`--max-cached`).

        Args:
            image: a picture or a list of pictures.
            max_crops: as in `point`, fixed from here on.
            allow_urls: as in `point`.

        Returns:
            What all methods take in place of the picture.
        """
        return encoded(image, max_crops, allow_urls=allow_urls)

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
        together. Arguments as in `Pointer.point_batch`, without `on_phase`.
        """
        pairs = pairs_of(images, prompts, options)
        return _in_order(partial(self.point, **options), pairs, batch_size, on_error)

    def track_batch(
        self,
        videos: Iterable[Any],
        prompts: str | Iterable[str],
        *,
        batch_size: int = 2,
        on_error: OnError = "raise",
        **options: Any,
    ) -> Iterator[TrackingResult | Exception]:
        """Tracks in many clips, in order; so many are under way at a time. Arguments as in
        `Pointer.track_batch`, without `on_phase`.
        """
        pairs = paired(videos, prompts, "clips")
        return _in_order(partial(self.track, **options), pairs, batch_size, on_error)

    def stream(self, image: Any, prompt: str, *, template: str | None = None, **options: Any) -> RemoteStream:
        """Pieces of the answer's words and points as soon as they are complete; arguments as in `point`."""
        asked = self._question(image, prompt, template, options)
        return RemoteStream(self._lines("/v1/point", asked.body), StreamReader(asked))

    def point_video(
        self, video: Any, prompt: str, *, progress: Progress | None = None, **options: Any
    ) -> PointingResult:
        """Points in a clip; arguments as in `Pointer.point_video`.

        Args:
            video: a file, or its bytes.
            prompt: as in `point`.
            progress: is told how many windows were answered, and how many there are.
            **options: of `Pointer.point_video`, without `timestamps`, `subtitles` and `history`.

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

    def _lines(self, path: str, body: Document) -> Generator[str]:
        with self._http.stream("POST", path, json=body | {"stream": True}) as response:
            if not response.is_success:
                response.read()
                check(response)
            yield from response.iter_lines()

    def _clip(
        self, path: str, video: Any, prompt: str, options: dict[str, Any], progress: Progress | None
    ) -> Document:
        """The answer about a clip; what becomes a job is waited for, and ended if the caller is interrupted."""
        data = clip_form(prompt, self.model, options)
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


def _events(lines: Iterable[str], reader: StreamReader) -> Generator[str | Point]:
    for line in lines:
        yield from reader.events(line)


def _in_order(
    work: Callable[[Any, str], Result], pairs: Iterable[tuple[Any, str]], batch_size: int, on_error: OnError
) -> Iterator[Result | Exception]:
    """What becomes of pairs, in order, with so many of them under way at a time."""
    check_batches(batch_size, on_error)
    return _run(work, pairs, batch_size, on_error)


def _run(
    work: Callable[[Any, str], Result], pairs: Iterable[tuple[Any, str]], batch_size: int, on_error: OnError
) -> Iterator[Result | Exception]:
    under_way: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(batch_size)
    try:
        for image, prompt in pairs:
            under_way.append(pool.submit(work, image, prompt))
            if len(under_way) == 2 * batch_size:
                yield _outcome(under_way.popleft(), on_error)
        while under_way:
            yield _outcome(under_way.popleft(), on_error)
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[Result], on_error: OnError) -> Result | Exception:
    try:
        return future.result()
    except Exception as error:
        if on_error == "yield":
            return error
        raise
