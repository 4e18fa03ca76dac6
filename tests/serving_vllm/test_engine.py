"""One engine in this process: the library's answers, whatever else runs beside them."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import torch
from serving_vllm.engines import answers, assert_equal, engine, questions, state_of

from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.pipeline import Pointer

MANY = int(os.environ.get("MOLMOPOINT_VLLM_REQUESTS", "64"))
"""Requests of the longest test; 500 where there is time."""

DRAWS = int(os.environ.get("MOLMOPOINT_VLLM_DRAWS", "100"))


@pytest.fixture(scope="module")
def pointer():
    with engine(max_num_seqs=32) as made:
        yield made


def settle(pointer: Pointer) -> None:
    """Workers hear of requests that have ended with the next step; this one is about no picture."""
    pointer.point(None, "the end", max_new_tokens=2)


def test_points_scores_and_words_are_those_of_the_library(pointer: Pointer, library: Pointer):
    asked = questions(12)
    wanted = answers(library, asked, max_new_tokens=96)
    assert sum(len(result) for result in wanted) > 12
    assert_equal(answers(pointer, asked, max_new_tokens=96), wanted)


def test_again_where_all_of_the_prompt_is_in_the_prefix_cache(pointer: Pointer, library: Pointer):
    asked = questions(6)
    wanted = answers(library, asked, max_new_tokens=96)
    answers(pointer, asked, max_new_tokens=96)
    assert_equal(answers(pointer, asked, max_new_tokens=96), wanted)


def test_and_where_the_features_of_the_pictures_were_dropped(pointer: Pointer, library: Pointer):
    asked = questions(6)
    wanted = answers(library, asked, max_new_tokens=96)
    answers(pointer, asked, max_new_tokens=96)
    settle(pointer)
    state = state_of(pointer)
    state.memory.clear()
    assert not len(state.memory)
    assert_equal(answers(pointer, asked, max_new_tokens=96), wanted)
    assert len(state.memory)


@pytest.mark.parametrize(
    "options",
    [
        {"max_points": 1},
        {"max_points": 2},
        {"single": True},
        {"single": True, "calibrated": True},
        {"min_score": 0.4},
        {"max_crops": 1},
    ],
)
def test_options(pointer: Pointer, library: Pointer, options: dict):
    asked = questions(6, seed=21)
    wanted = answers(library, asked, max_new_tokens=48, **options)
    found = answers(pointer, asked, max_new_tokens=48, **options)
    assert_equal(found, wanted)
    absent = [[result.absent for result in results] for results in (found, wanted)]
    np.testing.assert_allclose(absent[0], absent[1], atol=2e-3)
    assert [result.left_out for result in found] == [result.left_out for result in wanted]


def test_rows_with_other_options_beside_each_other(pointer: Pointer, library: Pointer):
    from vllm import SamplingParams

    asked = questions(6, seed=40)
    backend = pointer.backend
    options = [{}, {"max_points": 1}, {"single": True}, {"max_points": 2}, {}, {"single": True}]
    from molmopoint.backends import AnswerOptions, complete_prompt

    made, requests, parameters = [], [], []
    for (picture, prompt), given in zip(asked, options, strict=True):
        made.append(AnswerOptions(max_new_tokens=48, **given))
        requests.append(backend.requests.about_pictures(picture, complete_prompt(prompt), made[-1], None))
        parameters.append(SamplingParams(**backend.parameters_of(requests[-1], made[-1])))  # pyright: ignore[reportAttributeAccessIssue]
    prompts = [backend.prompt_of(*pair) for pair in zip(requests, made, strict=True)]  # pyright: ignore[reportAttributeAccessIssue]
    outputs = pointer.model.engine.generate(prompts, parameters, use_tqdm=False)
    found = []
    for request, one, output in zip(requests, made, outputs, strict=True):
        found.append(backend.result_of(request, one, output.prompt_token_ids, output.outputs[0]))  # pyright: ignore[reportAttributeAccessIssue]
    wanted = [
        library.point(picture, prompt, max_new_tokens=48, **given)
        for (picture, prompt), given in zip(asked, options, strict=True)
    ]
    assert_equal(found, wanted)


def test_earlier_turns_and_text_alone(pointer: Pointer, library: Pointer):
    (picture, prompt), (_, other) = questions(2)
    first = library.point(picture, prompt, max_new_tokens=48)
    assert len(first)
    wanted = library.point(picture, other, max_new_tokens=48, history=[first])
    assert_equal([pointer.point(picture, other, max_new_tokens=48, history=[first])], [wanted])
    wanted = library.point(None, "the red circles", max_new_tokens=16)
    assert_equal([pointer.point(None, "the red circles", max_new_tokens=16)], [wanted])


def test_one_picture_and_several_prompts(pointer: Pointer, library: Pointer):
    (picture, prompt), (_, other) = questions(2)
    wanted = library.point(picture, [prompt, other], max_new_tokens=48)
    assert_equal(pointer.point(picture, [prompt, other], max_new_tokens=48), wanted)


def test_many_requests_at_a_time_lose_and_mix_up_nothing(pointer: Pointer, library: Pointer):
    asked = questions(MANY, seed=100)
    wanted = answers(library, asked[:32], max_new_tokens=32)
    for begin in range(32, MANY, 32):
        wanted += answers(library, asked[begin : begin + 32], max_new_tokens=32)
    assert_equal(answers(pointer, asked, max_new_tokens=32), wanted)
    settle(pointer)
    state = state_of(pointer)
    assert len(state.running) == 1
    assert not any(kept.users for kept in state.memory._kept.values())


@pytest.mark.parametrize("sampling", [{"temperature": 1.5}])
def test_drawn_places_have_the_distribution_of_generate(pointer: Pointer, library: Pointer, sampling: dict):
    picture, prompt = questions(1)[0]
    torch.manual_seed(0)
    counts = []
    for one in (pointer, library):
        counted: Counter = Counter()
        for begin in range(0, DRAWS, 100):
            size = min(100, DRAWS - begin)
            results = answers(one, [(picture, prompt)] * size, max_new_tokens=4, single=True, **sampling)
            for result in results:
                assert result.points.triples is not None
                counted.update([tuple(result.points.triples[0].tolist())])
        counts.append(counted)
    found, wanted = counts
    assert len(wanted) > 3
    # Two samples of one distribution: chi-squared over its frequent places, the others together.
    frequent = [place for place, count in (found + wanted).most_common() if count >= 20]
    rest = [DRAWS - sum(counted[place] for place in frequent) for counted in counts]
    pairs = [(found[place], wanted[place]) for place in frequent] + [tuple(rest)]
    chi = sum((a - b) ** 2 / (a + b) for a, b in pairs if a + b)
    freedom = max(len(pairs) - 1, 1)
    assert chi < freedom + 5 * (2 * freedom) ** 0.5, (sampling, pairs)


def test_what_an_engine_does_not_have_is_refused_with_a_reason(pointer: Pointer):
    picture, prompt = questions(1)[0]
    with pytest.raises(ProcessingError, match="one picture"):
        pointer.point([picture, picture], prompt)
    with pytest.raises(ProcessingError, match="num_beams"):
        pointer.point(picture, prompt, num_beams=2)
    with pytest.raises(ProcessingError, match="got a clip"):
        pointer.point_video([picture, picture], prompt, timestamps=[0.0, 1.0])
    with pytest.raises(MolmoPointError, match="stream"):
        list(pointer.stream(picture, prompt))
    assert len(pointer.point(picture, prompt, max_new_tokens=48))  # it still answers
