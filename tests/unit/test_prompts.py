"""The prompt rule: what is sent for what a person types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.backends.options import COUNTING_TEMPLATE, complete_prompt
from molmopoint.errors import ProcessingError


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("the red circles", "Point to the red circles"),
        ("  cups \n", "Point to cups"),  # blanks around mean nothing
        ("Point to the cat", "Point to the cat"),
        ("FIND the exit", "FIND the exit"),  # verbs in any case
        ("where is the door", "where is the door"),
        ("Where's Waldo", "Where's Waldo"),
        ("how many cups are on the table", "how many cups are on the table"),
        ("the cat.", "the cat."),  # a full stop makes a sentence
        ("cats?", "cats?"),
        ("stop!", "stop!"),
        ("pointed arches", "Point to pointed arches"),  # only whole words are verbs
        ("counters", "Point to counters"),
        ("click, then wait", "click, then wait"),
        ("{} braces {0}", "Point to {} braces {0}"),  # braces of the user mean nothing
        ("目标", "Point to 目标"),
    ],
)
def test_rule(typed, sent):
    assert complete_prompt(typed) == sent


def test_template_decides_alone():
    assert complete_prompt("Where is it?", "Click on {} now") == "Click on Where is it? now"
    assert complete_prompt(" as typed {} ", "{}") == " as typed {} "
    assert complete_prompt("cups", default=COUNTING_TEMPLATE) == "How many cups are there?"


@pytest.mark.parametrize("template", ["", "no slot", "{} and {}", "{name}", 3])
def test_template_needs_one_slot(template):
    with pytest.raises(ProcessingError, match=r"one \{\} for the prompt"):
        complete_prompt("cups", template)


@pytest.mark.parametrize("typed", ["", "  ", "\n", None, 3, b"cups"])
def test_prompt_needs_words(typed):
    with pytest.raises(ProcessingError, match="expected"):
        complete_prompt(typed)


@given(st.text(min_size=1).filter(str.strip))
def test_words_are_kept_and_rule_is_stable(typed):
    sent = complete_prompt(typed)
    assert typed.strip() in sent
    assert complete_prompt(sent) == sent  # what was completed is a request
    assert complete_prompt(typed, "{}") == typed
