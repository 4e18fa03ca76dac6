"""Serving over HTTP: `app` makes the application, `molmopoint serve` runs it, `Client` talks to it."""

from __future__ import annotations

from molmopoint.serving.application import app
from molmopoint.serving.client import Client
from molmopoint.serving.limits import Limits

__all__ = ["Client", "Limits", "app"]
