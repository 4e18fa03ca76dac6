"""OpenAI's routes: chats about pictures, and the list of models."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request

from molmopoint.backends.options import complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.following import Following
from molmopoint.serving.refusals import Refused, valid
from molmopoint.serving.schemas import Asked, ChatAsked
from molmopoint.serving.server import Answering, Server
from molmopoint.serving.streams import Document, event_stream
from molmopoint.serving.styles import STYLES, PointStyle, write_points

ChatBody = Annotated[ChatAsked, Depends(body_of(ChatAsked))]


def routes(server: Server) -> APIRouter:
    """Chats and models."""
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/chat/completions", summary="OpenAI's chat completion", openapi_extra=described(ChatAsked)
    )
    async def chat(asked: ChatBody, request: Request) -> Any:
        """Text with points in a style: of `point_style`, of the name of the model, or of the server."""
        return await _chat(server, asked, request)

    @router.get("/v1/models", summary="The models of this server")
    async def models() -> Document:
        """OpenAI's list."""
        return {"object": "list", "data": [_model(server, name) for name in server.names]}

    return router


def _model(server: Server, name: str) -> Document:
    return {"id": name, "object": "model", "created": int(server.started), "owned_by": "molmopoint"}


async def _chat(server: Server, asked: ChatAsked, request: Request) -> Any:
    name, _, named_style = (asked.model or "").partition(":")
    model = server.model(name or None)
    style = asked.point_style or _style(named_style) or server.point_style
    prompt, pictures = _last_question(asked)
    most = asked.max_completion_tokens or asked.max_tokens
    options = server.options(Asked(max_tokens=most, temperature=asked.temperature, top_p=asked.top_p))
    sent = valid(lambda: complete_prompt(prompt))
    followed = await server.ask(model, pictures, sent, options, request, streams=asked.stream)
    identity = f"chatcmpl-{uuid.uuid4().hex}"
    if asked.stream:
        return event_stream(_chat_events(model, followed, identity, style))
    result = await followed.result()
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": write_points(result, style)},
        "finish_reason": _reason(result),
    }
    return {
        "id": identity,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model.name,
        "choices": [choice],
        "usage": _usage(model, followed, result),
    }


async def _chat_events(
    model: Answering, followed: Following, identity: str, style: PointStyle
) -> AsyncIterator[Document]:
    """Words as they come in the native style; in others the points decide what is said, so the text comes at
    the end.
    """

    def chunk(delta: Document, reason: str | None = None) -> Document:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {
            "id": identity,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model.name,
            "choices": [choice],
        }

    yield chunk({"role": "assistant", "content": ""})
    async for event in followed:
        if isinstance(event, str) and style == "native":
            yield chunk({"content": event})
        elif isinstance(event, PointingResult):
            model.usage(followed, event)
            if style != "native":
                yield chunk({"content": write_points(event, style)})
            yield chunk({}, _reason(event))


def _reason(result: PointingResult) -> str:
    return "length" if result.truncated else "stop"


def _usage(model: Answering, followed: Following, result: PointingResult) -> Document:
    usage = model.usage(followed, result)
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _style(name: str) -> PointStyle | None:
    """The style that stands behind the name of a model; None without one."""
    if not name:
        return None
    if name not in STYLES:
        raise Refused(
            400,
            f"expected a point style, one of {', '.join(STYLES)}, got {name[:40]!r}; write it behind the name "
            "of the model",
        )
    return cast(PointStyle, name)


def _last_question(asked: ChatAsked) -> tuple[str, list[str | bytes]]:
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
    shown = [part.image_url for part in content if part.type == "image_url"]
    pictures: list[str | bytes] = [image.url for image in shown if image is not None]
    return "\n".join(texts), pictures
