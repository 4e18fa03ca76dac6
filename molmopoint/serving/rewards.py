"""Reward models of a server: one request at a time, a bounded number of them waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from molmopoint.files import picture_limit
from molmopoint.reward import Judge
from molmopoint.serving.engine import Closed, QueueFull
from molmopoint.serving.limits import Limits


class Judging:
    """Answers requests for scores with one reward model.

    Args:
        judge: the model.
        limits: of the server.
    """

    def __init__(self, judge: Judge, limits: Limits) -> None:
        self._judge = judge
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="molmopoint-judge")
        self._num_open = 0
        self._closed = False

    async def score(
        self, prompt: str, responses: Sequence[str], pictures: Sequence[bytes], permutations: int
    ) -> list[float]:
        """Scores of all answers, as `Judge.score` gives them.

        Raises:
            QueueFull: too many requests wait.
            Closed: the server is being stopped.
            MolmoPointError: the request cannot be used.
        """
        if self._closed:
            raise Closed("expected a running server, got one that is being stopped; ask again in a moment")
        if self._num_open >= self._limits.queue:
            raise QueueFull(
                f"expected at most {self._limits.queue} open requests, got more; ask again in a moment"
            )

        def work() -> list[float]:
            with picture_limit(self._limits.pixels):
                return self._judge.score(prompt, responses, list(pictures) or None, permutations=permutations)

        self._num_open += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._num_open -= 1

    def refuse_queue(self) -> None:
        """Refuses what comes."""
        self._closed = True

    def close(self) -> None:
        """Ends once the request that is being answered is."""
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)
