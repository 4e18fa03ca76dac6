"""Serving over HTTP: `app` makes the application, `molmopoint serve` runs it, `Client` talks to it.

Names are imported when they are first used: a client needs nothing of a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.serving.application import app
    from molmopoint.serving.async_client import AsyncClient
    from molmopoint.serving.client import Client
    from molmopoint.serving.limits import Limits
    from molmopoint.serving.messages import ServerError

__all__ = ["AsyncClient", "Client", "Limits", "ServerError", "app"]

_HOMES = {
    "AsyncClient": "async_client",
    "Client": "client",
    "Limits": "limits",
    "ServerError": "messages",
    "app": "application",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
