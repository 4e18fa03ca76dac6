"""Answers that commit to nothing: they name no value of what is asked, and lists put them last."""

from __future__ import annotations

import re

import numpy as np
import pytest

from molmopoint.data.drawing import COLOURS
from molmopoint.data.judging import ask_about, judge_scene, judge_with_vague
from molmopoint.data.questions import SceneQuestion
from molmopoint.data.synthetic import sample_scene
from molmopoint.data.vague import ANCHOR, VAGUE_FAMILIES, write_vague

NUMBER = 80

VALUES = {
    "count": r"\b(?:\d+|none)\b",
    "colour": rf"\b(?:{'|'.join(COLOURS)})\b",
    "position": r"\b(?:top|bottom) (?:left|right)\b",
}
"""What an answer that says something has, by the kind of the question."""


@pytest.fixture(scope="module")
def asked() -> list[SceneQuestion]:
    questions = []
    for i in range(NUMBER):
        rng = np.random.default_rng([11, i])
        questions.append(ask_about(rng, sample_scene(rng, num_queries=0)))
    return questions


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("family", VAGUE_FAMILIES)
def test_no_value_is_named(asked: list[SceneQuestion], family: str, unseen: bool):
    """A hedge names two of them, every other family none; a number of the question itself is not in it."""
    rng = np.random.default_rng(1)
    for question in asked:
        answer = write_vague(rng, question, family, unseen=unseen)
        found = set(re.findall(VALUES[question.kind], answer.lower()))
        assert answer.strip() and len(found) == (2 if family == "hedge" else 0), (question.prompt, answer)


@pytest.mark.parametrize("family", VAGUE_FAMILIES)
def test_words_kept_for_the_test_are_never_trained_on(asked: list[SceneQuestion], family: str):
    rng = np.random.default_rng(2)
    trained, kept = set(), set()
    for question in asked:
        trained.add(write_vague(rng, question, family))
        kept.add(write_vague(rng, question, family, unseen=True))
    assert not trained & kept


def test_lists_put_them_below_wrong_answers():
    lengths, has_anchor = set(), 0
    for i in range(NUMBER):
        rng = np.random.default_rng([13, i])
        judgement = judge_with_vague(rng, sample_scene(rng, num_queries=0))
        ranks = judgement.rankings
        last = [rank for rank in ranks if rank == max(ranks)]
        complete = len(ranks) - len(last)
        assert ranks[0] == 1 and 1 not in ranks[1:], "one is right"
        assert complete >= 2 and len(last) in (1, 2, 3) and max(ranks) == complete + 1
        lengths.add(len(ranks))
        has_anchor += ANCHOR in judgement.responses
    assert lengths == {4, 5} and has_anchor > NUMBER // 20


def test_other_lists_are_as_they_were():
    """The pictures and lists that published scores are about."""
    rng = np.random.default_rng([32_001, 0])
    judgement = judge_scene(rng, sample_scene(rng, num_queries=0))
    assert len(judgement.responses) == 4 and ANCHOR not in judgement.responses
