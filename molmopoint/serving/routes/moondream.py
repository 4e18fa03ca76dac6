"""Moondream's routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.routes.plain import plain_answer
from molmopoint.serving.schemas import MoondreamCaptionAsked, MoondreamPointAsked, MoondreamQueryAsked
from molmopoint.serving.server import Server, point_out
from molmopoint.serving.streams import Document

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
        result = await plain_answer(server, asked.image_url, asked.object, request)
        points = [point_out(point, result) for point in result.points]
        return {"points": [{"x": point.x_norm, "y": point.y_norm} for point in points]}

    @router.post(
        "/query", summary="Moondream's form of a question", openapi_extra=described(MoondreamQueryAsked)
    )
    async def query(asked: QueryBody, request: Request) -> Document:
        """An answer in words."""
        result = await plain_answer(server, asked.image_url, asked.question, request, template="{}")
        return {"answer": result.text}

    @router.post(
        "/caption", summary="Moondream's form of a caption", openapi_extra=described(MoondreamCaptionAsked)
    )
    async def caption(asked: CaptionBody, request: Request) -> Document:
        """What the model says of the picture."""
        result = await plain_answer(server, asked.image_url, CAPTION[asked.length], request, template="{}")
        return {"caption": result.text}

    return router
