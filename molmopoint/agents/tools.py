"""A model as tools of the Model Context Protocol: `point`, `count`, `ask`, `click_target` and `track`.

Answers come as JSON and, where there is something to see, as the picture with its points. The package `mcp`
speaks the protocol; what is here says what the tools do.
"""

from __future__ import annotations

import io
import json
import math
import threading
from typing import Annotated, Any

from mcp.server.mcpserver import Image as PictureOut
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ContentBlock, TextContent, ToolAnnotations
from PIL import Image
from pydantic import Field

from molmopoint.agents.folders import Sources
from molmopoint.agents.targets import (
    DEFAULT_MAX_ABSENT,
    DEFAULT_MIN_SCORE,
    TargetNotFound,
    find_target,
)
from molmopoint.drawing import draw_points
from molmopoint.errors import MolmoPointError
from molmopoint.points import Point
from molmopoint.version import __version__

MOST_POINTS = 1000
"""Most points of an answer."""

MOST_TOKENS = 4096
"""Most tokens of an answer."""

_DRAWN_SIDE = 1024
"""Longer side of a picture that is sent back; what reads it would shrink it anyway."""

_INSTRUCTIONS = (
    "Points at things in pictures. Ask with noun phrases as a person would use them: 'the red cups', 'the "
    "search button'. Coordinates are pixels of the picture as passed, from its upper left corner. A picture is "
    "the path of a file in an allowed folder, or data:image/png;base64,..."
)

