"""Moondream's routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from molmopoint.backends.result import PointingResult
from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.following import Following
from molmopoint.serving.refusals import valid
from molmopoint.serving.schemas import (
    Asked,
    MoondreamAsked,
    MoondreamCaptionAsked,
    MoondreamPointAsked,
    MoondreamQueryAsked,
    MoondreamSettings,
)
from molmopoint.serving.server import Answering, Server, point_out
from molmopoint.serving.streams import Document, event_stream

CAPTION = {
    "short": "Describe this image in one sentence.",
    "normal": "Describe this image.",
    "long": "Describe this image in detail.",
}

PointBody = Annotated[MoondreamPointAsked, Depends(body_of(MoondreamPointAsked))]
QueryBody = Annotated[MoondreamQueryAsked, Depends(body_of(MoondreamQueryAsked))]
CaptionBody = Annotated[MoondreamCaptionAsked, Depends(body_of(MoondreamCaptionAsked))]


def routes(server: Server) -> APIRouter:
    """Points, questions and captions."""
    router = APIRouter(tags=["Moondream"])

    @router.post(
        "/point", summary="Moondream's form of pointing", openapi_extra=described(MoondreamPointAsked)
    )
    async def point(asked: PointBody, request: Request) -> Document:
        """Points from 0 to 1."""
        most = None if asked.settings is None else asked.settings.max_objects
        model, followed = await _ask(
            server, asked, [asked.image_url], asked.object, request, most, points=True
        )
        result = await followed.result()
        model.usage(followed, result)
        points = [point_out(point, result) for point in result.points]
        return {"points": [{"x": point.x_norm, "y": point.y_norm} for point in points]}

    @router.post(
        "/query", summary="Moondream's form of a question", openapi_extra=described(MoondreamQueryAsked)
    )
    async def query(asked: QueryBody, request: Request) -> Any:
        """An answer in words."""
        pictures = [] if asked.image_url is None else [asked.image_url]
        model, followed = await _ask(server, asked, pictures, asked.question, request)
        return await _words(model, followed, asked, "answer")

    @router.post(
        "/caption", summary="Moondream's form of a caption", openapi_extra=described(MoondreamCaptionAsked)
    )
    async def caption(asked: CaptionBody, request: Request) -> Any:
        """What the model says of the picture."""
        model, followed = await _ask(server, asked, [asked.image_url], CAPTION[asked.length], request)
        return await _words(model, followed, asked, "caption")

    return router


async def _ask(
    server: Server,
    asked: MoondreamAsked,
    pictures: Sequence[str],
    text: str,
    request: Request,
    max_points: int | None = None,
    *,
    points: bool = False,
) -> tuple[Answering, Following]:
    """Hands a question to its model."""
    model = server.model(asked.model)
    settings = asked.settings or MoondreamSettings()
    wanted = Asked(
        max_tokens=settings.max_tokens, temperature=settings.temperature or 0.0, top_p=settings.top_p
    )
    options = server.options(wanted, max_points=max_points)
    prompt = valid(lambda: model.complete_prompt(text) if points else model.complete_question(text))
    return model, await server.ask(model, pictures, prompt, options, request, streams=asked.stream)


async def _words(model: Answering, followed: Following, asked: MoondreamAsked, name: str) -> Any:
    """An answer in words, whole or as a stream of chunks."""
    if asked.stream:
        return event_stream(_chunks(model, followed), end=None)
    result = await followed.result()
    model.usage(followed, result)
    return {name: result.text}


async def _chunks(model: Answering, followed: Following) -> AsyncIterator[Document]:
    async for event in followed:
        if isinstance(event, str):
            yield {"chunk": event, "completed": False}
        elif isinstance(event, PointingResult):
            model.usage(followed, event)
            yield {"chunk": "", "completed": True}
