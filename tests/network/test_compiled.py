"""Steps that are compiled graphs answer as the model does, and are made once.

Most run with graphs that torch makes but does not translate (backend "eager"); the slow ones with inductor.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import Rows, batch_of, random_model
from torch._dynamo.utils import counters

from molmopoint.compiled import CompiledSteps
from molmopoint.decoder import ROOM

MIX = [["image"], [], ["image", "image", "image"], ["clip"], ["image"], ["image"], [], ["clip"]]
LIMITS: dict[str, Any] = {"max_new_tokens": 40, "eos_token_id": None, "pad_token_id": 0}

pytestmark = pytest.mark.filterwarnings("ignore")


def compiled(model: Any, backend: str = "eager") -> Any:
    """A copy of a model that steps through graphs."""
    other = copy.deepcopy(model)
    other.compiled_steps = CompiledSteps(other, backend)
    return other


def graphs() -> int:
    """Graphs that torch has made so far."""
    return counters["stats"]["unique_graphs"]


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """A model, and the same one compiled."""
    model = random_model(7)
    return model, compiled(model)


def answers(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
    with torch.inference_mode():
        return model.generate(**inputs, **{**LIMITS, "return_dict_in_generate": True, **options})


@pytest.mark.parametrize("rows", [MIX[:1], MIX[1:2], MIX[:3], MIX], ids=len)
@pytest.mark.parametrize(
    "options", [{}, {"max_points": 2}, {"single_point": True}, {"open_list": True}], ids=str
)
def test_answers_are_those_of_the_model(pair, rows, options):
    model, other = pair
    inputs = batch_of(Rows(model.config, len(rows)).prompts(rows), model.config)
    expected, found = answers(model, inputs, **options), answers(other, inputs, **options)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(
        found.selection_probabilities, expected.selection_probabilities, equal_nan=True, atol=1e-4, rtol=1e-4
    )
    for ours, theirs in zip(found.patch_distributions, expected.patch_distributions, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or ours.shape == theirs.shape
    for ours, theirs in zip(found.subpatch_distributions, expected.subpatch_distributions, strict=True):
        assert ours is None or ours.shape == theirs.shape


def test_no_graph_is_made_after_the_first_answer(pair):
    model, other = pair
    rows = Rows(model.config, 3)
    answers(other, batch_of(rows.prompts(MIX[:1]), model.config))
    before = graphs()
    for prompts in (MIX[:1], MIX[1:2], MIX[3:4], MIX[:2], MIX[2:5], MIX, MIX * 2):
        inputs = batch_of(rows.prompts(prompts), model.config)
        answers(other, inputs)
        answers(other, {**inputs, "attention_mask": None}, max_new_tokens=4)
    answers(other, batch_of(rows.prompts(MIX[:1]), model.config), max_new_tokens=2 * ROOM)
    assert graphs() == before


def test_a_long_answer_grows_past_the_room_of_its_buffers(pair):
    model, other = pair
    inputs = batch_of(Rows(model.config, 1).prompts(MIX[:3]), model.config)
    expected = answers(model, inputs, max_new_tokens=2 * ROOM + 9)
    found = answers(other, inputs, max_new_tokens=2 * ROOM + 9)
    assert torch.equal(found.sequences, expected.sequences)
    assert found.cache.get_seq_length() == expected.cache.get_seq_length()
    for ours, theirs in zip(found.cache.layers, expected.cache.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(ours.values, theirs.values, atol=1e-3, rtol=1e-3)


def test_the_same_choices_are_drawn(pair):
    model, _ = pair
    inputs = batch_of(Rows(model.config, 2).prompts(MIX[:4]), model.config)
    drawn = []
    for subject in pair:
        torch.manual_seed(5)
        drawn.append(
            answers(subject, inputs, do_sample=True, temperature=0.7, num_return_sequences=2).sequences
        )
    assert torch.equal(*drawn)


def test_rows_that_have_ended_are_padded_alike(pair):
    model, other = pair
    inputs = batch_of(Rows(model.config, 4).prompts(MIX), model.config)
    longest = answers(model, inputs).sequences[:, inputs["input_ids"].shape[1] :]
    ends = longest[0, 5].item()
    found, expected = (answers(subject, inputs, eos_token_id=ends).sequences for subject in (other, model))
    assert torch.equal(found, expected)


def test_hooks_are_called(pair):
    model, other = pair
    inputs = batch_of(Rows(model.config, 1).prompts(MIX[:1]), model.config)
    seen: list[int] = []
    handle = other.model.language_model.layers[0].register_forward_hook(
        lambda _module, _inputs, hidden: seen.append(hidden.shape[1])
    )
    found = answers(other, inputs).sequences
    handle.remove()
    assert seen[1:] == [1] * (LIMITS["max_new_tokens"] - 1)
    assert torch.equal(found, answers(model, inputs).sequences)


@pytest.mark.parametrize(
    "options",
    [{"output_hidden_states": True}, {"cache_implementation": "static"}],
    ids=["recorded", "static cache"],
)
def test_what_graphs_cannot_do_the_model_does(pair, options):
    model, other = pair
    fed = count_feeds(other)
    inputs = batch_of(Rows(model.config, 1).prompts(MIX[:2]), model.config)
    expected, found = answers(model, inputs, **options), answers(other, inputs, **options)
    assert torch.equal(found.sequences, expected.sequences)
    assert (found.hidden_states is None) == (expected.hidden_states is None)
    answers(other, inputs)
    assert len(fed) == LIMITS["max_new_tokens"] - 1, "and graphs do what they can do afterwards"


def count_feeds(model: Any) -> list[int]:
    """A list that grows with every step through graphs."""
    fed: list[int] = []
    feed = model.compiled_steps.feed

    def counted(*arguments: Any) -> Any:
        fed.append(1)
        return feed(*arguments)

    model.compiled_steps.feed = counted
    return fed


def test_another_attention_is_not_replaced(pair):
    model, _ = pair
    other = compiled(model)
    other.set_attn_implementation("eager")
    inputs = batch_of(Rows(model.config, 1).prompts(MIX[:2]), model.config)
    before = graphs()
    assert torch.equal(answers(other, inputs).sequences, answers(model, inputs).sequences)
    assert graphs() == before


@pytest.mark.slow
def test_another_precision_makes_graphs_of_its_own(pair, caplog):
    model, _ = pair
    other = compiled(model)
    inputs = batch_of(Rows(model.config, 1).prompts(MIX[:3]), model.config)
    answers(other, inputs)
    other.to(torch.float64)
    answers(other, inputs)
    told = [record.getMessage() for record in caplog.records if record.name == "molmopoint.compiled"]
    assert [message for message in told if "float64" in message]
    before = graphs()
    answers(other, batch_of(Rows(model.config, 2).prompts(MIX), model.config))
    assert graphs() == before


@pytest.mark.slow
def test_copies_step_with_weights_of_their_own(pair):
    model, other = pair
    inputs = batch_of(Rows(model.config, 1).prompts(MIX[:1]), model.config)
    changed = copy.deepcopy(other)
    with torch.no_grad():
        changed.lm_head.weight.neg_()
    plain = copy.deepcopy(model)
    with torch.no_grad():
        plain.lm_head.weight.neg_()
    assert torch.equal(answers(changed, inputs).sequences, answers(plain, inputs).sequences)
    assert torch.equal(answers(other, inputs).sequences, answers(model, inputs).sequences)


@pytest.mark.slow
def test_a_model_without_cells_or_rotation(pair):
    model = random_model(3, patch_location=None, token_prediction_rotary="none")
    inputs = batch_of(Rows(model.config, 3).prompts(MIX[:4]), model.config)
    assert torch.equal(answers(compiled(model), inputs).sequences, answers(model, inputs).sequences)


@pytest.mark.slow
def test_translated_graphs_answer_the_same():
    model = random_model(7)
    other = compiled(model, "inductor")
    for number in (1, 2, 3, 8):
        inputs = batch_of(Rows(model.config, number).prompts(MIX[:number]), model.config)
        expected, found = answers(model, inputs), answers(other, inputs)
        assert torch.equal(found.sequences, expected.sequences)
        torch.testing.assert_close(
            found.selection_probabilities,
            expected.selection_probabilities,
            equal_nan=True,
            atol=1e-3,
            rtol=1e-3,
        )
    before = graphs()
    answers(other, batch_of(Rows(model.config, 9).prompts(MIX), model.config), max_new_tokens=2 * ROOM)
    assert graphs() == before
