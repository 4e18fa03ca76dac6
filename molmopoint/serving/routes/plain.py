"""The form that home-made servers have: one picture, one prompt, points."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.refusals import Refused, valid
from molmopoint.serving.schemas import Asked, PredictAsked
from molmopoint.serving.server import Server
from molmopoint.serving.streams import Document

PredictBody = Annotated[PredictAsked, Depends(body_of(PredictAsked))]


def routes(server: Server) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["home-made"])

    @router.post("/predict", summary="The form of home-made servers", openapi_extra=described(PredictAsked))
    async def predict(asked: PredictBody, request: Request) -> Document:
        """Points in pixels."""
        picture = asked.image_b64 or asked.image_base64
        if picture is None:
            raise Refused(422, "expected image_b64 or image_base64, got neither; pass the picture as base64")
        model = server.model(None)
        prompt = valid(lambda: model.complete_prompt(asked.prompt))
        followed = await server.ask(model, [picture], prompt, server.options(Asked()), request)
        result = await followed.result()
        model.usage(followed, result)
        points = [[round(point.x, 2), round(point.y, 2)] for point in result.points]
        return {"points": points, "text": result.text, "image_size": list(result.image_sizes[0])}

    return router
