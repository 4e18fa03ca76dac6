"""Tokens of an answer, one by one, to text that ends with a whole character."""

from __future__ import annotations

from collections.abc import Callable

_UNFINISHED = "\ufffd"
"""What a decoder writes for a character whose last bytes are still to come."""


class PieceDecoder:
    """Keeps the ids of an unfinished piece and reads them again when it grows.

    Args:
        decode: text of ids, without special tokens.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that is certain with this token, which may be none."""
        self._held.append(token)
        text = self._decode(self._held)
        if text.endswith(_UNFINISHED):
            return ""
        self._held = []
        return text

    def finish(self) -> str:
        """What is left, characters without an end included."""
        held, self._held = self._held, []
        return self._decode(held) if held else ""
