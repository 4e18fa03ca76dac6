"""An agent of cua that knows where to click; importing this module registers it where cua is installed.

    import molmopoint.agents.cua
    from cua_agent import ComputerAgent

    agent = ComputerAgent(model="molmopoint/nano-screens+anthropic/claude-sonnet-4-5", tools=[computer])

The model in front of the plus says where, the one behind it says what to do. A name after `molmopoint/` is that
of the zoo, a hub id or a folder; with `api_base=` it is a model of a running `molmopoint serve`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
from functools import lru_cache
from typing import Any

from molmopoint.agents.targets import (
    DEFAULT_MAX_ABSENT,
    DEFAULT_MIN_SCORE,
    AgentError,
    Points,
    predict_click,
)

PREFIX = "molmopoint/"
"""What names of models begin with."""

MODELS = r"(?i)molmopoint/[^+]+$"
"""Names that are ours: one model alone, for pairs are put together by cua."""

_PRIORITY = 10
"""Above the agents of cua that take every name."""

_PACKAGE = "cua_agent"


class MolmoPointAgent:
    """Where to click, in the protocol of cua's agents."""

    async def predict_step(self, messages: Any, model: str, **_: Any) -> Any:
        """Refuses: where to click is all that the model knows.

        Raises:
            AgentError: always, with what to name instead.
        """
        raise AgentError(
            f"expected a model that plans behind the one that clicks, got {model!r} alone; name both, as in "
            f"{model}+PLANNER"
        )

    async def predict_click(
        self, model: str, image_b64: str, instruction: str, **generation_config: Any
    ) -> tuple[int, int] | None:
        """Where to click for an instruction, in pixels of the picture; None where nothing fits.

        Args:
            model: `molmopoint/NAME`.
            image_b64: a screenshot as base64.
            instruction: "the search button".
            **generation_config: `api_base` and `api_key` of a server; `min_score`, `max_absent` and
                `max_crops`; others are left out of account.

        Raises:
            AgentError: the screenshot is no base64.
            ProcessingError: it is no picture.
        """
        pointer = _pointer(
            model[len(PREFIX) :], generation_config.get("api_base"), generation_config.get("api_key")
        )
        options: dict[str, Any] = {
            "min_score": generation_config.get("min_score", DEFAULT_MIN_SCORE),
            "max_absent": generation_config.get("max_absent", DEFAULT_MAX_ABSENT),
        }
        if "max_crops" in generation_config:
            options["max_crops"] = generation_config["max_crops"]
        try:
            image = base64.b64decode(image_b64, validate=True)
        except ValueError as error:
            raise AgentError(
                f"expected a screenshot as base64, got {image_b64[:20]!r}... ({error})"
            ) from error
        return await asyncio.to_thread(predict_click, image, instruction, pointer=pointer, **options)

    def get_capabilities(self) -> list[str]:
        """What it can do."""
        return ["click"]


@lru_cache(maxsize=4)
def _pointer(name: str, address: str | None, key: str | None) -> Points:
    """A model of this machine, or of a server; kept, for agents ask for it again and again."""
    if address is not None:
        from molmopoint.serving import Client

        return Client(address.removesuffix("/").removesuffix("/v1"), key=key, model=name)
    from molmopoint.pipeline import load

    return load(name)


def register() -> bool:
    """Registers the agent under cua's decorator; False where cua is not installed."""
    if importlib.util.find_spec(_PACKAGE) is None:
        return False
    from cua_agent.decorators import register_agent

    register_agent(models=MODELS, priority=_PRIORITY)(MolmoPointAgent)
    return True


register()
