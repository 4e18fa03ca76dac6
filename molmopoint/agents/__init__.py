"""Clicks for agents: where to press for what a person says, on a picture of a screen or in a browser.

    from molmopoint.agents import click

    click(page, "the search button", pointer=molmopoint.load("nano-screens"))

Everything here works with a `Pointer` and with a `Client` of a server alike. `molmopoint.agents.cua` registers
an agent where cua is installed, `molmopoint mcp` offers the same as tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.agents.browser import (
        PageError,
        PageTarget,
        click,
        click_async,
        fill,
        fill_async,
        locate,
        locate_async,
    )
    from molmopoint.agents.targets import AgentError, Target, TargetNotFound, find_target, predict_click

__all__ = [
    "AgentError",
    "PageError",
    "PageTarget",
    "Target",
    "TargetNotFound",
    "click",
    "click_async",
    "fill",
    "fill_async",
    "find_target",
    "locate",
    "locate_async",
    "predict_click",
]

_HOMES = {
    "AgentError": "targets",
    "PageError": "browser",
    "PageTarget": "browser",
    "Target": "targets",
    "TargetNotFound": "targets",
    "click": "browser",
    "click_async": "browser",
    "fill": "browser",
    "fill_async": "browser",
    "find_target": "targets",
    "locate": "browser",
    "locate_async": "browser",
    "predict_click": "targets",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
