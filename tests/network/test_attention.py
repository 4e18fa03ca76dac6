"""Who looks at whom, against loops; the same answer in the form of every backend."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Rows, batch_of, random_model, tiny_config
from transformers.cache_utils import DynamicCache, StaticCache

from molmopoint.attention import AttentionRule, additive, honouring_mask, prompt_mask, step_mask

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
    examples, branches, vision = (torch.tensor([[token[i] for token in row] for row in rows]) for i in range(3))
    return AttentionRule(examples, branches, vision.bool())


@settings(max_examples=60)
@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(TOKEN, min_size=n, max_size=n), min_size=1, max_size=3)))
def test_the_predicate_is_the_rule(rows):
    mask = prompt_mask(rule_of(rows), len(rows[0]), "sdpa", torch.float32)
    for b, row in enumerate(rows):
        expected = [[sees(row[q], row[k], q, k) for k in range(len(row))] for q in range(len(row))]
        assert mask[b, 0].tolist() == expected


def test_backends_get_the_same_mask():
    generator = torch.Generator().manual_seed(3)
    examples, branches = torch.randint(-1, 2, (2, 2, 12), generator=generator)
    rule = AttentionRule(examples, branches, vision=torch.arange(12).expand(2, -1) % 3 > 0)
    dense = prompt_mask(rule, 12, "sdpa", torch.float32)
    eager = prompt_mask(rule, 12, "eager", torch.float16)
    assert torch.equal(eager == 0, dense)
    assert eager.dtype == torch.float16
    assert torch.isfinite(eager).all()
    mask_mod = prompt_mask(rule, 12, "flex_attention", torch.float32).mask_mod
    b, q, k = torch.meshgrid(torch.arange(2), torch.arange(12), torch.arange(12), indexing="ij")
    assert torch.equal(mask_mod(b, torch.zeros_like(b), q, k), dense[:, 0])


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
    mask = step_mask(real if padded else None, cache, "sdpa", torch.float32)
    if kind == "dynamic" and not padded:
        assert mask is None
        return
    length = 6 if kind == "dynamic" else 12
    seen = [[k <= 5 and (bool(real[row, k]) or not padded) for k in range(length)] for row in range(2)]
    assert mask.expand(2, -1, -1, -1)[:, 0, 0].tolist() == seen
    flash = step_mask(real if padded else None, cache, "flash_attention_2", torch.float32)
    assert flash.expand(2, -1).tolist() == seen
    eager = step_mask(real if padded else None, cache, "eager", torch.bfloat16)
    assert torch.equal(eager == 0, mask)
    mod = step_mask(real if padded else None, cache, "flex_attention", torch.float32).mask_mod
    assert [bool(mod(torch.tensor(0), torch.tensor(0), torch.tensor(0), torch.tensor(k))) for k in range(length)] == seen[0]


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


@torch.no_grad()
def test_prompts_never_reach_flash_attention():
    """It would drop the block mask without a word. It is not installed here, so reaching it would raise."""
    model = random_model(4)
    inputs = batch_of(Rows(model.config, 4).prompts([["image"], ["clip"]], words=[3, 8]), model.config)
    expected = model(**inputs).logits
    config = model.model.language_model.config
    config._attn_implementation = "flash_attention_2"
    assert torch.equal(model(**inputs).logits, expected)
    assert config._attn_implementation == "flash_attention_2", "single-token steps still use it"


def test_the_backend_comes_back_after_an_error_and_stays_for_recomputation():
    config = tiny_config().text_config
    config._attn_implementation = "flash_attention_3"
    with pytest.raises(KeyError), honouring_mask(config) as backend:
        assert backend == config._attn_implementation == "sdpa"
        raise KeyError
    assert config._attn_implementation == "flash_attention_3"
    with honouring_mask(config, recomputed=True):
        pass
    assert config._attn_implementation == "sdpa"
    config._attn_implementation = "eager"
    with honouring_mask(config) as backend:
        assert backend == "eager"


def test_additive_masks_fit_their_dtype():
    allowed = torch.tensor([True, False])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert additive(allowed, dtype).tolist() == [0.0, torch.finfo(dtype).min]
