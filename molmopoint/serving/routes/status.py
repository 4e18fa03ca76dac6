"""What watches a server: readiness, and figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from molmopoint.serving.figures import CONTENT_TYPE
from molmopoint.serving.server import Server

HEALTH = "/health"


def routes(server: Server) -> APIRouter:
    """Readiness and figures."""
    router = APIRouter(tags=["status"])

    @router.get(HEALTH, summary="Whether the server answers")
    async def health() -> Response:
        """200 with the number of open requests; 503 while models are being loaded."""
        status = "ok" if server.is_ready else "loading"
        numbers = {name: engine.num_open for name, engine in server.engines.items()}
        return JSONResponse({"status": status, "open": numbers}, 200 if server.is_ready else 503)

    @router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus' text."""
        return Response(server.figures.text(), media_type=CONTENT_TYPE)

    return router
