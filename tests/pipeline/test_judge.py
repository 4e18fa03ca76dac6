"""The front door of reward models: scores, ranks, orders, long lists, batches, and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_reward import FAMILIES, random_reward
from toy_processor import frames, picture

from molmopoint.errors import ProcessingError
from molmopoint.reward import SEPARATOR, Judge
from molmopoint.reward.judge import chunks, combine, orders
from molmopoint.video import Clip

ANSWERS = ["Two cats.", "a dog\nand a bird", "There is nothing to be seen here.", "No"]
CLIP = Clip(frames(3, 70, 70), [0.0, 0.5, 1.0])


def judge_of(family: Any = "molmopoint", *, limits: dict[str, Any] | None = None, **settings: Any) -> Judge:
    return Judge(*random_reward(family, **settings), **(limits or {}))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return judge_of()


@pytest.fixture(scope="module")
def blind() -> Judge:
    """Judges every answer alone."""
    return judge_of(attention="block")


def test_ranks_choices_and_comparisons_follow_the_scores(judge: Judge):
    scores = judge.score("What?", ANSWERS, picture(70, 120))
    assert len(scores) == 4 and all(isinstance(score, float) for score in scores)
    ranks = judge.rank("What?", ANSWERS, picture(70, 120))
    assert sorted(range(4), key=lambda i: ranks[i]) == sorted(range(4), key=lambda i: -scores[i])
    assert judge.best("What?", ANSWERS, picture(70, 120)) == ranks.index(0) == int(np.argmax(scores))
    assert judge.compare("What?", *ANSWERS[:2]) != judge.compare("What?", *ANSWERS[1::-1])


def test_ranks_of_equal_answers_are_equal(blind: Judge):
    assert blind.rank("What?", ["same", "same", "same"]) == [0, 0, 0]
    assert len(set(blind.score("What?", ["a", "b"]))) == 2


def test_one_answer_has_a_score(judge: Judge):
    assert len(judge.score("What?", ["Yes"])) == 1
    assert judge.rank("What?", ["Yes"]) == [0] and judge.best("What?", ["Yes"], permutations=3) == 0


def test_orders_are_averaged_without_the_mean_of_each(judge: Judge):
    seen = picture(70, 120)
    averaged = judge.score("What?", ANSWERS, seen, permutations=4)
    by_hand = np.zeros(4)
    for shift in range(4):
        order = [(shift + i) % 4 for i in range(4)]
        scores = np.array(judge.score("What?", [ANSWERS[i] for i in order], seen))
        by_hand[order] += (scores - scores.mean()) / 4
    np.testing.assert_allclose(averaged, by_hand, atol=1e-5)
    shifted = judge.score("What?", ANSWERS[1:] + ANSWERS[:1], seen, permutations=4)
    np.testing.assert_allclose(np.roll(shifted, 1), averaged, atol=1e-5)


def test_long_lists_are_judged_in_chunks_that_share_the_first_answer(judge: Judge):
    answers = [f"Answer number {i}." for i in range(6)]
    with pytest.warns(UserWarning, match="expected at most 4 answers") as seen:
        scores = judge.score("What?", answers)
    assert seen[0].filename == __file__
    expected = np.zeros(6)
    for chunk in ([0, 1, 2, 3], [0, 4, 5]):
        alone = np.array(judge.score("What?", [answers[i] for i in chunk]))
        expected[chunk] = alone - alone[0]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_long_lists_need_no_chunks_where_answers_are_judged_alone(blind: Judge):
    answers = [f"Answer number {i}." for i in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = blind.score("What?", answers)
    np.testing.assert_allclose(scores[3:], blind.score("What?", answers[3:]), atol=1e-5)


@pytest.mark.parametrize("attention", ["causal", "block"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_the_scores_of_each_alone(family: Any, attention: Any):
    judge = judge_of(family, attention=attention)
    images = [None, [picture(70, 120), picture(70, 70, 1)], None, picture(140, 70)]
    videos = [None, None, CLIP, None]
    answers = [ANSWERS[:2], ANSWERS, ANSWERS[1:], ANSWERS[::-1]]
    prompts: Any = ["One?", "Two?", "Three?", [{"role": "user", "content": "Four?"}]]
    together = judge.score_batch(prompts, answers, images, videos, batch_size=3, permutations=2)
    assert [len(scores) for scores in together] == [2, 4, 3, 4]
    for scores, *request in zip(together, prompts, answers, images, videos, strict=True):
        np.testing.assert_allclose(scores, judge.score(*request, permutations=2), atol=1e-5)  # type: ignore[arg-type]


def test_a_prompt_as_messages_is_the_prompt_as_text(judge: Judge):
    seen = picture(70, 120)
    plain = judge.score("What?", ANSWERS, seen)
    parts = [{"type": "image", "image": seen}, {"type": "text", "text": "What?"}]
    for messages in (
        [{"role": "user", "content": parts}],
        [{"role": "user", "content": [{"type": "image"}, parts[1]]}],
        [{"role": "user", "content": "What?"}],
    ):
        images = None if "image" in messages[0]["content"][0] else seen
        assert judge.score(messages, ANSWERS, images) == plain


def test_system_and_earlier_turns_count(judge: Judge):
    question = {"role": "user", "content": "What?"}
    plain = judge.score([question], ANSWERS)
    told = judge.score([{"role": "system", "content": "Be brief."}, question], ANSWERS)
    assert told == judge.score("Be brief.\n\nWhat?", ANSWERS)
    before = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody."}]
    assert len({tuple(plain), tuple(told), tuple(judge.score([*before, question], ANSWERS))}) == 3


def test_layouts_differ():
    scores = [judge_of(layout=layout).score("What?", ANSWERS) for layout in ("assistant", "user")]
    assert np.abs(np.subtract(scores[0], scores[1])).min() > 1e-4


def test_lists_that_do_not_fit_into_one_row_are_spread_over_several(judge: Judge):
    row = judge.builder.row(judge.builder.prompt("What?"), ANSWERS)
    tight = judge_of(limits={"max_length": len(row) + 40})
    np.testing.assert_allclose(
        tight.score("What?", ANSWERS, permutations=4),
        judge.score("What?", ANSWERS, permutations=4),
        atol=1e-5,
    )
    alone = judge_of(attention="block", limits={"max_length": 90})
    np.testing.assert_allclose(
        alone.score("What?", ANSWERS), judge_of(attention="block").score("What?", ANSWERS), atol=1e-5
    )


def test_separators_in_answers_make_no_more_answers(judge: Judge):
    assert len(judge.score(f"{SEPARATOR}?", [f"a {SEPARATOR} b", SEPARATOR * 3])) == 2


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "one or more answers, got none"),
        ("Yes", r"a list of answers, got str; pass \[answer\]"),
        (None, "a list of answers, got NoneType"),
        (["Yes", ""], "text in every answer, got none in answer 1"),
        (["\n ", "Yes"], "text in every answer, got none in answer 0"),
        (["Yes", 3], "every answer to be a string, got int as answer 1"),
        (["Yes", None], "every answer to be a string, got NoneType as answer 1"),
    ],
)
def test_answers_that_are_none_are_refused(judge: Judge, answers: Any, message: str):
    with pytest.raises(ProcessingError, match=message):
        judge.score("What?", answers)
    with pytest.raises(ProcessingError, match=f"request 1: .*{message}"):
        judge.score_batch(["What?"] * 2, [ANSWERS, answers])


@pytest.mark.parametrize(
    ("prompt", "about", "message"),
    [
        ("What?", {"images": "nowhere.png"}, "expected a picture file at 'nowhere.png', found nothing"),
        ("What?", {"videos": "nowhere.mp4"}, "nowhere.mp4"),
        (
            "What?",
            {"images": picture(70, 70), "videos": CLIP},
            "expected pictures or a video, got 1 pictures and a video",
        ),
        ("What?", {"videos": [CLIP, CLIP]}, "expected at most one video, got 2"),
        ("What?", {"images": [[picture(70, 70)]]}, "lists or gaps; use `score_batch`"),
        ("What?", {"images": [None]}, "lists or gaps"),
        (7, {}, "expected a prompt as text or as a list of messages"),
        ([], {}, "expected a prompt as text or as a list of messages"),
        ([{"role": "user", "content": 7}], {}, "expected text or a list of parts with a type"),
        ([{"role": "assistant", "content": "Hm."}], {}, "begin and end with the user's, got roles assistant"),
        ([{"role": "system", "content": "Hm."}], {}, "begin and end with the user's, got roles system"),
        ([{"role": "user", "content": [{"type": "image"}]}], {}, "expected 1 images, one for each part"),
        (
            [{"role": "user", "content": [{"type": "image", "image": picture(70, 70)}]}],
            {"images": picture(70, 70)},
            "got both",
        ),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(
    judge: Judge, prompt: Any, about: dict[str, Any], message: str
):
    with pytest.raises(ProcessingError, match=message):
        judge.score(prompt, ANSWERS, **about)


@pytest.mark.parametrize("attention", ["causal", "block"])
def test_answers_longer_than_the_budget_are_never_cut(attention: Any):
    judge = judge_of(attention=attention, limits={"max_length": 60})
    with pytest.raises(
        ProcessingError,
        match=r"expected at most 60 tokens, got \d+: \d+ of the prompt with .*, answers of 3, 100",
    ):
        judge.score("What?", ["Yes", "no" * 50])


@pytest.mark.parametrize("attention", ["causal", "block"])
def test_orders_are_each_what_it_is_alone_and_the_picture_is_read_once(attention: Any):
    judge = judge_of(attention=attention)
    given, seen = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]], picture(70, 120)
    alone = [judge.score("What?", [ANSWERS[i] for i in order], seen) for order in given]
    rows: list[int] = []
    run = judge._run
    judge._run = lambda batch: (rows.append(len(batch)), run(batch))[1]  # type: ignore[method-assign]
    np.testing.assert_allclose(judge.score_orders("What?", ANSWERS, given, seen), alone, atol=1e-5)
    assert rows == [1]
    batch = judge.score_orders_batch(
        ["What?", "Who?"], [ANSWERS, ANSWERS[:2]], [given, [[1, 0]]], [seen, None]
    )
    np.testing.assert_allclose(batch[0], alone, atol=1e-5)
    np.testing.assert_allclose(batch[1], [judge.score("Who?", ANSWERS[1::-1])], atol=1e-5)


def test_orders_of_long_lists_are_judged_in_chunks_that_share_their_own_first_answer(judge: Judge):
    answers, order = [f"Answer number {i}." for i in range(6)], [4, 0, 5, 2, 1, 3]
    with pytest.warns(UserWarning, match="expected at most 4 answers") as seen:
        [scores] = judge.score_orders("What?", answers, [order])
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="expected at most 4 answers"):
        np.testing.assert_allclose(scores, judge.score("What?", [answers[i] for i in order]), atol=1e-5)


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_orders_that_are_none_are_refused(judge: Judge, order: list[int]):
    with pytest.raises(ProcessingError, match="expected orders of 3 answers, each of 0 to 2 once, got"):
        judge.score_orders("What?", ANSWERS[:3], [order])
    with pytest.raises(ProcessingError, match="expected one or more orders of 3 answers, got none"):
        judge.score_orders("What?", ANSWERS[:3], [])


def test_who_raises_the_limit_is_not_warned():
    judge = judge_of(limits={"max_responses": 6})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(judge.score("What?", [f"Answer number {i}." for i in range(6)])) == 6


def test_odd_settings_are_refused(judge: Judge):
    with pytest.raises(ProcessingError, match="max_responses of 2 or more, got 1"):
        Judge(judge.model, judge.processor, max_responses=1)
    with pytest.raises(ProcessingError, match="permutations of 1 or more, got 0"):
        judge.score("What?", ANSWERS, permutations=0)
    with pytest.raises(ProcessingError, match="got one text; use `score`"):
        judge.score_batch("What?", [ANSWERS])
    with pytest.raises(ProcessingError, match="as many lists of answers, images and videos as prompts"):
        judge.score_batch(["What?"] * 2, [ANSWERS])


@given(count=st.integers(1, 9), wanted=st.integers(1, 40))
def test_orders_are_different_and_visit_every_place_evenly(count: int, wanted: int):
    found = orders(count, wanted)
    assert len({tuple(order) for order in found}) == len(found) <= wanted
    assert all(sorted(order) == list(range(count)) for order in found)
    assert found[0] == list(range(count))
    first = np.array(found[:count])
    assert all(len(set(column)) == len(first) for column in first.T)


@given(count=st.integers(1, 60), size=st.integers(2, 9))
def test_chunks_hold_every_answer_once_and_the_anchor_always(count: int, size: int):
    found = chunks(count, size)
    assert len(found) == max(1, -(-(count - 1) // (size - 1)))
    assert all(chunk[0] == 0 and len(chunk) <= size for chunk in found)
    assert sorted(number for chunk in found for number in chunk[1:]) == list(range(1, count))


@given(seed=st.integers(0, 1000), count=st.integers(2, 20), permutations=st.integers(1, 5))
def test_combining_gives_back_scores_that_depend_on_the_answer_alone(
    seed: int, count: int, permutations: int
):
    rng = np.random.default_rng(seed)
    true = rng.normal(size=count)
    lists = [
        [chunk[i] for i in order] for chunk in chunks(count, 4) for order in orders(len(chunk), permutations)
    ]
    found = combine(count, lists, [true[each] + rng.normal() for each in lists])
    np.testing.assert_allclose(found - found.mean(), true - true.mean(), atol=1e-9)
