"""The routes of a server: our own, OpenAI's, Moondream's, and the form of home-made servers.

Every route makes a `Job` for the engine of its model and waits for its events. What is refused has OpenAI's
error object, with what was expected, what came and what to do.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import math
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from molmopoint.backends.options import COUNTING_TEMPLATE, AnswerOptions, complete_prompt
from molmopoint.backends.result import PointingResult, count_of
from molmopoint.errors import MolmoPointError, NumericalError
from molmopoint.files.addresses import bytes_of_data_address, is_data_address
from molmopoint.pipeline import Pointer
from molmopoint.points import Point
from molmopoint.serving.engine import Closed, Engine, Event, Job, QueueFull
from molmopoint.serving.limits import Limits
from molmopoint.serving.schemas import (
    Asked,
    ChatAsked,
    MoondreamCaptionAsked,
    MoondreamPointAsked,
    MoondreamQueryAsked,
    PointAnswer,
    PointAsked,
    PointOut,
    PredictAsked,
    QueryAnswer,
    QueryAsked,
    Usage,
)
from molmopoint.serving.styles import STYLES, PointStyle, write_points

CAPTION = {
    "short": "Describe this image in one sentence.",
    "normal": "Describe this image.",
    "long": "Describe this image in detail.",
}
_CLIENT_GONE = 499
_OPEN_PATHS = ("/health", "/openapi.json", "/docs")
"""Routes that ask for no key."""


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        kind: of the error, as OpenAI calls them.
    """

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def app(
    models: Mapping[str, Pointer],
    *,
    keys: Sequence[str] = (),
    limits: Limits | None = None,
    point_style: PointStyle = "json",
) -> FastAPI:
    """A server as an ASGI application, to run with uvicorn or to mount in another one.

    Args:
        models: by the names that clients use; the first one answers requests that name none.
        keys: of clients; without any, nobody is asked for one.
        limits: of requests.
        point_style: of points in chat answers, where neither the request nor the name of the model says
            otherwise.

    Raises:
        ValueError: there are no models, or a name has a colon, behind which the style of points stands.
    """
    if not models or any(":" in name or not name for name in models):
        raise ValueError(f"expected one or more models with names without a colon, got {list(models)}")
    server = Server(models, limits or Limits(), point_style)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.close)

    application = FastAPI(title="molmopoint", description="Points in pictures, over HTTP.", lifespan=lifespan)
    application.state.server = server
    application.include_router(server.router)
    application.add_middleware(Gate, keys=tuple(keys), limits=server.limits, server=server)
    application.add_exception_handler(Refused, _refused)
    application.add_exception_handler(RequestValidationError, _invalid)
    application.add_exception_handler(HTTPException, _http_error)
    return application


