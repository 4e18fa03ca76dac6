"""Scores of answers, by a reward model."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.refusals import Refused
from molmopoint.serving.schemas import RewardAnswer, RewardAsked
from molmopoint.serving.server import Server

RewardBody = Annotated[RewardAsked, Depends(body_of(RewardAsked))]


def routes(server: Server) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["reward"])

    @router.post(
        "/v1/reward",
        response_model=RewardAnswer,
        summary="Scores answers",
        openapi_extra=described(RewardAsked),
    )
    async def reward(asked: RewardBody, request: Request) -> Any:
        """Scores compare the answers of one request only; `order` has the best answer first."""
        most = server.limits.responses
        if len(asked.responses) > most:
            raise Refused(400, f"expected at most {most} responses, got {len(asked.responses)}; send fewer")
        name, scores = await server.score(asked)
        order = sorted(range(len(scores)), key=lambda number: -scores[number])
        return RewardAnswer(scores=scores, order=order, model=name)

    return router
