"""Judges by simple rules, for tests of reward benchmarks. What they score is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LongerIsBetter:
    """A point per character; the made responses are longer the better they are, so it is always right."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def score(
        self, prompt: str, responses: Sequence[str], images: Any = None, videos: Any = None
    ) -> list[float]:
        self.calls.append((prompt, tuple(responses)))
        return [float(len(response)) for response in responses]


class FirstIsBetter(LongerIsBetter):
    """Likes whatever stands in the first slot."""

    def score(
        self, prompt: str, responses: Sequence[str], images: Any = None, videos: Any = None
    ) -> list[float]:
        super().score(prompt, responses)
        return [-float(slot) for slot in range(len(responses))]


class AllEqual(LongerIsBetter):
    """Has no opinion."""

    def score(
        self, prompt: str, responses: Sequence[str], images: Any = None, videos: Any = None
    ) -> list[float]:
        super().score(prompt, responses)
        return [0.0] * len(responses)
