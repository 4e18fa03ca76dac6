"""Escaping of user text: placeholders, special tokens and `<POINT_n>` in what a user types become plain text.

Splitting off special tokens can be switched off in a tokenizer, but that leaves added tokens that are not
special, as `<POINT_n>` is, and would hit the template's own tokens as well. So user text is escaped before it
meets the template: a mark, U+FDD0, is put into every name of an added token. That code point is a
noncharacter, which Unicode keeps out of text, so no prompt contains it for a reason. A marked name matches no
token. After the template is rendered, each stretch of text with a mark is encoded, mark removed, by a copy of
the tokenizer that knows no added tokens: its ids are exactly those of a tokenizer in which the name never had
a meaning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from molmopoint.errors import ProcessingError

MARK = "\ufdd0"
_POINT_NAME = r"<POINT_[0-9]+>"


class TextEscaper:
    """Escapes user text and encodes escaped prompts, for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added: dict[str, int] = tokenizer.get_added_vocab()  # type: ignore[operator]  # it delegates attribute access
        self._added = {name: number for name, number in added.items() if name.strip()}
        # One pattern for the many names of places keeps the alternation short; longer names come first, where
        # one begins another.
        names = [name for name in self._added if not re.fullmatch(_POINT_NAME, name)]
        names.sort(key=len, reverse=True)
        self._names = re.compile("|".join([_POINT_NAME, *map(re.escape, names)]))
        self._first_characters = frozenset(name[0] for name in self._added)
        self._longest = max(map(len, self._added), default=0)
        self._plain: Tokenizer | None = None

    def escape(self, text: str) -> str:
        """The text with a mark in every name of an added token, and after the beginning of one at its end.

        The latter keeps two texts from making a name where a template joins them.
        """
        text = text.replace(MARK, "")
        while self._names.search(text):  # names may overlap, so one pass may leave some
            text = self._names.sub(lambda match: f"{match[0][0]}{MARK}{match[0][1:]}", text)
        for start in range(max(0, len(text) - self._longest), len(text)):
            if text[start] in self._first_characters and self._begins_name(text[start:]):
                return text + MARK
        return text

    def _begins_name(self, tail: str) -> bool:
        return any(name.startswith(tail) for name in self._added)

    def behind_last_name(self, text: str) -> str:
        """What a rendered prompt has behind its last token with a name; all of it without one."""
        ends = [match.end() for match in self._names.finditer(text)]
        return text[ends[-1] :] if ends else text

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered prompt: unmarked names are tokens, stretches with a mark are plain text."""
        ids: list[int] = []
        for stretch, is_plain in self._stretches(text):
            if is_plain:
                ids += self._encode_plain(stretch)
            else:
                ids += self._tokenizer.encode(stretch, add_special_tokens=False)
        return ids

    def _stretches(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text in parts, marks removed, and whether the names in a part are plain text."""
        pending, end = "", 0
        for match in [*self._names.finditer(text), None]:
            between = text[end : match.start() if match else len(text)]
            bare = between.replace(MARK, "")
            if MARK in between and self._names.search(bare):
                if pending:
                    yield pending, False
                yield bare, True
                pending = ""
            else:
                pending += bare
            if match:
                pending, end = pending + match[0], match.end()
        if pending:
            yield pending, False

    def _encode_plain(self, text: str) -> list[int]:
        if self._plain is None:
            self._plain = _without_added_tokens(self._tokenizer)
        ids = self._plain.encode(text, add_special_tokens=False).ids
        if not set(ids).isdisjoint(self._added.values()):
            raise ProcessingError(
                f"expected plain text, got {text!r}, which this tokenizer always reads as a special token; "
                "rephrase it"
            )
        return ids


_ESCAPERS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, int, TextEscaper]] = WeakKeyDictionary()
"""By tokenizer, with what it was made of: the backend and how many tokens it had."""


def text_escaper(tokenizer: PreTrainedTokenizerBase) -> TextEscaper:
    """The `TextEscaper` of a tokenizer, made once and again when tokens are added or renamed."""
    backend, size = getattr(tokenizer, "_tokenizer", None), len(tokenizer)
    known = _ESCAPERS.get(tokenizer)
    if known is None or known[0] is not backend or known[1] != size:
        known = (backend, size, TextEscaper(tokenizer))
        _ESCAPERS[tokenizer] = known
    return known[2]


def _without_added_tokens(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise NotImplementedError(
            "user text with names of special tokens needs a tokenizer of the tokenizers library "
            "(tokenizer.json)"
        )
    description = json.loads(backend.to_str())
    description |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(description))
