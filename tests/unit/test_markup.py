"""Answers in words, whole and piece by piece."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.backends.markup import MarkupStripper, plain_text

PLACES = "<POINT_7><POINT_101><POINT_106>1<POINT_100>"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (f'<points coords="{PLACES}">cups</point>', "cups"),
        (
            f'Counting the <points coords="{PLACES}">cups</point> shows a total of 1.',
            "Counting the cups shows a total of 1.",
        ),
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
        (
            'There are 2 <points coords="1 1 100 200;2 2 300 400">cats</points>.',
            "There are 2 cats.",
        ),  # coordinates as text
        ('<tracks coords="0.0 1 100 200', ""),
        ('The <point x="61.5" y="40.4" alt="the cup">cup</point> here', "The cup here"),  # older models
        ('<points x1="61.5" y1="40.4" x2="3" y2="4" alt="cups">cups</points>', "cups"),
        ("Seen <points 0.5 1 12.5 40.0 2 13.0 41.0/> and <points 1.0 1 1.0 2.0 />.", "Seen  and ."),
        ("<points 0.5 1 12", ""),
        ("a <point of> view", "a <point of> view"),
    ],
)
def test_plain_text(raw, words):
    assert plain_text(raw) == words


PARTS = ['<points coords="', '">', "</point>", "cups", " ", "<", "1", '"', "<po", "ints", " x1=", "<points 0"]


@given(st.lists(st.sampled_from(PARTS), max_size=12), st.data())
def test_pieces_give_the_words_of_the_whole(parts, data):
    raw = "".join(parts)
    stripper, words, rest = MarkupStripper(), "", raw
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        words, rest = words + stripper.push(rest[:cut]), rest[cut:]
    assert (words + stripper.finish()).strip() == plain_text(raw)
