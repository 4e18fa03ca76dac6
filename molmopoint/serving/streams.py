"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse

from molmopoint.serving.refusals import Refused, error_object

Document = dict[str, Any]


def event_stream(events: AsyncIterator[Document], *, end: str | None = "[DONE]") -> StreamingResponse:
    """A response of one event per document; what is refused on the way is the last of them.

    Args:
        events: documents for JSON.
        end: what the last event says, after all documents; None for nothing.
    """

    async def lines() -> AsyncIterator[str]:
        async with aclosing(events):  # type: ignore[type-var]  # always an async generator
            try:
                async for event in events:
                    yield f"data: {json.dumps(event)}\n\n"
            except Refused as error:
                yield f"data: {json.dumps(error_object(error))}\n\n"
        if end is not None:
            yield f"data: {end}\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
