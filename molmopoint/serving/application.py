"""A server put together: models, routes, the gate before them, and what is said of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from molmopoint.pipeline import Pointer
from molmopoint.reward import Judge
from molmopoint.serving.bodies import with_models
from molmopoint.serving.gate import Gate
from molmopoint.serving.limits import Limits
from molmopoint.serving.refusals import CLIENT_GONE, Refused, error_response, of_fields, of_http
from molmopoint.serving.routes import clips, moondream, native, openai, page, plain, rewards, status
from molmopoint.serving.schemas import BODIES
from molmopoint.serving.server import Loader, Server
from molmopoint.serving.styles import PointStyle
from molmopoint.version import __version__

_DESCRIPTION = "Points in pictures and clips, over HTTP."
_OPEN_PATHS = (status.HEALTH, "/openapi.json", "/docs")
"""Routes that ask for no key, beside the page."""


def app(
    models: Mapping[str, Pointer | Loader],
    *,
    reward_models: Mapping[str, Judge | Loader] | None = None,
    keys: Sequence[str] = (),
    limits: Limits | None = None,
    point_style: PointStyle = "json",
    allow_urls: bool = False,
    on_fault: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """A server as an ASGI application, to run with uvicorn or to mount in another one.

    Args:
        models: by the names that clients use; the first one answers requests that name none. A function in
            place of a model loads it once the server runs; until then its requests get 503.
        reward_models: by name, for /v1/reward.
        keys: of clients; without any, nobody is asked for one.
        limits: of requests.
        point_style: of points in chat answers, where neither the request nor the name of the model says
            otherwise.
        allow_urls: pictures may be addresses of the web; they are fetched from public hosts alone.
        on_fault: is told if a model cannot be loaded.

    Raises:
        ValueError: there are no models, or a name has a colon, behind which the style of points stands.
    """
    names = [*models, *(reward_models or {})]
    if not models or any(":" in name or not name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"expected one or more models with names of their own without a colon, got {names}")
    server = Server(
        models, reward_models or {}, limits or Limits(), point_style=point_style, allow_urls=allow_urls
    )

    async def load() -> None:
        try:
            await asyncio.to_thread(server.load)
        except Exception as error:
            if on_fault is None:
                raise
            on_fault(error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(load())
        yield
        await asyncio.wait([loading])
        await asyncio.to_thread(server.close)

    application = FastAPI(
        title="molmopoint", version=__version__, description=_DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    application.state.server = server
    files = page.page_files()
    families = (native, clips, rewards, openai, moondream, plain, status)
    routers = [*(family.routes(server) for family in families), page.routes(files)]
    for router in routers:
        application.include_router(router)
    application.add_middleware(
        Gate,
        keys=tuple(keys),
        limits=server.limits,
        figures=server.figures,
        paths=list(chain.from_iterable(_paths(router) for router in routers)),
        open_paths=(*_OPEN_PATHS, *(file.path for file in files)),
        video_paths=clips.VIDEO_PATHS,
    )
    _tell_errors(application, server)
    _describe_bodies(application)
    return application


def _paths(router: APIRouter) -> list[str]:
    """Of the routes of a router; not every version of the framework lists them among those of the application."""
    return [route.path for route in router.routes if isinstance(route, APIRoute)]


def _tell_errors(application: FastAPI, server: Server) -> None:
    """All errors have one form, and are counted."""

    def respond(error: Refused) -> Response:
        server.figures.count_error(error.kind)
        return error_response(error)

    @application.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return respond(error)

    @application.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return respond(of_fields(error))

    @application.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        """A client that left before its body was whole; nobody reads the answer."""
        return respond(Refused(CLIENT_GONE, "the client is gone", "client_gone"))

    @application.exception_handler(HTTPException)
    async def of_framework(_: Request, error: HTTPException) -> Response:
        return respond(of_http(error))


def _describe_bodies(application: FastAPI) -> None:
    """The OpenAPI description also has the bodies, which routes read themselves."""
    describe = application.openapi

    def openapi() -> dict[str, Any]:
        if application.openapi_schema is None:
            application.openapi_schema = with_models(describe(), BODIES)
        return application.openapi_schema

    application.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
