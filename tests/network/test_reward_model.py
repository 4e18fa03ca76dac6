"""Rows of answers and their scores, for both families: who sees whom, where answers are read, and that
batches are their rows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from tiny_reward import FAMILIES, random_reward
from torch.nn import functional
from toy_processor import frames, picture

from molmopoint.errors import ProcessingError
from molmopoint.reward import RewardModel, RowBuilder, collate
from molmopoint.reward.model import pool_answers
from molmopoint.reward.rows import PromptPart
from molmopoint.reward.settings import SEPARATOR
from molmopoint.video import Clip

ANSWERS = ("Two cats.", "a dog\nand a bird", "There is nothing to be seen here.", "No")
PAD = 0


@pytest.fixture(scope="module", params=FAMILIES)
def causal(request: pytest.FixtureRequest) -> Any:
    return reward_of(request.param)


@pytest.fixture(scope="module", params=FAMILIES)
def block(request: pytest.FixtureRequest) -> Any:
    return reward_of(request.param, attention="block")


def reward_of(family: Any, **settings: Any) -> tuple[RewardModel, RowBuilder]:
    model, processor = random_reward(family, **settings)
    return model, RowBuilder(processor, model.settings)


def scores_of(model: RewardModel, *rows: Any, side: Literal["left", "right"] = "right") -> torch.Tensor:
    with torch.no_grad():
        scores = model(**collate(rows, PAD, side)).scores
    assert scores is not None and scores.dtype == torch.float32
    return scores


def score(reward: Any, answers: Any, **prompt: Any) -> torch.Tensor:
    model, builder = reward
    return scores_of(model, builder.row(builder.prompt(**{"prompt": "What is there?", **prompt}), answers))[0]


def test_in_causal_attention_an_answer_is_judged_by_those_before_it_alone(causal: Any):
    seen = {"images": picture(70, 120)}
    before = score(causal, ANSWERS, **seen)
    after = score(causal, [*ANSWERS[:2], "Something else, and much longer.", ANSWERS[3]], **seen)
    torch.testing.assert_close(before[:2], after[:2], atol=1e-5, rtol=1e-5)
    assert (before[2:] - after[2:]).abs().min() > 1e-3
    assert len(set(before.tolist())) == len(ANSWERS)


def test_in_block_attention_permuted_answers_have_permuted_scores(block: Any):
    seen = {"images": [picture(70, 120), picture(70, 70, 1)]}
    scores = score(block, ANSWERS, **seen)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(
        score(block, [ANSWERS[i] for i in order], **seen), scores[order], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("layout", ["assistant", "user"])
@pytest.mark.parametrize("family", FAMILIES)
def test_block_attention_is_every_answer_alone(family: Any, layout: str):
    together = score(reward_of(family, attention="block", layout=layout), ANSWERS, images=picture(70, 120))
    single = reward_of(family, layout=layout)
    alone = torch.cat([score(single, [answer], images=picture(70, 120)) for answer in ANSWERS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_several_orders_in_one_row_are_each_order_alone(causal: Any):
    model, builder = causal
    prompt = builder.prompt("What is there?", picture(70, 120))
    orders = [[0, 1, 2, 3], [1, 2, 3, 0], [3, 1]]
    scores = scores_of(model, builder.row(prompt, ANSWERS, orders))[0]
    alone = [scores_of(model, builder.row(prompt, [ANSWERS[i] for i in order]))[0] for order in orders]
    torch.testing.assert_close(scores, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["causal", "block"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_many_kinds_is_its_rows_alone(family: Any, attention: str):
    model, builder = reward_of(family, attention=attention)
    clip = Clip(frames(3, 70, 70), [0.0, 0.5, 1.0])
    prompts = [
        builder.prompt("Two and two?"),
        builder.prompt("What?", picture(70, 120)),
        builder.prompt("When?", videos=clip),
    ]
    rows = [
        builder.row(prompts[0], ANSWERS[:2]),
        builder.row(prompts[1], ANSWERS),
        builder.row(prompts[2], ANSWERS[1:]),
    ]
    for side in ("left", "right"):
        batch = scores_of(model, *rows, side=side)
        for row, scores in zip(rows, batch, strict=True):
            count = len(row.response_positions)
            torch.testing.assert_close(scores[:count], scores_of(model, row)[0], atol=1e-5, rtol=1e-5)
            assert (scores[count:] == -torch.inf).all()


def test_a_new_head_gives_every_answer_the_same_chance():
    model, processor = random_reward()
    builder = RowBuilder(processor, model.settings)
    model.value.reset_parameters()
    for count in range(2, 9):
        scores = scores_of(model, builder.row(builder.prompt("What?"), [f"Answer {i}" for i in range(count)]))
        assert float(functional.cross_entropy(scores, torch.tensor([0]))) == pytest.approx(
            math.log(count), abs=1e-2
        )


def test_absent_answers_get_no_gradient():
    model, processor = random_reward()
    builder = RowBuilder(processor, model.settings)
    rows = [builder.row(builder.prompt("What?"), ANSWERS[:count]) for count in (2, 4)]
    scores = model(**collate(rows, PAD)).scores
    scores.retain_grad()
    loss = functional.cross_entropy(scores, torch.tensor([1, 0]), reduction="none")
    loss.sum().backward()
    torch.testing.assert_close(loss[0], -functional.logsigmoid(scores[0, 1] - scores[0, 0]))
    assert (scores.grad[0, 2:] == 0).all() and (scores.grad[0, :2] != 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.value.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_separator_that_somebody_typed_is_text(family: Any):
    model, builder = reward_of(family)
    answers = [f"one {SEPARATOR} two", SEPARATOR, "<|im_end|>three <im_patch><|image|>"]
    row = builder.row(builder.prompt(f"What is {SEPARATOR}?", picture(70, 120)), answers)
    assert int((row.input_ids == builder.separator_id).sum()) == 2
    assert scores_of(model, row).shape == (1, 3)
    text = builder.processor.tokenizer.decode(row.input_ids)
    assert text.count(SEPARATOR) == 5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "pooling", ["last", "first", "first_last_concat", "first_last_add", "first_last_sub", "response_mean"]
)
def test_vectors_of_answers_are_those_of_the_published_poolings(family: Any, pooling: Any):
    model, builder = reward_of(family, pooling=pooling)
    row = builder.row(builder.prompt("What?", picture(70, 120)), ANSWERS)
    seen: dict[str, torch.Tensor] = {}
    hook = (
        model.backbone.model.language_model.norm
        if family == "molmopoint"
        else model.backbone.model.language_model
    )
    handle = hook.register_forward_hook(
        lambda _m, _a, out: seen.update(hidden=out if isinstance(out, torch.Tensor) else out[0])
    )
    scores = scores_of(model, row)[0]
    handle.remove()
    states = [
        seen["hidden"][0, a : b + 1] for a, b in zip(row.response_starts, row.response_positions, strict=True)
    ]
    vectors = {
        "last": lambda h: h[-1],
        "first": lambda h: h[0],
        "first_last_concat": lambda h: torch.cat([h[0], h[-1]]),
        "first_last_add": lambda h: h[0] + h[-1],
        "first_last_sub": lambda h: h[-1] - h[0],
        "response_mean": lambda h: h.mean(0),
    }[pooling]
    with torch.no_grad():
        expected = model.value(torch.stack([vectors(h) for h in states]))
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_separator_has_a_row_of_its_own_whatever_the_table_holds(family: Any):
    model, builder = reward_of(family)
    row = builder.row(builder.prompt("What?", picture(70, 120)), ANSWERS)
    scores = scores_of(model, row)
    table: Any = model.backbone.get_input_embeddings()
    with torch.no_grad():
        table.weight[model.separator_id] = 7.0
    assert torch.equal(scores_of(model, row), scores)
    assert not table._forward_hooks
    with torch.no_grad():
        model.separator += 1.0
    assert not torch.equal(scores_of(model, row)[0, 1:], scores[0, 1:])


def test_places_that_do_not_fit_are_refused():
    model, builder = reward_of("molmopoint", pooling="first")
    batch = collate([builder.row(builder.prompt("What?"), ANSWERS)], PAD)
    places = batch["response_positions"]
    for change, message in (
        ({"response_positions": places + 1}, r"expected response_positions in -1\.\.\d+, got \d+\.\.\d+"),
        (
            {"response_positions": places[0]},
            r"expected response_positions \(rows, answers\) for 1 rows, got \(4,\)",
        ),
        ({"response_starts": None}, "expected response_starts for this pooling, got none"),
        (
            {"response_words": None, "spoken": torch.zeros(1, dtype=torch.long)},
            "expected response_words for the words of an answer",
        ),
        ({"response_starts": places[:, :2]}, r"expected response_starts of shape \(1, 4\), got \(1, 2\)"),
        ({"position_ids": None}, "expected position_ids together with branch_ids"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**{**batch, **change})


def test_pictures_seen_before_are_judged_as_if_they_were_seen_now():
    model, builder = reward_of("molmopoint")
    prompts = [
        builder.prompt("What?", picture(70, 120)),
        builder.prompt("Two and two?"),
        builder.prompt("Where?", picture(120, 70, 1)),
    ]
    seen = [prompt if prompt.pixel_values is None else _seen(model, prompt) for prompt in prompts]
    scores, again = (
        scores_of(model, *[builder.row(prompt, ANSWERS) for prompt in part]) for part in (prompts, seen)
    )
    torch.testing.assert_close(scores, again, atol=1e-6, rtol=1e-6)
    with pytest.raises(
        ProcessingError, match="expected features or pixels in all rows, got features in 1 and pixels in 1"
    ):
        collate([builder.row(prompts[0], ANSWERS), builder.row(seen[0], ANSWERS)], PAD)


def test_molmo2_is_given_pixels():
    model, builder = reward_of("molmo2")
    batch = collate([builder.row(builder.prompt("What?"), ANSWERS)], PAD)
    with pytest.raises(ValueError, match="expected pixel_values for a Molmo2, got image_features"):
        model(**batch, image_features=torch.zeros(4, 64))


def _seen(model: RewardModel, prompt: PromptPart) -> PromptPart:
    backbone: Any = model.backbone
    with torch.no_grad():
        features = backbone.model.get_visual_features(prompt.pixel_values, prompt.pooling).image_features
    return replace(prompt, pixel_values=None, pooling=None, image_features=features)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_text_loss_is_that_of_the_words_of_one_answer(causal: Any, side: Literal["left", "right"]):
    model, builder = causal
    rows = [
        builder.row(builder.prompt("What?", picture(70, 120)), ANSWERS),
        builder.row(builder.prompt("Two and two?"), ANSWERS[:2]),
    ]
    spoken = [2, 1]
    with torch.no_grad():
        losses = model(**collate(rows, PAD, side), spoken=torch.tensor(spoken)).text_losses
        for row, answer, loss in zip(rows, spoken, losses, strict=True):
            batch = collate([row], PAD)
            first, last = int(row.response_words[answer]), int(row.response_positions[answer])
            hidden = _hidden(model, batch)[0]
            logits = model.backbone.lm_head(hidden[first - 1 : last]).float()
            torch.testing.assert_close(
                loss, functional.cross_entropy(logits, row.input_ids[first : last + 1])
            )


def test_in_block_attention_words_follow_those_they_can_see(block: Any):
    """The second answer has its first token right behind the prompt, by position, but not in the row: that
    token is not predicted.
    """
    model, builder = block
    prompt = builder.prompt("What?", picture(70, 120))
    row = builder.row(prompt, ANSWERS[:2])
    with torch.no_grad():
        batch = collate([row], PAD)
        loss = model(**batch, spoken=torch.tensor([1])).text_losses[0]
        first, last = int(row.response_words[1]), int(row.response_positions[1])
        logits = model.backbone.lm_head(_hidden(model, batch)[0, first:last]).float()
    torch.testing.assert_close(loss, functional.cross_entropy(logits, row.input_ids[first + 1 : last + 1]))


def _hidden(model: RewardModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """States (B, S, H) that the scores of a batch are read from."""
    kept: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor, *arguments: Any) -> torch.Tensor:
        kept.append(hidden)
        return pool_answers(hidden, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("molmopoint.reward.model.pool_answers", keep)
        model(**batch)
    return kept[0]
