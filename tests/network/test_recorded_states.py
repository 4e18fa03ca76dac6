"""What transformers users ask of a forward pass beside logits: hidden states, attention weights, tuples,
names of arguments.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny import Rows, batch_of, random_model

from molmopoint import attention
from molmopoint.backbone import MolmoPointModel
from molmopoint.errors import CheckpointError, InputWarning
from molmopoint.modeling import MolmoPointForConditionalGeneration

LIMITS = {"max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0, "return_dict_in_generate": True}


@pytest.fixture(scope="module")
def model():
    return random_model(3)


@pytest.fixture(scope="module")
def eager():
    model = random_model(3)
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def inputs(model):
    return batch_of(Rows(model.config, 3).prompts([["image"], ["image", "image"]]), model.config)


@torch.no_grad()
def test_states_of_all_layers(model, inputs):
    """From the embeddings to what the vocabulary is scored with; recording changes nothing else."""
    plain, recorded = model(**inputs), model(**inputs, output_hidden_states=True)
    states = recorded.hidden_states
    assert plain.hidden_states is None and plain.attentions is None and recorded.attentions is None
    assert [tuple(state.shape) for state in states] == [(*inputs["input_ids"].shape, 32)] * 3
    assert torch.equal(states[-1], model.hidden_states(**inputs))
    assert torch.equal(model.lm_head(states[-1]), recorded.logits) and torch.equal(
        plain.logits, recorded.logits
    )
    words = inputs["input_ids"] < model.config.image_start_token_id
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    assert torch.equal(states[0][words], embeddings[words]), "image tokens have their features on top"
    assert not torch.equal(states[0], embeddings)


@torch.no_grad()
def test_states_of_some_layers(model, inputs):
    everything, some = (model(**inputs, output_hidden_states=which).hidden_states for which in (True, [0, 2]))
    assert torch.equal(some[0], everything[0]) and some[1] is None and torch.equal(some[2], everything[2])
    last = model(**inputs, output_hidden_states=[-1, 1, 9]).hidden_states
    assert last[0] is None and torch.equal(last[1], everything[1]) and torch.equal(last[2], everything[2])
    assert model(**inputs, output_hidden_states=[1]).hidden_states[-1] is None


@torch.no_grad()
def test_attention_weights(eager, model, inputs):
    weights = eager(**inputs, output_attentions=True).attentions
    rows, length = inputs["input_ids"].shape
    assert [tuple(layer.shape) for layer in weights] == [(rows, 4, length, length)] * 2
    real = inputs["attention_mask"].bool()
    for layer in weights:
        assert torch.allclose(layer.sum(-1), torch.ones(rows, 4, length), atol=1e-5)
        assert (
            layer.transpose(1, 2)[real] * ~real.repeat_interleave(real.sum(1), 0)[:, None]
        ).abs().max() == 0, "padding is not seen"
    assert model(**inputs, output_attentions=True).attentions == (), (
        "SDPA keeps none, and transformers says so"
    )


@torch.no_grad()
def test_the_config_asks_as_well(model, inputs):
    asking = random_model(3)
    asking.config.output_hidden_states = True
    assert len(asking(**inputs).hidden_states) == 3
    assert asking(**inputs, output_hidden_states=False).hidden_states is None, "the call has the last word"


def test_a_tuple_holds_what_is_not_none(model, inputs):
    labels = inputs["input_ids"].where(inputs["mm_token_type_ids"] == 0, -100)
    for more in ({}, {"labels": labels}, {"use_cache": True}, {"output_hidden_states": True}):
        with torch.no_grad():
            named, plain = model(**inputs, **more), model(**inputs, **more, return_dict=False)
        assert isinstance(plain, tuple) and len(plain) == len(named.to_tuple())
        assert torch.equal(plain[0], named.to_tuple()[0])
    assert named.patch_logits is not None and model(**inputs, labels=labels).patch_logits is None, (
        "no selection is supervised"
    )


def test_answers_do_not_depend_on_the_form_of_outputs(model, inputs):
    other = random_model(3)
    other.config.return_dict = other.config.text_config.return_dict = False
    assert torch.equal(
        other.generate(**inputs, **LIMITS).sequences, model.generate(**inputs, **LIMITS).sequences
    )


def test_gradients_are_retained(eager, inputs):
    """With and without labels, gradients reach every recorded tensor: logits are made of the last one."""
    labels = inputs["input_ids"].where(inputs["mm_token_type_ids"] == 0, -100)
    for more in ({}, {"labels": labels}):
        output = eager(**inputs, **more, output_hidden_states=True, output_attentions=True)
        recorded = [*output.hidden_states, *output.attentions]
        for tensor in recorded:
            tensor.retain_grad()
        output[0].sum().backward()
        assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in recorded)
    eager.zero_grad()


def test_recording_changes_no_loss(model, inputs):
    labels = inputs["input_ids"].where(inputs["mm_token_type_ids"] == 0, -100)
    with torch.no_grad():
        plain, recorded = (
            model(**inputs, labels=labels),
            model(**inputs, labels=labels, output_hidden_states=True),
        )
    assert torch.equal(plain.loss, recorded.loss) and torch.equal(plain.logits, recorded.logits)


def test_states_of_every_step(model, inputs):
    """Those of the steps are those of one pass over prompt and answer."""
    plain, recorded = (
        model.generate(**inputs, **LIMITS, output_hidden_states=wanted) for wanted in (False, True)
    )
    assert plain.hidden_states is None and torch.equal(plain.sequences, recorded.sequences)
    answer = recorded.sequences
    prompt, new = inputs["input_ids"].shape[1], LIMITS["max_new_tokens"]
    assert len(recorded.hidden_states) == new and all(len(step) == 3 for step in recorded.hidden_states)
    assert [step[0].shape[1] for step in recorded.hidden_states] == [prompt, *[1] * (new - 1)]
    longer = {
        "input_ids": answer,
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, new), value=1),
        "mm_token_type_ids": torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, new), value=0),
    }
    with torch.no_grad():
        whole = model(**(inputs | longer), output_hidden_states=True).hidden_states
    real = inputs["attention_mask"].bool()
    for layer in range(3):
        assert torch.allclose(
            recorded.hidden_states[0][layer][real], whole[layer][:, :prompt][real], atol=1e-4
        )
        steps = torch.cat([step[layer] for step in recorded.hidden_states[1:]], 1)
        assert torch.allclose(steps, whole[layer][:, prompt:-1], atol=1e-4)


def test_attention_weights_of_every_step(eager, model, inputs):
    recorded = eager.generate(**inputs, **LIMITS, output_attentions=True)
    rows, prompt = inputs["input_ids"].shape
    shapes = [tuple(step[0].shape) for step in recorded.attentions]
    assert shapes == [
        (rows, 4, prompt, prompt),
        *((rows, 4, 1, prompt + n) for n in range(1, LIMITS["max_new_tokens"])),
    ]
    assert torch.equal(recorded.sequences, eager.generate(**inputs, **LIMITS).sequences)
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        model.generate(**inputs, **LIMITS, output_attentions=True)


def test_image_tokens_without_pictures(model, inputs):
    """The ids alone are read as text, with a warning; an answer about pictures that are missing is not given."""
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with pytest.warns(InputWarning, match="read as text"):
        output = model(**ids)
    assert output.grounding_state.num_patches.tolist() == [0, 0] and output.logits.isfinite().all()
    text = batch_of(Rows(model.config, 0).prompts([[]]), model.config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(input_ids=text["input_ids"])
    with pytest.raises(ValueError, match="expected 0 image tokens"):
        model.generate(**ids, max_new_tokens=2)
    with pytest.raises(ValueError, match="expected 0 image tokens"):
        model(**ids, mm_token_type_ids=inputs["mm_token_type_ids"])


def test_the_older_name_of_the_cache(model, inputs):
    attention.tell_deprecated.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        prompt = model(**inputs, use_cache=True)
        step = {"input_ids": torch.tensor([[5], [5]]), "grounding_state": prompt.grounding_state}
        older = [model(**step, past_key_values=prompt.cache).logits for _ in range(2)]
    prompt = model(**inputs, use_cache=True)
    assert torch.equal(model(**step, cache=prompt.cache).logits, older[0])
    wanted = 1 if attention.CACHE == "cache" else 0
    assert sum("`past_key_values` is deprecated" in str(warning.message) for warning in told) == wanted


def test_names_of_arguments_are_those_of_transformers(model, tmp_path):
    model.save_pretrained(save_directory=tmp_path)
    loaded = MolmoPointForConditionalGeneration.from_pretrained(pretrained_model_name_or_path=tmp_path)
    built = MolmoPointForConditionalGeneration.from_pretrained(
        None, config=model.config, state_dict=model.state_dict()
    )
    for other in (loaded, built):
        assert all(
            torch.equal(other.state_dict()[name], tensor) for name, tensor in model.state_dict().items()
        )
    for missing in ({}, {"config": model.config}, {"state_dict": model.state_dict()}):
        with pytest.raises(CheckpointError, match="config and state_dict together"):
            MolmoPointForConditionalGeneration.from_pretrained(None, **missing)


def test_the_inner_model_has_no_files(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="take its `model`"):
        MolmoPointModel.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="save the MolmoPointForConditionalGeneration"):
        model.model.save_pretrained(tmp_path / "inner")
    assert not (tmp_path / "inner").exists()
    built = MolmoPointModel.from_pretrained(None, config=model.config, state_dict=model.model.state_dict())
    assert all(
        torch.equal(built.state_dict()[name], tensor) for name, tensor in model.model.state_dict().items()
    )
