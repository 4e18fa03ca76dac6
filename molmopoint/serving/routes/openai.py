"""OpenAI's routes: chats about pictures, and the list of models."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request

from molmopoint.backends.result import PointingResult
from molmopoint.serving.bodies import body_of, described
from molmopoint.serving.following import Following
from molmopoint.serving.refusals import Refused, valid
from molmopoint.serving.schemas import Asked, ChatAsked, Message
from molmopoint.serving.server import Answering, Server
from molmopoint.serving.streams import Document, event_stream
from molmopoint.serving.styles import STYLES, PointStyle, name_asked_for, write_points

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

    @router.get("/v1/models/{name:path}", summary="One model")
    async def one_model(name: str) -> Document:
        """OpenAI's form of a model."""
        if name not in server.names:
            raise Refused(
                404, f"expected one of {', '.join(server.names)}, got {name[:200]!r}", "model_not_found"
            )
        return _model(server, name)

    return router


def _model(server: Server, name: str) -> Document:
    return {"id": name, "object": "model", "created": int(server.started), "owned_by": "molmopoint"}


async def _chat(server: Server, asked: ChatAsked, request: Request) -> Any:
    name, _, named_style = (asked.model or "").partition(":")
    model = server.model(name or None)
    style = asked.point_style or _style(named_style) or server.point_style
    said = _conversation(asked)
    most = asked.max_completion_tokens or asked.max_tokens
    options = server.options(Asked(max_tokens=most, temperature=asked.temperature or 0.0, top_p=asked.top_p))
    sent = valid(lambda: model.complete_prompt(name_asked_for(said.prompt)))
    streams = bool(asked.stream)
    followed = await server.ask(
        model, said.pictures, sent, options, request, streams=streams, history=said.history
    )
    identity = f"chatcmpl-{uuid.uuid4().hex}"
    if streams:
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        return event_stream(_chat_events(model, followed, identity, style, with_usage=with_usage))
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
    model: Answering, followed: Following, identity: str, style: PointStyle, *, with_usage: bool
) -> AsyncIterator[Document]:
    """Words as they come in the native style; in others the points decide what is said, so the text comes at
    the end.
    """

    def chunk(delta: Document, reason: str | None = None) -> Document:
        return frame | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    frame = {
        "id": identity,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model.name,
    }

    yield chunk({"role": "assistant", "content": ""})
    async for event in followed:
        if isinstance(event, str) and style == "native":
            yield chunk({"content": event})
        elif isinstance(event, PointingResult):
            usage = _usage(model, followed, event)
            if style != "native":
                yield chunk({"content": write_points(event, style)})
            yield chunk({}, _reason(event))
            if with_usage:
                yield frame | {"choices": [], "usage": usage}


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


@dataclass(frozen=True)
class _Conversation:
    """What a chat says.

    Attributes:
        prompt: the user's last message.
        pictures: of all messages, in their order.
        history: earlier questions and answers.
    """

    prompt: str
    pictures: list[str | bytes]
    history: list[tuple[str, str]]


def _conversation(asked: ChatAsked) -> _Conversation:
    """Reads a chat. Templates of the models know no system turn, so what the system says is not sent.

    Raises:
        Refused: user and assistant do not take turns, or the user does not speak last.
    """
    said = [message for message in asked.messages if message.role in ("user", "assistant")]
    roles = [message.role for message in said]
    if roles != ["user", "assistant"] * (len(said) // 2) + ["user"]:
        raise Refused(
            400,
            "expected messages of user and assistant in turn, the last one of the user, got "
            f"{', '.join(roles[:8]) or 'none'}; join messages of one role",
        )
    pictures: list[str | bytes] = []
    texts: list[str] = []
    for message in said:
        text, shown = _parts(message)
        texts.append(text)
        pictures += shown
    return _Conversation(texts[-1], pictures, list(zip(texts[:-1:2], texts[1::2], strict=True)))


def _parts(message: Message) -> tuple[str, list[str]]:
    """Text and pictures of a message.

    Raises:
        Refused: the assistant shows a picture.
    """
    content = message.content or ""
    if isinstance(content, str):
        return content, []
    texts = [part.text for part in content if part.type == "text" and part.text]
    shown = [part.image_url.url for part in content if part.image_url is not None]
    if shown and message.role == "assistant":
        raise Refused(
            400, "expected pictures in messages of the user, got one of the assistant; leave it out"
        )
    return "\n".join(texts), shown
