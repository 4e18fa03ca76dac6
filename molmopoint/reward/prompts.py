"""What a person asks, as messages for the chat template, and the pictures or the clip it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from molmopoint.errors import ProcessingError

Prompt = str | Sequence[Mapping[str, Any]]
"""Text of one user message, or messages with role and content, of which the last one is the user's."""


@dataclass(frozen=True)
class Asked:
    """A conversation that waits for an answer.

    Attributes:
        messages: with role "user" or "assistant" and a list of parts; what the system says stands at the head
            of the first one.
        images: pictures in the order of their placeholders.
        videos: the clip, if there is one.
    """

    messages: list[dict[str, Any]]
    images: list[Any]
    videos: list[Any]


def read_prompt(prompt: Prompt, images: Any = None, videos: Any = None) -> Asked:
    """A prompt with what it is about.

    Pictures and the clip are given beside the messages or inside them, as parts {"type": "image", "image":
    picture}; the placeholders of messages are kept where they match. Released chat templates know no system
    turn, so its text goes before the first user message, a blank line between them.

    Args:
        prompt: text or messages.
        images: a picture or a list of them.
        videos: a clip, or a list of one.

    Raises:
        ProcessingError: these are no messages that wait for an answer, pictures and placeholders differ in
            number, there are pictures and a clip, or several clips.
    """
    pictures = _as_list(images, "images")
    clips = _as_list(videos, "videos")
    said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = _messages(said)
    parts = list(chain.from_iterable(message["content"] for message in messages))
    inside = [part for part in parts if part.get("type") in ("image", "video")]
    own_pictures = _carried(inside, "image")
    own_clips = _carried(inside, "video")
    if (own_pictures and pictures) or (own_clips and clips):
        raise ProcessingError(
            "expected pictures and clips in the messages or beside them, got both; leave one of them out"
        )
    pictures = pictures or own_pictures
    clips = clips or own_clips
    if pictures and clips:
        raise ProcessingError(
            f"expected pictures or a video, got {len(pictures)} pictures and a video; ask about one of them "
            "at a time"
        )
    if len(clips) > 1:
        raise ProcessingError(f"expected at most one video, got {len(clips)}; ask about one at a time")
    if not inside:
        placeholders = [{"type": "image"}] * len(pictures) + [{"type": "video"}] * len(clips)
        messages[0] = {**messages[0], "content": [*placeholders, *messages[0]["content"]]}
    for kind, given in (("image", pictures), ("video", clips)):
        wanted = sum(part["type"] == kind for part in inside)
        if inside and wanted != len(given):
            raise ProcessingError(
                f"expected {wanted} {kind}s, one for each part of type {kind!r} in the messages, got "
                f"{len(given)}"
            )
    for part in parts:
        if isinstance(part.get("text"), str):
            _check_unicode(part["text"], "the prompt")
    return Asked([_without_media(message) for message in messages], pictures, clips)


def check_answers(responses: Any) -> list[str]:
    """The answers as a list.

    Raises:
        ProcessingError: there are none, or one of them is no text or has none.
    """
    if isinstance(responses, str) or not isinstance(responses, Sequence):
        raise ProcessingError(
            f"expected a list of answers, got {type(responses).__name__}; pass [answer] to judge one"
        )
    if not responses:
        raise ProcessingError("expected one or more answers, got none")
    for number, answer in enumerate(responses):
        if not isinstance(answer, str):
            raise ProcessingError(
                f"expected every answer to be a string, got {type(answer).__name__} as answer {number}; "
                "pass its text"
            )
        _check_unicode(answer, f"answer {number}")
        if not answer.strip():
            raise ProcessingError(
                f"expected text in every answer, got none in answer {number}; leave it out and count it as "
                "the worst"
            )
    return list(responses)


def _check_unicode(text: str, name: str) -> None:
    """Refuses half of a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ProcessingError(
            f"expected Unicode text in {name}, got half of a character ({error}); decode it as UTF-8"
        ) from error


def _messages(prompt: Any) -> list[dict[str, Any]]:
    """Messages with lists of parts, those of the system merged into the first user message."""
    if (
        not isinstance(prompt, Sequence)
        or not prompt
        or not all(isinstance(message, Mapping) for message in prompt)
    ):
        raise ProcessingError(
            f"expected a prompt as text or as a list of messages with role and content, got {prompt!r:.80}"
        )
    instructions: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for message in prompt:
        role = message.get("role")
        content = _parts(message)
        if role == "system":
            instructions += content
        else:
            messages.append({**message, "role": role, "content": content})
    if not messages or messages[-1]["role"] != "user" or messages[0]["role"] != "user":
        roles = ", ".join(str(message.get("role")) for message in prompt)
        raise ProcessingError(
            f"expected messages that begin and end with the user's, got roles {roles}; answers are passed "
            "beside them"
        )
    if instructions:
        messages[0] = {**messages[0], "content": _merged(instructions, messages[0]["content"])}
    return messages


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or not all(
        isinstance(part, Mapping) and "type" in part for part in content
    ):
        raise ProcessingError(f"expected text or a list of parts with a type as content, got {content!r:.80}")
    return [dict(part) for part in content]


def _merged(said: list[dict[str, Any]], content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts of the first user message behind what the system says."""
    instructions = "\n\n".join(str(part.get("text", "")) for part in said)
    for place, part in enumerate(content):
        if part["type"] == "text":
            joined = {"type": "text", "text": f"{instructions}\n\n{part['text']}"}
            return [*content[:place], joined, *content[place + 1 :]]
    return [*content, {"type": "text", "text": instructions}]


def _carried(parts: list[dict[str, Any]], kind: str) -> list[Any]:
    """Pictures or clips that parts hold themselves."""
    return [part[kind] for part in parts if part["type"] == kind and part.get(kind) is not None]


def _without_media(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose placeholders hold nothing."""
    parts = []
    for part in message["content"]:
        is_media = part["type"] in ("image", "video")
        parts.append({"type": part["type"]} if is_media else part)
    return {**message, "content": parts}


def _as_list(given: Any, name: str) -> list[Any]:
    if given is None:
        return []
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    if any(item is None or isinstance(item, (list, tuple)) for item in items):
        raise ProcessingError(
            f"expected one or several {name} for one prompt, got a list with lists or gaps; use "
            "`score_batch` for several prompts"
        )
    return items
