"""Answers in words, whole and piece by piece."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.pipeline.markup import MarkupStripper, plain_text

PLACES = "<POINT_7><POINT_101><POINT_106>1<POINT_100>"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (f'<points coords="{PLACES}">cups</point>', "cups"),
        (f'Counting the <points coords="{PLACES}">cups</point> shows a total of 1.', "Counting the cups shows a total of 1."),
        (f'<tracks coords="{PLACES}">the dogs</point>', "the dogs"),
        (f'<points alt="x" coords="{PLACES}">a</points>', "a"),  # the base model may describe a list
        ("There are none.", "There are none."),
        ("", ""),
        (f'See <points coords="{PLACES[:20]}', "See"),  # cut among the places
        ('See <points coords="<POINT_7>', "See"),
        ("See <poi", "See"),  # cut in the opening tag
        (f'<points coords="{PLACES}">cu', "cu"),  # cut in the label
        (f'<points coords="{PLACES}">cups</po', "cups"),
        ("1 < 2 and <b>bold</b>", "1 < 2 and <b>bold</b>"),  # other brackets are text
        (f'<points coords="{PLACES}">a "b" c</point>', 'a "b" c'),
    ],
)
def test_plain_text(raw, words):
    assert plain_text(raw) == words


@given(st.lists(st.sampled_from(['<points coords="', '">', "</point>", "cups", " ", "<", "1", '"', "<po", "ints"]), max_size=12), st.data())
def test_pieces_give_the_words_of_the_whole(parts, data):
    raw = "".join(parts)
    stripper, words, rest = MarkupStripper(), "", raw
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        words, rest = words + stripper.push(rest[:cut]), rest[cut:]
    assert (words + stripper.finish()).strip() == plain_text(raw)
