"""Who looks at whom, against loops; the same answer in the form of every backend."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Rows, batch_of, random_model, tiny_config
from tiny_molmo2 import random_molmo2
from transformers import modeling_utils
from transformers.cache_utils import DynamicCache, StaticCache

from molmopoint import attention
from molmopoint.attention import AttentionRule, additive, flash_in_steps, prompt_mask, step_mask
from molmopoint.backbone import MolmoPointTextModel
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.molmo2 import honour_masks

TOKEN = st.tuples(st.sampled_from([-1, 0, 0, 1]), st.sampled_from([-1, -1, 0, 1]), st.booleans())


def sees(query, key, q, k):
    """The rule of decision 6, for two tokens (example, branch, vision) at their places."""
    if q == k:
        return True
    if query[0] == -1 or query[0] != key[0]:
        return False
    if key[1] not in (-1, query[1]):
        return False
    return k <= q or (query[2] and key[2])


def rule_of(rows):
    examples, branches, vision = (
        torch.tensor([[token[i] for token in row] for row in rows]) for i in range(3)
    )
    return AttentionRule(examples, branches, vision.bool())


@settings(max_examples=60)
@given(
    st.integers(1, 9).flatmap(
        lambda n: st.lists(st.lists(TOKEN, min_size=n, max_size=n), min_size=1, max_size=3)
    )
)
def test_the_predicate_is_the_rule(rows):
    mask: Any = prompt_mask(rule_of(rows), len(rows[0]), "sdpa", torch.float32)
    for b, row in enumerate(rows):
        expected = [[sees(row[q], row[k], q, k) for k in range(len(row))] for q in range(len(row))]
        assert mask[b, 0].tolist() == expected


def test_backends_get_the_same_mask():
    generator = torch.Generator().manual_seed(3)
    examples, branches = torch.randint(-1, 2, (2, 2, 12), generator=generator)
    rule = AttentionRule(examples, branches, vision=torch.arange(12).expand(2, -1) % 3 > 0)
    dense: Any = prompt_mask(rule, 12, "sdpa", torch.float32)
    eager: Any = prompt_mask(rule, 12, "eager", torch.float16)
    assert torch.equal(eager == 0, dense)
    assert eager.dtype == torch.float16
    assert torch.isfinite(eager).all()
    flex: Any = prompt_mask(rule, 12, "flex_attention", torch.float32)
    b, q, k = torch.meshgrid(torch.arange(2), torch.arange(12), torch.arange(12), indexing="ij")
    assert torch.equal(flex.mask_mod(b, torch.zeros_like(b), q, k), dense[:, 0])


def filled(cache, config, count, rows=2):
    heads, width = config.num_key_value_heads, config.head_dim
    for layer in range(config.num_hidden_layers):
        cache.update(torch.zeros(rows, heads, count, width), torch.zeros(rows, heads, count, width), layer)
    return cache


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_step_sees_every_real_token_so_far(kind, padded):
    config = tiny_config().text_config
    cache = DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=12)
    filled(cache, config, 5)
    real = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()
    mask: Any = step_mask(real if padded else None, cache, "sdpa", torch.float32)
    if kind == "dynamic" and not padded:
        assert mask is None
        return
    length = 6 if kind == "dynamic" else 12
    seen = [[k <= 5 and (bool(real[row, k]) or not padded) for k in range(length)] for row in range(2)]
    assert mask.expand(2, -1, -1, -1)[:, 0, 0].tolist() == seen
    flash: Any = step_mask(real if padded else None, cache, "flash_attention_2", torch.float32)
    assert flash.expand(2, -1).tolist() == seen
    eager: Any = step_mask(real if padded else None, cache, "eager", torch.bfloat16)
    assert torch.equal(eager == 0, mask)
    flex: Any = step_mask(real if padded else None, cache, "flex_attention", torch.float32)
    assert [
        bool(flex.mask_mod(torch.tensor(0), torch.tensor(0), torch.tensor(0), torch.tensor(k)))
        for k in range(length)
    ] == seen[0]


@pytest.mark.parametrize("backend", ["sdpa", "eager", pytest.param("flex_attention", marks=pytest.mark.slow)])
@torch.no_grad()
def test_rows_and_stretches_of_padding_stay_finite(backend):
    model = random_model(0)
    model.set_attn_implementation(backend)
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1] = 0
    out = model(input_ids=ids, attention_mask=mask).logits
    assert torch.isfinite(out).all()
    assert torch.allclose(out[:1], model(input_ids=ids[:1]).logits, atol=1e-4)


def test_the_attention_of_all_parts_can_be_chosen():
    model = random_model(4)
    model.set_attn_implementation("eager")
    parts = (model.model.vision_tower, model.model.language_model)
    assert [part.config._attn_implementation for part in parts] == ["eager", "eager"]


def flash_of_sdpa(query, key, value, attention_mask, query_length, attn_implementation, softmax_scale, **_):
    """Stands for the kernels, which are not installed here; (B, Q, heads, width)."""
    assert attn_implementation == "flash_attention_2" and query.shape[1] == query_length == 1
    seen = None if attention_mask is None else attention_mask[:, None, None, :].bool()
    parts = (part.transpose(1, 2) for part in (query, key, value))
    attended = torch.nn.functional.scaled_dot_product_attention(
        *parts, attn_mask=seen, scale=softmax_scale, enable_gqa=True
    )
    return attended.transpose(1, 2)


@pytest.fixture
def flash(monkeypatch):
    """A model that is loaded with flash attention, and one of the same weights without."""
    calls = []

    def counted(*arguments, **named):
        calls.append(threading.get_ident())
        return flash_of_sdpa(*arguments, **named)

    monkeypatch.setattr(attention, "_flash_attention_forward", counted)
    for kind in (MolmoPointTextModel, MolmoPointForConditionalGeneration):
        monkeypatch.setattr(kind, "_flash_attn_can_dispatch", lambda *_, **__: True)
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: None)
    monkeypatch.setattr(modeling_utils, "is_kernels_available", lambda: False)
    plain = random_model(4)
    model = random_model(4)
    model.set_attn_implementation({"text_config": "flash_attention_2"})
    return model, plain, calls


def test_flash_attention_is_put_into_the_config_for_steps_alone(flash):
    model, _, _ = flash
    name = model.model.language_model.config._attn_implementation
    assert name == flash_in_steps("flash_attention_2") == flash_in_steps(name) != "flash_attention_2"
    assert MolmoPointTextModel(model.config.text_config).config._attn_implementation == name
    config = copy.deepcopy(model.config.text_config)
    config._attn_implementation = "flash_attention_2"
    assert MolmoPointTextModel(config).config._attn_implementation == name
    for other in ("sdpa", "eager", "flex_attention"):
        assert flash_in_steps(other) == other


@torch.no_grad()
def test_prompts_never_reach_flash_attention_and_steps_do(flash):
    """It would drop the block mask without a word."""
    model, plain, calls = flash
    inputs = batch_of(Rows(model.config, 4).prompts([["image"], ["clip"]], words=[3, 8]), model.config)
    assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
    assert not calls
    limits = {"max_new_tokens": 6, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(model.generate(**inputs, **limits), plain.generate(**inputs, **limits))
    assert len(calls) == 5 * len(model.model.language_model.layers)


@torch.no_grad()
def test_prompts_and_steps_in_threads_do_not_change_each_others_attention(flash):
    """One answer is generated while another thread stands in the middle of its prompt."""
    model, plain, _ = flash
    inputs = batch_of(Rows(model.config, 4).prompts([["image"], ["clip"]], words=[3, 8]), model.config)
    name = model.model.language_model.config._attn_implementation
    limits = {"max_new_tokens": 6, "pad_token_id": 0, "eos_token_id": None}
    expected, answer = plain(**inputs).logits, plain.generate(**inputs, **limits)
    inside, go_on, found = threading.Event(), threading.Event(), []

    @torch.no_grad()
    def read_a_prompt():
        found.append(model(**inputs).logits)

    reader = threading.Thread(target=read_a_prompt)
    steps = []

    def wait_in_the_last_layer(*_):
        if threading.current_thread() is reader:
            inside.set()
            assert go_on.wait(20)

    def let_it_end_at_the_third_step(*_):
        if threading.current_thread() is not reader:
            steps.append(1)
            if len(steps) == 3:
                go_on.set()
                reader.join(20)

    model.model.language_model.layers[-1].register_forward_pre_hook(wait_in_the_last_layer)
    model.register_forward_pre_hook(let_it_end_at_the_third_step)
    reader.start()
    assert inside.wait(20)
    assert model.model.language_model.config._attn_implementation == name
    assert torch.equal(model.generate(**inputs, **limits), answer)
    assert torch.equal(found[0], expected)
    assert model.model.language_model.config._attn_implementation == name


def test_a_flash_attention_that_would_drop_masks_is_refused():
    with pytest.raises(ValueError, match=r"choose 'flash_attention_2:steps'"):
        prompt_mask(rule_of([[(0, -1, False)]]), 1, "flash_attention_2", torch.float32)


@torch.no_grad()
def test_a_native_model_may_make_its_own_masks_for_it(monkeypatch):
    monkeypatch.setattr(attention, "_flash_attention_forward", flash_of_sdpa)
    model: Any = random_molmo2()
    ids = torch.tensor([[0, 0, 5, 6, 7], [3, 9, 8, 4, 2]])
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "max_new_tokens": 5,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    expected = model.generate(**inputs)
    model.model.language_model.config._attn_implementation = flash_in_steps("flash_attention_2")
    honour_masks(model)
    assert torch.equal(model.generate(**inputs), expected)


def test_additive_masks_fit_their_dtype():
    allowed = torch.tensor([True, False])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert additive(allowed, dtype).tolist() == [0.0, torch.finfo(dtype).min]