class Server:
    """The models of an application, and what it counts."""

    def __init__(self, models: Mapping[str, Pointer], limits: Limits, point_style: PointStyle) -> None:
        self.limits = limits
        self.point_style: PointStyle = point_style
        self.engines = {name: Engine(pointer, limits) for name, pointer in models.items()}
        self.requests: Counter[tuple[str, int]] = Counter()
        self.tokens: Counter[str] = Counter()
        self.started = time.time()
        self.router = self._routes()
        self.paths = frozenset(route.path for route in self.router.routes if isinstance(route, APIRoute))

    def close(self) -> None:
        """Answers what was taken, and stops."""
        for engine in self.engines.values():
            engine.close()

    def _routes(self) -> APIRouter:
        """All routes."""
        router = APIRouter()
        router.post("/v1/point", response_model=PointAnswer, summary="Points at what the prompt names")(
            self.point
        )
        router.post("/v1/count", response_model=PointAnswer, summary="Counts what the prompt names")(
            self.count
        )
        router.post("/v1/query", response_model=QueryAnswer, summary="Answers a question in words")(
            self.query
        )
        router.post("/v1/chat/completions", summary="OpenAI's chat completion")(self.chat)
        router.get("/v1/models", summary="The models of this server")(self.models)
        router.get("/health", summary="Whether the server answers")(self.health)
        router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)(
            self.metrics
        )
        router.post("/point", summary="Moondream's form of pointing")(self.moondream_point)
        router.post("/query", summary="Moondream's form of a question")(self.moondream_query)
        router.post("/caption", summary="Moondream's form of a caption")(self.moondream_caption)
        router.post("/predict", summary="The form of home-made servers")(self.predict)
        return router

    # Our own routes

    async def point(self, asked: PointAsked, request: Request) -> Any:
        """Points in pixels of the displayed pictures."""
        return await self._point(asked, request, complete_prompt)

    async def count(self, asked: PointAsked, request: Request) -> Any:
        """The same, asked as a question for a number; `count` is the answer."""

        def as_question(text: str, template: str | None) -> str:
            return complete_prompt(text, template, default=COUNTING_TEMPLATE)

        return await self._point(asked, request, as_question)

    async def query(self, asked: QueryAsked, request: Request) -> Any:
        """An answer in words."""
        name, engine = self._engine(asked.model)
        options = self._options(asked)
        prompt = _valid(lambda: complete_prompt(asked.question, "{}"))
        answer = self._ask(engine, asked.pictures, prompt, options, request, streams=asked.stream)
        if asked.stream:
            return _events(self._query_events(answer, name, engine))
        result = await answer.result()
        return QueryAnswer(
            answer=result.text,
            truncated=result.truncated,
            usage=self._usage(answer, result, engine),
            model=name,
        )

    async def models(self) -> dict[str, Any]:
        """OpenAI's list."""
        data = [
            {"id": name, "object": "model", "created": int(self.started), "owned_by": "molmopoint"}
            for name in self.engines
        ]
        return {"object": "list", "data": data}

    async def health(self) -> dict[str, Any]:
        """Readiness, and how many requests are open."""
        return {"status": "ok", "open": {name: engine.num_open for name, engine in self.engines.items()}}

    async def metrics(self) -> PlainTextResponse:
        """Prometheus' text."""
        return PlainTextResponse(self._figures(), media_type="text/plain; version=0.0.4")

    # Forms of others

    async def chat(self, asked: ChatAsked, request: Request) -> Any:
        """Text with points in a style of `molmopoint.serving.styles`."""
        name, _, named_style = (asked.model or "").partition(":")
        known, engine = self._engine(name or None)
        style = asked.point_style or _style(named_style) or self.point_style
        prompt, pictures = _last_question(asked)
        most = asked.max_completion_tokens or asked.max_tokens
        given = Asked(max_tokens=most, temperature=asked.temperature, top_p=asked.top_p)
        answer = self._ask(
            engine,
            pictures,
            _valid(lambda: complete_prompt(prompt)),
            self._options(given),
            request,
            streams=asked.stream,
        )
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        if asked.stream:
            return _events(self._chat_events(answer, identity, known, style, engine))
        result = await answer.result()
        usage = self._usage(answer, result, engine)
        return {
            "id": identity,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": known,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": write_points(result, style)},
                    "finish_reason": "length" if result.truncated else "stop",
                }
            ],
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
        }

    async def moondream_point(self, asked: MoondreamPointAsked, request: Request) -> Any:
        """Points from 0 to 1."""
        result = await self._plain(asked.image_url, asked.object, request)
        points = [_point_out(point, result) for point in result.points]
        return {"points": [{"x": point.x_norm, "y": point.y_norm} for point in points]}

    async def moondream_query(self, asked: MoondreamQueryAsked, request: Request) -> Any:
        """An answer in words."""
        result = await self._plain(asked.image_url, asked.question, request, template="{}")
        return {"answer": result.text}

    async def moondream_caption(self, asked: MoondreamCaptionAsked, request: Request) -> Any:
        """What the model says of the picture."""
        result = await self._plain(asked.image_url, CAPTION[asked.length], request, template="{}")
        return {"caption": result.text}

    async def predict(self, asked: PredictAsked, request: Request) -> Any:
        """Points in pixels."""
        picture = asked.image_b64 or asked.image_base64
        if picture is None:
            raise Refused(422, "expected image_b64 or image_base64, got neither; pass the picture as base64")
        result = await self._plain(picture, asked.prompt, request)
        points = [[round(point.x, 2), round(point.y, 2)] for point in result.points]
        width, height = result.image_sizes[0]
        return {"points": points, "text": result.text, "image_size": [width, height]}

    # How they are answered

    async def _point(
        self, asked: PointAsked, request: Request, complete: Callable[[str, str | None], str]
    ) -> Any:
        name, engine = self._engine(asked.model)
        if asked.single and not asked.pictures:
            raise Refused(400, "expected a picture for single, got a request of text alone")
        options = self._options(
            asked, max_points=asked.max_points, single=asked.single, min_score=asked.min_score
        )
        prompt = _valid(lambda: complete(asked.prompt, asked.template))
        answer = self._ask(engine, asked.pictures, prompt, options, request, streams=asked.stream)
        if asked.stream:
            return _events(self._point_events(answer, name, engine))
        result = await answer.result()
        return self._point_answer(answer, result, name, engine)

    async def _plain(
        self, picture: str, prompt: str, request: Request, template: str | None = None
    ) -> PointingResult:
        _, engine = self._engine(None)
        sent = _valid(lambda: complete_prompt(prompt, template))
        answer = self._ask(engine, [picture], sent, self._options(Asked()), request)
        return await answer.result()

    def _ask(
        self,
        engine: Engine,
        pictures: Sequence[str],
        prompt: str,
        options: AnswerOptions,
        request: Request,
        *,
        streams: bool = False,
    ) -> Following:
        """Hands a question to an engine."""
        if len(pictures) > self.limits.pictures:
            raise Refused(
                400, f"expected at most {self.limits.pictures} pictures, got {len(pictures)}; ask about fewer"
            )
        contents = tuple(_bytes_of(picture) for picture in pictures)
        key = None
        if contents:
            digest = hashlib.sha256()
            for content in contents:
                digest.update(hashlib.sha256(content).digest())
            key = digest.hexdigest()
        following = Following(request, self.limits.seconds)
        job = Job(contents, key, prompt, options, following.notify, streams=streams)
        following.job = job
        try:
            engine.submit(job)
        except QueueFull as error:
            raise Refused(429, str(error), "rate_limit_exceeded") from error
        except Closed as error:
            raise Refused(503, str(error), "server_error") from error
        return following

    def _engine(self, name: str | None) -> tuple[str, Engine]:
        if name is None:
            return next(iter(self.engines.items()))
        if name not in self.engines:
            raise Refused(
                404,
                f"expected one of the models {', '.join(self.engines)}, got {name!r}; see /v1/models",
                "model_not_found",
            )
        return name, self.engines[name]

    def _options(self, asked: Asked, **more: Any) -> AnswerOptions:
        limits = self.limits
        if asked.max_crops is not None and asked.max_crops > limits.crops:
            raise Refused(
                400, f"expected max_crops of at most {limits.crops}, got {asked.max_crops}; ask for fewer"
            )
        most_points = more.get("max_points")
        if most_points is not None and most_points > limits.points:
            raise Refused(
                400, f"expected max_points of at most {limits.points}, got {most_points}; ask for fewer"
            )
        if asked.max_tokens is not None and asked.max_tokens > limits.tokens:
            raise Refused(
                400, f"expected max_tokens of at most {limits.tokens}, got {asked.max_tokens}; ask for fewer"
            )
        sampling: dict[str, Any] = {}
        if asked.temperature:
            sampling["temperature"] = asked.temperature
            if asked.top_p is not None:
                sampling["top_p"] = asked.top_p
        tokens = asked.max_tokens or min(AnswerOptions.max_new_tokens, limits.tokens)
        return _valid(
            lambda: AnswerOptions(max_new_tokens=tokens, max_crops=asked.max_crops, sampling=sampling, **more)
        )

    def _usage(self, answer: Following, result: PointingResult, engine: Engine) -> Usage:
        request = answer.job.request
        prompt_tokens = 0 if request is None else len(request.row)
        completion_tokens = engine.count_tokens(result)
        self.tokens["prompt"] += prompt_tokens
        self.tokens["completion"] += completion_tokens
        seconds = time.monotonic() - answer.job.started
        return Usage(
            prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, seconds=round(seconds, 4)
        )

    def _point_answer(
        self, answer: Following, result: PointingResult, name: str, engine: Engine
    ) -> PointAnswer:
        return PointAnswer(
            points=[_point_out(point, result) for point in result],
            text=result.text,
            count=count_of(result),
            absent=None if math.isnan(result.absent) else result.absent,
            truncated=result.truncated,
            image_sizes=list(result.image_sizes),
            notes=list(result.notes),
            usage=self._usage(answer, result, engine),
            model=name,
        )

    # Streams

    async def _point_events(
        self, answer: Following, name: str, engine: Engine
    ) -> AsyncIterator[dict[str, Any]]:
        async for event in answer:
            if isinstance(event, str):
                yield {"type": "text", "text": event}
            elif isinstance(event, Point):
                yield {
                    "type": "point",
                    "point": {
                        "x": event.x,
                        "y": event.y,
                        "image": int(event.group),
                        "object_id": event.object_id,
                    },
                }
            else:
                yield {
                    "type": "result",
                    **self._point_answer(answer, event, name, engine).model_dump(),
                }

    async def _query_events(
        self, answer: Following, name: str, engine: Engine
    ) -> AsyncIterator[dict[str, Any]]:
        async for event in answer:
            if isinstance(event, str):
                yield {"type": "text", "text": event}
            elif isinstance(event, PointingResult):
                usage = self._usage(answer, event, engine)
                yield {
                    "type": "result",
                    "answer": event.text,
                    "truncated": event.truncated,
                    "usage": usage.model_dump(),
                    "model": name,
                }

    async def _chat_events(
        self, answer: Following, identity: str, name: str, style: PointStyle, engine: Engine
    ) -> AsyncIterator[dict[str, Any]]:
        """Words as they come in the native style; in others the points decide what is said, so the text comes
        at the end.
        """

        def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return {
                "id": identity,
                "object": "chat.completion.chunk",
                "created": int(time.time()),
                "model": name,
                "choices": [choice],
            }

        yield chunk({"role": "assistant", "content": ""})
        async for event in answer:
            if isinstance(event, str) and style == "native":
                yield chunk({"content": event})
            elif isinstance(event, PointingResult):
                self._usage(answer, event, engine)
                if style != "native":
                    yield chunk({"content": write_points(event, style)})
                yield chunk({}, "length" if event.truncated else "stop")

    def _figures(self) -> str:
        lines = ["# TYPE molmopoint_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'molmopoint_requests_total{{path="{path}",status="{status}"}} {count}')
        lines.append("# TYPE molmopoint_tokens_total counter")
        for kind, count in sorted(self.tokens.items()):
            lines.append(f'molmopoint_tokens_total{{kind="{kind}"}} {count}')
        lines += ["# TYPE molmopoint_open_requests gauge", "# TYPE molmopoint_batches_total counter"]
        lines += [
            "# TYPE molmopoint_seconds_total counter",
            "# TYPE molmopoint_cached_pictures_total counter",
        ]
        for name, engine in self.engines.items():
            figures = engine.figures
            lines.append(f'molmopoint_open_requests{{model="{name}"}} {engine.num_open}')
            lines.append(f'molmopoint_cached_pictures_total{{model="{name}"}} {figures.cached}')
            for size, count in sorted(figures.batches.items()):
                lines.append(f'molmopoint_batches_total{{model="{name}",size="{size}"}} {count}')
            for stage, seconds in figures.seconds.items():
                lines.append(f'molmopoint_seconds_total{{model="{name}",stage="{stage}"}} {seconds:.6f}')
        return "\n".join(lines) + "\n"


class Following:
    """The events of one job, brought from the threads of the engine to the loop of the server.

    Args:
        request: of the client; once it is gone, the job is cancelled.
        seconds: until the whole answer must be there.
    """

    job: Job

    def __init__(self, request: Request, seconds: float) -> None:
        self._request = request
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def notify(self, event: Event) -> None:
        """Takes an event, from any thread."""
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def result(self) -> PointingResult:
        """The whole answer.

        Raises:
            Refused: there is none.
        """
        async for event in self:
            if isinstance(event, PointingResult):
                return event
        raise Refused(500, "expected an answer of the model, got none; ask again", "server_error")

    async def __aiter__(self) -> AsyncIterator[str | Point | PointingResult]:
        try:
            while True:
                event = await self._next()
                if isinstance(event, BaseException):
                    raise _as_refused(event)
                yield event
                if isinstance(event, PointingResult):
                    return
        finally:
            self.job.cancelled.set()

    async def _next(self) -> Event:
        """The next event; meanwhile it looks now and then whether the client is still there."""
        while True:
            left = self._until - time.monotonic()
            if left <= 0:
                raise Refused(
                    504,
                    f"expected an answer within {self._seconds:g} seconds, got none; ask for fewer points "
                    "or tokens",
                    "timeout",
                )
            try:
                return await asyncio.wait_for(self._events.get(), min(left, 0.25))
            except TimeoutError:
                if await self._request.is_disconnected():
                    raise Refused(_CLIENT_GONE, "the client is gone") from None


class Gate:
    """Asks for a key, refuses bodies that are too large, and counts requests.

    Args:
        application: behind it.
        keys: of clients; without any, nobody is asked.
        limits: of the server.
        server: that counts.
    """

    def __init__(self, application: ASGIApp, keys: tuple[str, ...], limits: Limits, server: Server) -> None:
        self._application = application
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._limits = limits
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        path = scope["path"]
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        counted = send

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = path if path in self._server.paths else "other"
                self._server.requests[known, message["status"]] += 1
            await counted(message)

        if self._digests and path not in _OPEN_PATHS and not self._is_known(headers.get("authorization", "")):
            refused = _error(
                401,
                "expected `Authorization: Bearer KEY` with a key of this server, got another or none",
                "invalid_api_key",
            )
            await refused(scope, receive, count)
            return
        too_large = (
            f"expected a body of at most {self._limits.body_bytes} bytes, got more; send smaller pictures"
        )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.body_bytes:
            await _error(413, too_large)(scope, receive, count)
            return

        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limits.body_bytes:
                raise HTTPException(413, too_large)
            return message

        await self._application(scope, limited, count)

    def _is_known(self, header: str) -> bool:
        scheme, _, key = header.partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "replace")).digest()
        found = False
        for known in self._digests:  # all of them, so that the time tells nothing
            found |= hmac.compare_digest(known, digest)
        return found and scheme.lower() == "bearer"


