"""Our own routes: points, counts and answers about pictures."""

from __future__ import annotations

import asyncio
import base64
import io
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from PIL import Image

from molmopoint.backends.history import Turn
from molmopoint.backends.result import PointingResult, count_of
from molmopoint.points import Point
from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.following import Following
from molmopoint.serving.refusals import Refused, valid
from molmopoint.serving.routes.clips import clip_answer
from molmopoint.serving.schemas import (
    EarlierTurn,
    PointAnswer,
    PointAsked,
    QueryAnswer,
    QueryAsked,
    VideoPointAsked,
)
from molmopoint.serving.server import Answering, Server, point_out
from molmopoint.serving.streams import Document, event_stream

PointBody = Annotated[PointAsked, Depends(body_of(PointAsked))]
QueryBody = Annotated[QueryAsked, Depends(body_of(QueryAsked))]
Complete = Callable[[Answering, str, str | None], str]
"""The request that a model is sent for a text and a template."""

_HEAT_SIDE = 256
"""Longer side of a heatmap; it is smooth, and clients stretch it over the picture."""

_MOST_HEATMAPS = 64
_JSON = "application/json"


def routes(server: Server) -> APIRouter:
    """Points, counts, and answers in words."""
    router = APIRouter(tags=["points"])

    @router.post(
        "/v1/point",
        response_model=PointAnswer,
        summary="Points at what the prompt names",
        openapi_extra=described(PointAsked),
    )
    async def point(asked: PointBody, request: Request) -> Any:
        """Points in pixels of the displayed pictures; of a clip, as /v1/video/point gives them."""
        if asked.video is not None or asked.video_file:
            return await clip_answer(server, "point", _about_clip(asked), request)
        return await _point(server, asked, request, Answering.complete_prompt)

    @router.post(
        "/v1/count",
        response_model=PointAnswer,
        summary="Counts what the prompt names",
        openapi_extra=described(PointAsked),
    )
    async def count(asked: PointBody, request: Request) -> Any:
        """The same, asked as a question for a number; `count` is the answer."""
        return await _point(server, asked, request, Answering.complete_count)

    @router.post(
        "/v1/query",
        response_model=QueryAnswer,
        summary="Answers a question in words",
        openapi_extra=described(QueryAsked),
    )
    async def query(asked: QueryBody, request: Request) -> Any:
        """The question is sent exactly as it is."""
        return await _query(server, asked, request)

    return router


def _turns(history: Sequence[EarlierTurn]) -> list[Turn]:
    """Earlier turns for a model.

    Raises:
        Refused: points that cannot be.
    """
    return [valid(turn.as_turn) for turn in history]


def _about_clip(asked: PointAsked) -> VideoPointAsked:
    """The same question for the route of clips.

    Raises:
        Refused: it is about pictures, too, or wants what clips do not have.
    """
    if asked.heatmap:
        raise Refused(422, "expected no heatmap of a clip, got one; it is for pictures")
    if asked.zoom:
        raise Refused(422, "expected no zoom for a clip, got one; every frame is a single crop")
    if asked.history:
        raise Refused(422, "expected no history for a clip, got some; it is for pictures")
    if asked.calibrated:
        raise Refused(422, "expected calibrated=false for a clip, got true; it is for pictures")
    names = VideoPointAsked.model_fields.keys() & asked.model_fields_set
    clip = VideoPointAsked(**{name: getattr(asked, name) for name in names})
    clip.take_files(asked.files)
    return clip


async def _point_answer(
    model: Answering, followed: Following, result: PointingResult, heatmap: bool
) -> PointAnswer:
    """The answer that clients get."""
    points = [point_out(point, result) for point in result]
    if heatmap and result.distributions is not None:
        for number, point in enumerate(points[:_MOST_HEATMAPS]):
            point.heatmap = await asyncio.to_thread(_heatmap, result, number)
    return PointAnswer(
        points=points,
        text=result.text,
        count=count_of(result),
        absent=None if math.isnan(result.absent) else result.absent,
        truncated=result.truncated,
        image_sizes=list(result.image_sizes),
        calibrated=result.calibrated,
        notes=list(result.notes),
        looks=result.looks,
        usage=model.usage(followed, result),
        model=model.name,
    )


def _heatmap(result: PointingResult, number: int) -> str:
    """A grey PNG as a data URL."""
    heat = result.heatmap(number, _HEAT_SIDE)  # (height, width)
    brightest = float(heat.max()) or 1.0
    grey = np.rint(heat * (255 / brightest)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _without(heatmap: bool) -> dict[str, Any]:
    """What is left out of answers: heatmaps that nobody asked for."""
    return {} if heatmap else {"exclude": {"points": {"__all__": {"heatmap"}}}}


async def _point(server: Server, asked: PointAsked, request: Request, complete: Complete) -> Any:
    model = server.model(asked.model)
    if asked.single and not asked.pictures:
        raise Refused(400, "expected a picture for single, got a request of text alone")
    if asked.zoom and (asked.stream or asked.heatmap):
        other = "stream" if asked.stream else "heatmap"
        raise Refused(
            422,
            f"expected zoom or {other}, got both; the points are known when all looks are answered, and have "
            "no heatmap of one look",
        )
    options = server.options(
        asked,
        max_points=asked.max_points,
        single=asked.single,
        min_score=asked.min_score,
        zoom=asked.zoom,
        calibrated=asked.calibrated,
    )
    prompt = valid(lambda: complete(model, asked.prompt, asked.template))
    followed = await server.ask(
        model,
        asked.pictures,
        prompt,
        options,
        request,
        streams=asked.stream,
        history=_turns(asked.history),
    )
    if asked.stream:
        return event_stream(_point_events(model, followed, asked.heatmap))
    answer = await _point_answer(model, followed, await followed.result(), asked.heatmap)
    # Written at once: what is known to have this form need not be checked again.
    return Response(answer.model_dump_json(**_without(asked.heatmap)), media_type=_JSON)


async def _query(server: Server, asked: QueryAsked, request: Request) -> Any:
    model = server.model(asked.model)
    options = server.options(asked)
    prompt = valid(lambda: model.complete_question(asked.question))
    followed = await server.ask(
        model,
        asked.pictures,
        prompt,
        options,
        request,
        streams=asked.stream,
        history=_turns(asked.history),
    )
    if asked.stream:
        return event_stream(_query_events(model, followed))
    return _query_answer(model, followed, await followed.result())


def _query_answer(model: Answering, followed: Following, result: PointingResult) -> QueryAnswer:
    return QueryAnswer(
        answer=result.text,
        truncated=result.truncated,
        usage=model.usage(followed, result),
        model=model.name,
    )


async def _point_events(model: Answering, followed: Following, heatmap: bool) -> AsyncIterator[Document]:
    async for event in followed:
        if isinstance(event, str):
            yield {"type": "text", "text": event}
        elif isinstance(event, Point):
            place = {"x": event.x, "y": event.y, "image": int(event.group), "object_id": event.object_id}
            yield {"type": "point", "point": place}
        else:
            answer = await _point_answer(model, followed, event, heatmap)
            yield {"type": "result", **answer.model_dump(**_without(heatmap))}


async def _query_events(model: Answering, followed: Following) -> AsyncIterator[Document]:
    async for event in followed:
        if isinstance(event, str):
            yield {"type": "text", "text": event}
        elif isinstance(event, PointingResult):
            answer = await _point_answer(model, followed, event, heatmap=False)
            yield {"type": "result", "answer": answer.text, **answer.model_dump(**_without(heatmap=False))}
