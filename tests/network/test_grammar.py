"""The state machine against a regular expression, over every short sentence."""

from __future__ import annotations

import itertools
import re

import pytest

from molmopoint.errors import GroundingError
from molmopoint.grammar import GroundingGrammar, State, Symbol

LETTERS = "TPSLN"  # text, patch, subpatch, location, no more points: in the order of Symbol
SENTENCES = {
    True: re.compile(r"(?:T|PSL)*(?P<open>P|PS|NT*)?"),
    False: re.compile(r"(?:T|PS)*(?P<open>P|NT*)?"),
}
"""All beginnings of answers: whole points and text, then perhaps a point in the making or the end of the
list.
"""


def expected_state(sentence, has_locations):
    match = SENTENCES[has_locations].fullmatch(sentence)
    if match is None:
        return None
    tail = match["open"] or ""
    return (
        State.CLOSED
        if tail.startswith("N")
        else (State.FREE, State.PATCH_CHOSEN, State.SUBPATCH_CHOSEN)[len(tail)]
    )


@pytest.mark.parametrize("has_locations", [True, False])
def test_every_sentence_of_up_to_six_tokens(has_locations):
    grammar = GroundingGrammar(has_locations)
    for length in range(7):
        for sentence in itertools.product(LETTERS, repeat=length):
            symbols = [Symbol(LETTERS.index(letter)) for letter in sentence]
            state = expected_state("".join(sentence), has_locations)
            if state is None:
                with pytest.raises(GroundingError):
                    grammar.run(symbols)
            else:
                assert grammar.run(symbols) is state


@pytest.mark.parametrize("has_locations", [True, False])
def test_what_is_allowed_is_what_has_a_next_state(has_locations):
    grammar = GroundingGrammar(has_locations)
    for state in State:
        assert grammar.allowed(state) == {s for s in Symbol if grammar.next_state(state, s) is not None}
    assert grammar.forced(State.PATCH_CHOSEN) is Symbol.SUBPATCH
    assert grammar.forced(State.SUBPATCH_CHOSEN) is Symbol.LOCATION
    assert grammar.forced(State.FREE) is None
    assert grammar.forced(State.CLOSED) is None


def test_a_wrong_token_is_named_with_its_place():
    with pytest.raises(
        GroundingError, match=r"expected one of SUBPATCH at token 1 \(state PATCH_CHOSEN\), got TEXT"
    ):
        GroundingGrammar().run([Symbol.PATCH, Symbol.TEXT])
    with pytest.raises(GroundingError, match="expected one of TEXT at token 0"):
        GroundingGrammar().run([Symbol.PATCH], start=State.CLOSED)
