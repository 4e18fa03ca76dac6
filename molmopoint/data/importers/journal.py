"""What an import says: everything it leaves out, and what it did to the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

OnSkip = Callable[[str], object]
"""Hears a sentence about everything that is left out."""

_EXAMPLES = 3
"""Sentences kept of each kind; what is counted may be millions."""


class Journal:
    """Counts of an import, and the first sentences of each kind.

    A kind is a plural such as "crowds"; it is written in front of its number.

    Attributes:
        left_out: how much of each kind is missing in the result.
        examples: the first sentences of each kind that was left out.
        notes: how often something else happened that a person should know.
    """

    def __init__(self, on_skip: OnSkip | None = None) -> None:
        """`on_skip` hears every sentence about something left out."""
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.notes: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._on_skip = on_skip

    def skip(self, kind: str, sentence: str, count: int = 1) -> None:
        """Something is left out; the sentence names file and object and says why."""
        self.left_out[kind] += count
        kept = self.examples.setdefault(kind, [])
        if len(kept) < _EXAMPLES:
            kept.append(sentence)
        if self._on_skip is not None:
            self._on_skip(sentence)

    def note(self, kind: str, example: str = "", count: int = 1) -> None:
        """Something is worth knowing of; `example` is told for the first of the kind."""
        self.notes[kind] += count
        if example:
            self._first.setdefault(kind, example)

    def lines(self) -> list[str]:
        """All that there is to say, the counts last."""
        lines = []
        for kind, sentences in self.examples.items():
            lines += sentences
            if (more := self.left_out[kind] - len(sentences)) > 0:
                lines.append(f"... and {more} more {kind}")
        for kind, count in self.notes.items():
            first = f" ({self._first[kind]})" if kind in self._first else ""
            lines.append(f"{kind}: {count}{first}")
        lines += [f"left out, {kind}: {count}" for kind, count in self.left_out.items()]
        return lines
