"""Clips: points and tracks in a video, at once or as a job."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.clips import ClipWork, Kind
from molmopoint.serving.jobs import ClipJob
from molmopoint.serving.pictures import decoded
from molmopoint.serving.refusals import CLIENT_GONE, SERVER_ERROR, Refused
from molmopoint.serving.schemas import ClipAsked, JobAnswer, TrackAsked, VideoPointAsked
from molmopoint.serving.server import Server, client_of
from molmopoint.serving.streams import Document

PointBody = Annotated[VideoPointAsked, Depends(body_of(VideoPointAsked))]
TrackBody = Annotated[TrackAsked, Depends(body_of(TrackAsked))]
POINT_PATHS = ("/v1/video/point",)
TRACK_PATHS = ("/v1/video/track", "/v1/track")
VIDEO_PATHS = (*POINT_PATHS, *TRACK_PATHS)
"""Where bodies may be as large as videos."""

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": JobAnswer, "description": "It takes longer: a job, to be asked for at /v1/jobs/ID."}
}


def routes(server: Server) -> APIRouter:
    """Points, tracks and jobs."""
    router = APIRouter(tags=["clips"])

    async def point(asked: PointBody, request: Request) -> Response:
        """Points with the seconds at which they are, in pixels of the displayed video."""
        return await clip_answer(server, "point", asked, request)

    async def track(asked: TrackBody, request: Request) -> Response:
        """Where objects are over time; `tracks` is what `molmopoint.Tracks.from_dict` reads."""
        return await clip_answer(server, "track", asked, request)

    for path in POINT_PATHS:
        router.add_api_route(
            path,
            point,
            methods=["POST"],
            summary="Points in a clip",
            responses=_ACCEPTED,
            openapi_extra=described(VideoPointAsked),
        )
    for path in TRACK_PATHS:
        router.add_api_route(
            path,
            track,
            methods=["POST"],
            summary="Follows objects through a clip",
            responses=_ACCEPTED,
            openapi_extra=described(TrackAsked),
        )

    @router.get("/v1/jobs/{identity}", response_model=JobAnswer, summary="How far a job is, and its result")
    async def job(identity: str, request: Request) -> Any:
        """`status` is queued, running, done, failed or cancelled."""
        return server.jobs.find(identity, client_of(request)).document()

    @router.delete("/v1/jobs/{identity}", response_model=JobAnswer, summary="Ends a job")
    async def cancel(identity: str, request: Request) -> Any:
        """Its work stops at the next token."""
        found = server.jobs.find(identity, client_of(request))
        server.jobs.cancel(found)
        return found.document()

    return router


async def clip_answer(server: Server, kind: Kind, asked: ClipAsked, request: Request) -> Response:
    """The answer, or a job if it takes longer than the client waits.

    Raises:
        Refused: the request cannot be used.
    """
    model = server.model(asked.model)
    options = clip_options(server, kind, asked)
    video = asked.video_file if asked.video is None else await asyncio.to_thread(decoded, asked.video)
    if not video:
        raise Refused(400, "expected the bytes of a video in the field video, got none")
    work = ClipWork(kind, video, asked.prompt, options, model.engine, model.name, server.limits)
    job = server.jobs.submit(work, client_of(request))
    if asked.background is True or not await _finished(server, job, asked, request):
        return JSONResponse(job.document(), 202, {"Location": f"/v1/jobs/{job.id}"})
    server.jobs.drop(job)
    if job.error is not None:
        raise job.error
    if job.result is None:
        raise Refused(503, "expected a running server, got one that is being stopped", SERVER_ERROR)
    return JSONResponse(job.result)


async def _finished(server: Server, job: ClipJob, asked: ClipAsked, request: Request) -> bool:
    """Whether a job ends while its client waits; one that leaves ends it."""
    limits = server.limits
    seconds = limits.inline_seconds if asked.background is None else limits.seconds
    waiting = asyncio.create_task(server.jobs.wait(job, seconds))
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done() and waiting.result():
            return True
        if leaving.done():
            server.jobs.cancel(job)
            raise Refused(CLIENT_GONE, "the client is gone", "client_gone")
        if asked.background is False:
            server.jobs.cancel(job)
            raise Refused(
                504,
                f"expected an answer within {seconds:g} seconds, got none; ask for a job with "
                '"background": true',
                "timeout",
            )
        return False
    finally:
        waiting.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def clip_options(server: Server, kind: Kind, asked: ClipAsked) -> Document:
    """Keywords of `Pointer.point_video` or `Pointer.track`.

    Raises:
        Refused: they ask for more than the server gives.
    """
    limits = server.limits
    if asked.pictures or asked.stream or asked.max_crops is not None:
        raise Refused(
            422,
            "expected a video alone, without pictures, stream and max_crops, got one of them; leave it out",
        )
    if asked.max_frames is not None and asked.max_frames > limits.frames:
        raise Refused(
            400, f"expected max_frames of at most {limits.frames}, got {asked.max_frames}; ask for fewer"
        )
    checked = server.options(asked, max_points=asked.max_points)
    options = asked.clip_keywords()
    options |= dict(checked.sampling)
    if asked.max_tokens is not None:
        options["max_new_tokens"] = asked.max_tokens
    elif kind == "track":
        options["max_new_tokens"] = min(limits.tokens, 4096)
    else:
        options["max_new_tokens"] = checked.max_new_tokens
    return options
