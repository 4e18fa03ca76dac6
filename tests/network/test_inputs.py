"""What does not fit together is refused, and says how; it never runs into an index error or a wrong answer."""

from __future__ import annotations

import pytest
import torch
from tiny import Rows, batch_of, random_model


@pytest.fixture(scope="module")
def model():
    return random_model(0)


@pytest.fixture
def inputs(model):
    return batch_of(Rows(model.config, 0).prompts([["image"], ["image"]]), model.config)


def answer(model, inputs, **kwargs):
    return model.generate(**inputs, max_new_tokens=3, pad_token_id=0, eos_token_id=None, **kwargs)


def test_a_picture_and_a_clip_in_one_row(model):
    for rows in ([["image", "clip"]], [["clip", "image"]], [["image"], ["image", "clip"]]):
        with pytest.raises(ValueError, match="a row holds pictures or one clip"):
            answer(model, batch_of(Rows(model.config, 0).prompts(rows), model.config))


def test_frames_without_frame_tokens_beside_pictures(model):
    sample = batch_of(Rows(model.config, 0).prompts([["clip"], ["image"]]), model.config)
    sample["input_ids"] = sample["input_ids"].masked_fill(
        sample["input_ids"] == model.config.frame_start_token_id, 5
    )
    with pytest.raises(ValueError, match="frames stand in frame tokens"):
        answer(model, sample)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_table_that_points_beyond_the_crops_or_has_other_rows(model, inputs, copies):
    many = {"num_return_sequences": copies, "do_sample": copies > 1}
    with pytest.raises(ValueError, match="expected pooling entries below 100"):
        answer(model, inputs | {"image_token_pooling": inputs["image_token_pooling"] + 60}, **many)
    with pytest.raises(ValueError, match="expected 35 image tokens"):
        answer(model, inputs | {"image_token_pooling": inputs["image_token_pooling"][1:]}, **many)
    with pytest.raises(ValueError, match="pixels and their pooling table together"):
        answer(model, {k: v for k, v in inputs.items() if k != "image_token_pooling"}, **many)


PER_TOKEN = [
    "selection_ids",
    "shift_labels",
    "labels",
    "loss_weights",
    "attention_mask",
    "example_ids",
    "mm_token_type_ids",
]


@pytest.mark.parametrize("name", PER_TOKEN)
def test_what_is_given_per_token_has_the_shape_of_the_ids(model, inputs, name):
    wrong = torch.zeros(2, inputs["input_ids"].shape[1] - 1, dtype=torch.long)
    with pytest.raises(ValueError, match=f"expected {name} of shape"):
        model(**(inputs | {name: wrong}))


def test_branches_come_with_positions(model, inputs):
    with pytest.raises(ValueError, match="expected position_ids together with branch_ids"):
        model(**inputs, branch_ids=torch.zeros_like(inputs["input_ids"]))


def test_right_padding_is_found_without_a_mask(model):
    inputs = batch_of(
        Rows(model.config, 0).prompts([["image"], []], words=[3, 3]), model.config, side="right"
    )
    inputs.pop("attention_mask")
    with pytest.raises(ValueError, match="left padding"):
        answer(model, inputs)


def test_open_list_is_one_flag_per_prompt(model, inputs):
    """Each of the answers to a prompt starts as its prompt says."""
    start = model.config.extended_start
    options = {"num_return_sequences": 3, "do_sample": True, "top_k": 1, "single_point": True}
    ids = answer(model, inputs, open_list=torch.tensor([False, True]), **options)[:, -3]
    assert (ids >= start).tolist() == [False] * 3 + [True] * 3
    assert (answer(model, inputs, open_list=True, **options)[:, -3] >= start).all()
    with pytest.raises(ValueError, match="one for each of the 2 prompts, got 3"):
        answer(model, inputs, open_list=[True] * 3, **options)


def test_a_step_needs_the_state_and_the_cache(model, inputs):
    prompt = model(**inputs, use_cache=True)
    token = torch.tensor([[5], [5]])
    with pytest.raises(ValueError, match="expected the grounding_state"):
        model(input_ids=token, cache=prompt.cache)
    with pytest.raises(ValueError, match="and no cache"):
        model(input_ids=token, grounding_state=prompt.grounding_state)
    with pytest.raises(ValueError, match="got 2 tokens"):
        model(input_ids=token.expand(-1, 2), grounding_state=prompt.grounding_state, cache=prompt.cache)


def test_the_tables_keep_their_size(model):
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    assert model.resize_token_embeddings(model.config.extended_start) is model.get_input_embeddings()
    with pytest.raises(NotImplementedError, match="unused additional rows"):
        model.resize_token_embeddings(model.config.extended_start + 8)
