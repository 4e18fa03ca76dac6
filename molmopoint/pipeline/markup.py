"""Answers in words: the markup of point lists is taken out, their labels stay.

A list is written as

    '<points coords="' places '">' label '</point>'      (or '<tracks'; also '</points>', '</tracks>')
"""

from __future__ import annotations

import re

_PLACE = re.compile(r"<POINT_\d+>")
_OPENING = re.compile(r'<(?:points|tracks)\b[^<>]*?coords="')
_CLOSING = re.compile(r"</(?:point|track)s?>")
_END_OF_PLACES = '">'
_OPENED = ("<points ", "<tracks ")
_TAGS = (*_OPENED, "</points>", "</point>", "</tracks>", "</track>")
_LONGEST_TAG = 200
_SHORTEST_CUT = 2
"""What is left of a tag at the end of an answer is taken out if it is longer than this; "<" alone is more likely text."""


def plain_text(raw_text: str) -> str:
    """The answer in words; of a list that was cut among its places nothing is left.

    >>> plain_text('Counting the <points coords="<POINT_7><POINT_9><POINT_3>1<POINT_8>">cups</point> shows a total of 1.')
    'Counting the cups shows a total of 1.'
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
        self._among_places = False

    def push(self, piece: str) -> str:
        """The words that are certain after this piece, which may be none."""
        self._held += piece
        words = []
        while self._held:
            if self._among_places:
                _, found, rest = self._held.partition(_END_OF_PLACES)
                # Without the end in sight only a quote at the very end can still become one.
                self._held = rest if found else '"' * self._held.endswith('"')
                self._among_places = not found
                if not found:
                    break
                continue
            before, bracket, rest = self._held.partition("<")
            words.append(before)
            self._held = bracket + rest
            if opening := _OPENING.match(self._held):
                self._held, self._among_places = self._held[opening.end() :], True
            elif closing := _CLOSING.match(self._held):
                self._held = self._held[closing.end() :]
                self.closed_lists += 1
            elif self._may_become_tag():
                break
            else:
                words.append("<")
                self._held = self._held[1:]
        return "".join(words)

    def finish(self) -> str:
        """What was held back because it could have become a tag, if the answer is really over."""
        held, self._held = self._held, ""
        begun = any(tag.startswith(held) or (tag in _OPENED and held.startswith(tag)) for tag in _TAGS)
        return "" if self._among_places or (len(held) > _SHORTEST_CUT and begun) else held

    def _may_become_tag(self) -> bool:
        """Whether more text could turn what is held into a tag."""
        held = self._held
        inside = held.startswith(_OPENED) and ">" not in held and "<" not in held[1:] and len(held) < _LONGEST_TAG
        return inside or any(tag.startswith(held) for tag in _TAGS)
