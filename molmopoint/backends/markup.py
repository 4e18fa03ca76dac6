"""The words of an answer, without the markup of its point lists, as soon as they are certain.

A list is written as

    '<points coords="' places '">' label '</point>'      (or '<tracks'; also '</points>', '</tracks>')

where places are grounding tokens or, in models without them, numbers; its label stays. Older models write

    '<point x="' number '" y="' number '" alt="' label '">' label '</point>'        (or '<points x1=... y1=... x2=...')
    '<points ' time (' ' id ' ' x ' ' y)* '/>'
"""

from __future__ import annotations

import re
from collections.abc import Callable

_PLACE = re.compile(r"<POINT_\d+>")
_OPENING = re.compile(
    r'<(?:points?|tracks)(?:\s+(?P<older>\d)|\b[^<>]*?(?:coords="|\b(?P<attribute>[xy]\d*\s*=\s*")))'
)
_CLOSING = re.compile(r"</(?:point|track)s?>")
_END_OF_PLACES, _END_OF_TAG = '">', ">"
_OPENED = ("<points ", "<point ", "<tracks ")
_TAGS = (*_OPENED, "</points>", "</point>", "</tracks>", "</track>")
_LONGEST_TAG = 200
_SHORTEST_CUT = 2
"""What is left of a tag at the end of an answer is taken out if it is longer than this; "<" alone is more
likely text.
"""


def plain_text(raw_text: str) -> str:
    """The answer in words; of a list that was cut among its places nothing is left.

    >>> plain_text('Counting the <points coords="<POINT_7><POINT_9><POINT_3>1<POINT_8>">cups</point> shows a total of 1.')
    'Counting the cups shows a total of 1.'
    >>> plain_text('<point x="61.5" y="40.4" alt="the cup">the cup</point>')
    'the cup'
    """
    stripper = MarkupStripper()
    return (stripper.push(_PLACE.sub("", raw_text)) + stripper.finish()).strip()


class MarkupStripper:
    """Takes an answer piece by piece and gives its words as soon as they are certain.

    Attributes:
        closed_lists: how many closing tags have passed.
    """

    def __init__(self) -> None:
        self.closed_lists = 0
        self._held = ""
        self._awaited = ""  # what ends the places that the text is among

    def push(self, piece: str) -> str:
        """The words that are certain after this piece, which may be none."""
        text, self._held = self._held + piece, ""
        words: list[str] = []
        position = 0
        while position < len(text):
            if self._awaited:
                position = self._leave_places(text, position)
                continue
            bracket = text.find("<", position)
            if bracket < 0:
                words.append(text[position:])
                break
            words.append(text[position:bracket])
            if opening := _OPENING.match(text, bracket):
                self._awaited = _END_OF_TAG if opening["older"] or opening["attribute"] else _END_OF_PLACES
                position = opening.end()
            elif closing := _CLOSING.match(text, bracket):
                self.closed_lists += 1
                position = closing.end()
            elif _may_become_tag(text[bracket : bracket + _LONGEST_TAG]):
                self._held = text[bracket:]
                break
            else:
                words.append("<")
                position = bracket + 1
        return "".join(words)

    def finish(self) -> str:
        """What was held back because it could have become a tag, if the answer is really over."""
        held, self._held = self._held, ""
        begun = any(tag.startswith(held) or (tag in _OPENED and held.startswith(tag)) for tag in _TAGS)
        return "" if self._awaited or (len(held) > _SHORTEST_CUT and begun) else held

    def _leave_places(self, text: str, position: int) -> int:
        """Drops places up to their end, or up to that of the text."""
        end = text.find(self._awaited, position)
        if end >= 0:
            position, self._awaited = end + len(self._awaited), ""
            return position
        # Only the beginning of the end at the very end can still become one.
        self._held = '"' * (self._awaited == _END_OF_PLACES and text.endswith('"'))
        return len(text)


def _may_become_tag(held: str) -> bool:
    """Whether more text could turn what is held into a tag."""
    inside = held.startswith(_OPENED) and ">" not in held and "<" not in held[1:] and len(held) < _LONGEST_TAG
    return inside or any(tag.startswith(held) for tag in _TAGS)


_UNFINISHED = "\ufffd"
"""What a decoder writes for a character whose last bytes are still to come."""


class IncrementalDetokenizer:
    """Turns tokens, one by one, into text that ends with a whole character.

    The ids of an unfinished character are kept and read again with those that follow.

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
