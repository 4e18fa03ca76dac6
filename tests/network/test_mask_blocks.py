"""The blocks of a long prompt say what the mask of all queries says, and need no memory of its size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Rows, batch_of, random_model
from torch.utils._python_dispatch import TorchDispatchMode

from molmopoint import mask_blocks
from molmopoint.attention import AttentionRule, prompt_mask
from molmopoint.mask_blocks import BlockSizes, MaskBlocks, text_mask

RUN = st.tuples(st.sampled_from([-1, 0, 0, 1]), st.sampled_from([-1, 0, 1]), st.booleans(), st.integers(1, 7))


def rule_of_runs(rows: list[list[tuple[int, int, bool, int]]], length: int) -> AttentionRule:
    """A rule of rows (example, branch, vision, tokens), cut or padded to one length."""
    laid_out = []
    for runs in rows:
        tokens = [(example, branch, vision) for example, branch, vision, count in runs for _ in range(count)]
        laid_out.append((tokens + [(-1, -1, False)] * length)[:length])
    table = torch.tensor(laid_out)  # (B, S, 3)
    return AttentionRule(table[..., 0], table[..., 1], table[..., 2].bool())


def dense(blocks: MaskBlocks, queries: int, keys: int) -> torch.Tensor:
    """(B, Q, S) what the blocks say, and that each query is in one of them."""
    rows = len(blocks.blocks[0].rows)
    seen = torch.zeros(rows, queries, keys, dtype=torch.bool)
    expected_start = 0
    for block in blocks.blocks:
        assert block.queries.start == expected_start
        expected_start = block.queries.stop
        seen[:, block.queries, block.keys] = block.mask(torch.float32)[:, 0] == 0
    assert expected_start == queries
    return seen


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(RUN, min_size=1, max_size=6), min_size=1, max_size=3),
    st.integers(1, 30),
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(1, 9),
)
def test_blocks_say_what_the_whole_mask_says(rows, queries, more, shortest, longest):
    rule = rule_of_runs(rows, queries + more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_blocks, "ON_PROCESSOR", BlockSizes(shortest, longest))
        blocks = MaskBlocks.of(rule, queries)
    whole: Any = prompt_mask(rule, queries, "sdpa", torch.float32)
    assert torch.equal(dense(blocks, queries, queries + more), whole[:, 0])


@pytest.mark.parametrize("sizes", [BlockSizes(1, 3), BlockSizes(8, 5), BlockSizes(100, 7)])
@torch.no_grad()
def test_answers_do_not_depend_on_the_form_of_the_mask(monkeypatch, sizes):
    model: Any = random_model(3)
    mix = [["image"], ["image", "image"], ["clip"], []]
    inputs = batch_of(Rows(model.config, 3).prompts(mix, words=[3, 9, 5, 4]), model.config)
    limits = {"max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": None}
    logits, answers = model(**inputs).logits, model.generate(**inputs, **limits)
    monkeypatch.setattr(mask_blocks, "LONG_PROMPT", 1)
    monkeypatch.setattr(mask_blocks, "ON_PROCESSOR", sizes)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(model(**inputs).logits[real], logits[real], atol=1e-4, rtol=1e-4)
    assert torch.equal(model.generate(**inputs, **limits), answers)
    static = model.generate(**inputs, **limits, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, answers)


class LargestMask(TorchDispatchMode):
    """Elements of the largest mask that SDPA is given, and its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.calls, self.kinds = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func):
            mask = (kwargs or {}).get("attn_mask")
            self.calls += 1
            if mask is not None:
                stored = 1
                for size, stride in zip(mask.shape, mask.stride(), strict=True):
                    stored *= size if stride else 1
                self.elements = max(self.elements, stored)
                self.kinds.add(mask.dtype)
        return func(*args, **(kwargs or {}))


def test_a_picture_is_one_block_and_needs_a_row_of_keys():
    tokens = 4096
    vision = torch.zeros(1, tokens, dtype=torch.bool)
    vision[:, 5 : tokens - 30] = True
    nothing = torch.full((1, tokens), -1)
    blocks = MaskBlocks.of(AttentionRule(nothing + 1, nothing, vision), tokens)
    assert [block.queries for block in blocks.blocks] == [
        slice(0, 5),
        slice(5, tokens - 30),
        slice(tokens - 30, tokens),
    ]
    query, key = torch.randn(1, 2, tokens, 4), torch.randn(1, 1, tokens, 4)
    with LargestMask() as seen:
        blocks.attend(query, key, key, 0.5)
    assert seen.calls == 3 and seen.elements == 30 * tokens


def test_a_long_text_has_masks_of_one_block_of_queries():
    tokens = 3000
    nothing = torch.full((2, tokens), -1)
    blocks = MaskBlocks.of(AttentionRule(nothing + 1, nothing, nothing > 0), tokens)
    assert [block.keys.stop for block in blocks.blocks] == [512, 1024, 1536, 2048, 2560, 3000]
    query = torch.randn(2, 2, tokens, 4)
    with LargestMask() as seen:
        blocks.attend(query, query, query, 0.5)
    assert seen.elements <= 2 * 512 * tokens


@torch.no_grad()
def test_layers_share_one_mask_of_numbers():
    """SDPA would make one of booleans in every layer."""
    model: Any = random_model(1)
    inputs = batch_of(Rows(model.config, 1).prompts([["image"], ["clip"]]), model.config)
    with LargestMask() as seen:
        model(**inputs)
    assert seen.kinds == {torch.float32}


def test_gradients_and_other_attentions_get_the_whole_mask():
    nothing = torch.full((1, 2000), -1)
    rule = AttentionRule(nothing + 1, nothing, nothing > 0)
    whole: Any = text_mask(rule, 2000, "sdpa", torch.bfloat16)
    assert whole.shape == (1, 1, 2000, 2000) and whole.dtype == torch.bfloat16
    with torch.no_grad():
        assert isinstance(text_mask(rule, 2000, "sdpa", torch.float32), MaskBlocks)
        assert isinstance(text_mask(rule, 2000, "flash_attention_2:steps", torch.float32), MaskBlocks)
        assert isinstance(text_mask(rule, 2000, "eager", torch.float32), torch.Tensor)
