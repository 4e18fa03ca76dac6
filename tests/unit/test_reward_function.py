"""The reward function of TRL: whole groups, pictures from wherever they lie, one pass per group, and nothing
heavy in a pickle.
"""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image
from tiny_reward import random_reward
from torch import nn

from molmopoint.errors import ProcessingError
from molmopoint.reward import Judge, RewardFunction

PICTURE, OTHER = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))


@pytest.fixture(scope="module")
def judge():
    """Attention of blocks: a score does not depend on the order, so it can be compared."""
    return Judge(*random_reward(attention="block"))


def function(judge, num_generations=2, **options):
    made = RewardFunction("somewhere", num_generations, **options)
    made._judge = judge
    return made


def chat(text, *parts):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def said(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_rewards_are_the_scores_of_whole_groups(judge):
    reward = function(judge)
    got = reward(
        prompts=["a", "a", "b", "b"],
        completions=["x", "yy", "z", "x"],
        trainer_state=None,
        completion_ids=None,
    )
    assert got == pytest.approx(judge.score("a", ["x", "yy"]) + judge.score("b", ["z", "x"]), abs=1e-5)
    assert not isinstance(reward, nn.Module) and reward.__name__ == "judge"
    assert all(isinstance(value, float) for value in got)


@pytest.mark.parametrize("way", ["messages", "image", "images"])
def test_pictures_are_delivered(judge, way):
    columns = {
        "image": {"image": [PICTURE, PICTURE, OTHER, OTHER]},
        "images": {"images": [[PICTURE], [PICTURE], [OTHER], [OTHER]]},
    }
    inside = [
        [{"type": "image", "image": picture}] if way == "messages" else [{"type": "image"}]
        for picture in (PICTURE, OTHER)
    ]
    prompts = [chat("a", *inside[0]), chat("a", *inside[0]), chat("a", *inside[1]), chat("a", *inside[1])]
    got = function(judge)(prompts=prompts, completions=said("x", "yy", "x", "yy"), **columns.get(way, {}))
    assert got == pytest.approx(
        judge.score("a", ["x", "yy"], PICTURE) + judge.score("a", ["x", "yy"], OTHER), abs=1e-5
    )
    assert got[:2] != pytest.approx(got[2:], abs=1e-5)


def test_equal_and_empty_answers(judge):
    reward = function(judge, 4)
    got = reward(["a"] * 4, ["x", "", "yy", "x"])
    one, other = judge.score("a", ["x", "yy"])
    assert got == pytest.approx([one, min(one, other) - 1, other, one], abs=1e-5)
    assert function(judge)(["a"] * 2, ["x", "x"]) == [0.0, 0.0]
    assert function(judge)(["a"] * 2, ["x", " "]) == [0.0, -1.0]


def test_an_anchor_is_the_zero_of_every_group(judge):
    got = function(judge, anchor="I do not know.")(["a", "a"], ["x", "I do not know."])
    scores = judge.score("a", ["x", "I do not know."])
    assert got == pytest.approx([scores[0] - scores[1], 0.0], abs=1e-5)
    got = function(judge, anchor="I do not know.", permutations=2)(["a", "a"], ["x", "x"])
    assert got == pytest.approx([scores[0] - scores[1]] * 2, abs=1e-5)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            ["a"] * 3,
            "expected whole groups of 2 answers, got 3 of 3 prompts; set per_device_train_batch_size",
        ),
        (
            ["a", "b", "b", "a"],
            "expected 2 answers to one prompt from place 0 on, got some to 2; set per_device",
        ),
        ([chat("a"), chat("b")], "got some to 2"),
    ],
)
def test_a_wrong_split_of_groups_is_refused(judge, prompts, message):
    with pytest.raises(ProcessingError, match=message):
        function(judge)(prompts, ["x"] * len(prompts))


def test_faults_of_the_caller(judge):
    with pytest.raises(ValueError, match="expected two or more answers per prompt, got 1"):
        RewardFunction("somewhere", 1)
    with pytest.raises(ProcessingError, match="expected a completion as text or as messages with text"):
        function(judge)(["a", "a"], [[{"role": "assistant", "content": [{"type": "image"}]}], "x"])


def test_weights_are_loaded_late_and_never_pickled(judge):
    reward = pickle.loads(pickle.dumps(function(judge, anchor="n")))
    assert reward._judge is None and (reward.model, reward.anchor, reward.__name__) == (
        "somewhere",
        "n",
        "judge",
    )
    with pytest.raises(ValueError, match="somewhere"):
        reward(["a", "a"], ["x", "yy"])


def test_nothing_is_recorded_for_gradients(judge, monkeypatch):
    seen = []
    forward = judge.model.forward
    monkeypatch.setattr(
        judge.model,
        "forward",
        lambda **inputs: seen.append(torch.is_inference_mode_enabled()) or forward(**inputs),
    )
    function(judge)(["a", "a"], ["x", "yy"])
    assert seen == [True] and not judge.model.training
