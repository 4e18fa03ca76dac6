"""Synthetic judgements: the right answer is right, the others are not, and the wording gives nothing away."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from molmopoint.data.drawing import COLOURS
from molmopoint.data.judging import KINDS, NUM_RESPONSES, ask_about, sample_judgement, write_answer
from molmopoint.data.synthetic import HELD_OUT_PAIRS, sample_scene

NUMBER = 150


@pytest.fixture(scope="module")
def asked():
    """Scenes with a question about each."""
    made = []
    for i in range(NUMBER):
        rng = np.random.default_rng([4, i])
        scene = sample_scene(rng, num_queries=0)
        made.append((scene, ask_about(rng, scene)))
    return made


def members_of(scene, noun):
    """Objects that a plural like "red circles" or "red objects" names."""
    *colour, plural = noun.split()
    shape = {"crosses": "cross"}.get(plural, plural.removesuffix("s"))
    return [
        item
        for item in scene.objects
        if shape in ("object", item.shape) and (not colour or item.colour == colour[0])
    ]


def test_the_right_answer_is_right(asked):
    for scene, question in asked:
        if question.kind == "count":
            assert question.answers[0] == len(members_of(scene, question.noun))
        elif question.kind == "position":
            colour, shape = question.noun.split()
            (item,) = (item for item in scene.objects if (item.colour, item.shape) == (colour, shape))
            down, right = item.y > scene.image.height / 2, item.x > scene.image.width / 2
            assert question.answers[0] == f"{'bottom' if down else 'top'} {'right' if right else 'left'}"
        else:
            *word, shape = question.noun.split()
            found = [item for item in scene.objects if item.shape == shape]
            keys = {
                "leftmost": lambda i: i.x,
                "rightmost": lambda i: -i.x,
                "topmost": lambda i: i.y,
                "lowest": lambda i: -i.y,
            }
            chosen = min(found, key=keys[word[0]]) if word else found[0]
            assert question.answers[0] == chosen.colour and (word or len(found) == 1)
            present = {item.colour for item in scene.objects}
            assert [answer in present for answer in question.answers] == [True, True, False, False]


def test_answers_differ_and_ranks_rise(asked):
    for _, question in asked:
        assert len(set(question.answers)) == NUM_RESPONSES
        assert (
            question.rankings[0] == 1
            and question.rankings[1] > 1
            and list(question.rankings) == sorted(question.rankings)
        )
        assert all(rank == 1 + sum(other < rank for other in question.rankings) for rank in question.rankings)
        if question.kind == "count":
            assert all(isinstance(answer, int) and answer >= 0 for answer in question.answers)
    assert set(Counter(question.kind for _, question in asked)) == set(KINDS)
    places = Counter(
        sorted(q.answers).index(q.answers[0])
        for _, q in asked
        if q.kind == "count" and q.answers[0] >= NUM_RESPONSES - 1
    )
    assert set(places) == set(range(NUM_RESPONSES))  # the middle one is not a safe guess


def test_a_seed_names_a_judgement_and_training_keeps_pairs_back():
    for i in range(40):
        one, again = (sample_judgement(np.random.default_rng([5, i]), held_out=False) for _ in range(2))
        assert (one.prompt, one.responses, one.rankings) == (again.prompt, again.responses, again.rankings)
        assert one.image.tobytes() == again.image.tobytes()
        assert len(one.responses) == len(set(one.responses)) == NUM_RESPONSES and all(
            answer.strip() == answer for answer in one.responses
        )
        assert not any(f"{colour} {shape}" in one.prompt for colour, shape in HELD_OUT_PAIRS)


@pytest.mark.parametrize(
    ("kind", "answer", "pattern"),
    [
        ("count", 0, r"There are none\.|I see none\.|None\."),
        ("count", 1, r"There is 1\.|I see 1\.|1\."),
        ("colour", "red", rf"It is red\.|The star is red\.|Red\.|{'|'.join(COLOURS)}"),
        ("position", "top left", r"It is in the top left\.|The star is in the top left\.|In the top left\."),
    ],
)
def test_answers_are_sentences(kind, answer, pattern):
    for seed in range(6):
        assert re.fullmatch(pattern, write_answer(np.random.default_rng(seed), kind, answer, "star"))