def _style(name: str) -> PointStyle | None:
    """The style that stands behind the name of a model; None without one."""
    if not name:
        return None
    if name not in STYLES:
        raise Refused(
            400,
            f"expected a point style, one of {', '.join(STYLES)}, got {name!r}; write it behind the name of "
            "the model",
        )
    return cast(PointStyle, name)


def _bytes_of(picture: str) -> bytes:
    """The bytes of a picture that came as base64 or as a data URL; never a path, never an address."""
    if is_data_address(picture):
        return _valid(lambda: bytes_of_data_address(picture))
    try:
        content = base64.b64decode(picture, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            400,
            f"expected a picture as base64 or as a data URL, got {picture[:40]!r}; send its bytes, not a "
            "path",
        ) from error
    if not content:
        raise Refused(400, "expected the bytes of a picture, got none")
    return content


def _last_question(asked: ChatAsked) -> tuple[str, list[str]]:
    """Text and pictures of the user's message of a chat.

    Earlier turns would need the places of earlier answers, which text does not hold.
    """
    said = [message for message in asked.messages if message.role != "system"]
    if len(said) != 1 or said[0].role != "user":
        raise Refused(
            400,
            f"expected one message of the user, got {len(said)} messages; send each question with its "
            "pictures, without history",
        )
    content = said[0].content or ""
    if isinstance(content, str):
        return content, []
    texts = [part.text for part in content if part.type == "text" and part.text]
    pictures = [
        part.image_url.url for part in content if part.type == "image_url" and part.image_url is not None
    ]
    return "\n".join(texts), pictures


