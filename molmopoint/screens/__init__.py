"""Screens: pages drawn by a real browser, what can be seen on them, and questions about it.

A page is opened in Chromium, at several sizes and in several looks. The browser tells role, name and state of
every element, and which parts of it a person sees; the picture tells its colour. Questions are made of that,
and written as training data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.screens.browser import Browser, View
    from molmopoint.screens.questions import draw_questions

__all__ = [
    "Browser",
    "View",
    "draw_questions",
]

_HOMES = {
    "Browser": "browser",
    "View": "browser",
    "draw_questions": "questions",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
