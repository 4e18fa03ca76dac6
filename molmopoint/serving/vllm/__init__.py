"""MolmoPoint inside vLLM: a plugin that brings the pointing heads, and what talks to an engine that has it.

vLLM finds `plugin.register` through the entry point `vllm.general_plugins`. Nothing here is imported where
vLLM is not, and nothing of vLLM changes for other models.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names

if TYPE_CHECKING:
    from molmopoint.serving.vllm.plugin import register
    from molmopoint.serving.vllm.versions import check_versions

__all__ = ["check_versions", "register"]

_HOMES = {"check_versions": "versions", "register": "plugin"}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