def _point_out(point: Point, result: PointingResult) -> PointOut:
    picture = int(point.group)
    width, height = result.image_sizes[picture]
    return PointOut(
        x=point.x,
        y=point.y,
        x_norm=point.x / width,
        y_norm=point.y / height,
        image=picture,
        object_id=point.object_id,
        label=point.label,
        score=None if math.isnan(point.score) else point.score,
    )


def _valid(make: Callable[[], Any]) -> Any:
    """What a function of the library makes of a request; what it refuses is the client's fault."""
    try:
        return make()
    except (MolmoPointError, TypeError) as error:
        raise Refused(400, str(error)) from error


def _as_refused(error: BaseException) -> Exception:
    if isinstance(error, Refused):
        return error
    if isinstance(error, NumericalError):
        return Refused(500, str(error), "server_error")
    if isinstance(error, MolmoPointError):
        return Refused(400, str(error))
    return Refused(
        500,
        f"expected an answer of the model, got {type(error).__name__}; see the log of the server",
        "server_error",
    )


def _error(status: int, message: str, kind: str = "invalid_request_error") -> JSONResponse:
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(error.status, str(error), error.kind)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = []
    for fault in error.errors()[:5]:
        place = ".".join(str(part) for part in fault["loc"] if part != "body")
        faults.append(f"{place or 'body'}: {fault['msg']}")
    return _error(422, f"expected a request as /docs describes it, got: {'; '.join(faults)}")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404:
        message = "expected one of the routes that /docs lists, got another one"
    return _error(error.status_code, message)


def _events(events: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Server-sent events; the last one says that it is done."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for event in events:
                yield f"data: {json.dumps(event)}\n\n"
        except Refused as error:
            yield f"data: {json.dumps({'error': {'message': str(error), 'type': error.kind, 'code': error.status}})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(
        lines(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