Picture = Annotated[
    str, Field(min_length=1, description="Path in an allowed folder, or data:image/png;base64,...")
]
Phrase = Annotated[str, Field(min_length=1, max_length=20_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Drawn = Annotated[bool, Field(description="Also send the picture back with its points drawn.")]


class PointingTools:
    """What the tools do.

    Args:
        pointer: a `Pointer`, or a `Client` of a server.
        sources: where pictures and clips may come from.
    """

    def __init__(self, pointer: Any, sources: Sources) -> None:
        self._pointer = pointer
        self._sources = sources
        self._one_at_a_time = threading.Lock()  # the model answers one question after the other

    def point(
        self,
        image: Picture,
        prompt: Annotated[Phrase, Field(description="What to point at: 'the red cups'.")],
        min_score: Share | None = None,
        max_points: Annotated[int, Field(ge=1, le=MOST_POINTS)] = MOST_POINTS,
        annotated: Drawn = True,
    ) -> CallToolResult:
        """Points at everything in a picture that a noun phrase names."""
        picture = self._picture(image)
        result = self._answered(
            self._pointer.point,
            picture,
            prompt,
            min_score=min_score,
            max_points=max_points,
            max_new_tokens=MOST_TOKENS,
        )
        answer = {
            "points": [_point(point, picture) for point in result.points],
            "count": len(result.points),
            "text": result.text,
            "truncated": result.truncated,
            "image_size": list(picture.size),
            "notes": list(result.notes),
        }
        return _told(answer, draw_points(picture, list(result.points)) if annotated else None)

    def count(
        self, image: Picture, phrase: Annotated[Phrase, Field(description="What to count: 'cups'.")]
    ) -> CallToolResult:
        """Counts what a noun phrase names in a picture."""
        picture = self._picture(image)
        count = self._answered(self._pointer.count, picture, phrase, max_new_tokens=MOST_TOKENS)
        return _told({"count": int(count)})

    def ask(self, image: Picture, question: Phrase) -> CallToolResult:
        """Answers a question about a picture in words."""
        picture = self._picture(image)
        answer = self._answered(self._pointer.ask, picture, question, max_new_tokens=MOST_TOKENS)
        return _told({"answer": str(answer)})

    def click_target(
        self,
        image: Picture,
        instruction: Annotated[
            Phrase, Field(description="'the search button', or 'click the search button'.")
        ],
        min_score: Share = DEFAULT_MIN_SCORE,
        max_absent: Share = DEFAULT_MAX_ABSENT,
        annotated: Drawn = False,
    ) -> CallToolResult:
        """The one place on a screenshot to click for an instruction; found is false where nothing fits."""
        picture = self._picture(image)
        try:
            target = self._answered(
                find_target,
                self._pointer,
                picture,
                instruction,
                min_score=min_score,
                max_absent=max_absent,
            )
        except TargetNotFound as error:
            return _told({"found": False, "reason": str(error), "image_size": list(picture.size)})
        answer = {
            "found": True,
            "x": round(target.x, 2),
            "y": round(target.y, 2),
            "score": _number(target.score),
            "absent": _number(target.absent),
            "image_size": list(picture.size),
        }
        point = Point(1, 0, target.x, target.y, target.score)
        return _told(answer, draw_points(picture, [point], numbers=False) if annotated else None)

    def track(
        self,
        video: Annotated[str, Field(min_length=1, description="Path of a clip in an allowed folder.")],
        prompt: Annotated[Phrase, Field(description="What to follow: 'the red cars'.")],
        start: Annotated[float, Field(ge=0, description="Seconds from the beginning of the clip.")] = 0.0,
        end: Annotated[float | None, Field(gt=0, description="Seconds; None for its end.")] = None,
        annotated: Drawn = True,
    ) -> CallToolResult:
        """Follows what a noun phrase names through a clip: numbered objects with places and seconds."""
        if not hasattr(self._pointer, "track"):
            raise ToolError("expected a model on this machine for tracks, got a server; start with --model")
        path = self._sourced(self._sources.clip, video)
        result = self._answered(
            self._pointer.track, path, prompt, start=start, end=end, max_new_tokens=MOST_TOKENS
        )
        answer = {"tracks": result.tracks.to_dict(), "text": result.text, "truncated": result.truncated}
        sheet = result.contact_sheet() if annotated and len(result.tracks) else None
        return _told(answer | {"notes": list(result.notes)}, sheet)

    def _picture(self, image: str) -> Image.Image:
        return self._sourced(self._sources.picture, image)

    def _sourced(self, read: Any, name: str) -> Any:
        try:
            return read(name)
        except MolmoPointError as error:
            raise ToolError(str(error)) from error

    def _answered(self, ask: Any, *args: Any, **options: Any) -> Any:
        """The model's answer; what it refuses is told to the client.

        Raises:
            TargetNotFound: as `find_target`.
            ToolError: with the words of the library.
        """
        given = {name: value for name, value in options.items() if value is not None}
        try:
            with self._one_at_a_time:
                return ask(*args, **given)
        except TargetNotFound:
            raise
        except MolmoPointError as error:
            raise ToolError(str(error)) from error


def tool_server(pointer: Any, sources: Sources | None = None) -> MCPServer:
    """A server of the Model Context Protocol with the tools of a model.

    Args:
        pointer: a `Pointer`, or a `Client` of a server.
        sources: where pictures and clips may come from; by default pictures as data alone.
    """
    tools = PointingTools(pointer, sources or Sources())
    server = MCPServer("molmopoint", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING")
    reads_alone = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for tool in (tools.point, tools.count, tools.ask, tools.click_target, tools.track):
        server.tool(annotations=reads_alone)(tool)
    return server


def _told(answer: dict[str, Any], picture: Image.Image | None = None) -> CallToolResult:
    """An answer as JSON, once for programs and once for models that read text, and as a picture."""
    content: list[ContentBlock] = [TextContent(type="text", text=json.dumps(answer, allow_nan=False))]
    if picture is not None:
        content.append(PictureOut(data=_jpeg(picture), format="jpeg").to_image_content())
    return CallToolResult(content=content, structured_content=answer)


def _jpeg(picture: Image.Image) -> bytes:
    smaller = picture.copy()
    smaller.thumbnail((_DRAWN_SIDE, _DRAWN_SIDE))
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=85)
    return file.getvalue()


def _point(point: Point, picture: Image.Image) -> dict[str, Any]:
    return {
        "x": round(point.x, 2),
        "y": round(point.y, 2),
        "x_norm": round(point.x / picture.width, 5),
        "y_norm": round(point.y / picture.height, 5),
        "object_id": int(point.object_id),
        "label": point.label,
        "score": _number(point.score),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
