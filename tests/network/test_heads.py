"""Each head against its obvious definition, from five vectors."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.heads import (
    GroundingHeads,
    GroundingState,
    LocationHead,
    PatchHead,
    RMSNorm,
    SubpatchHead,
    patch_scale,
    rotate,
)

H, F, E, L, THETA = 6, 10, 8, 9, 100.0


def linear(layer, vector):
    return [
        dot(row, vector) + bias for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def turned(vector, position, theta=THETA):
    """Pairs (i, i + E/2) as complex numbers, turned by their angle."""
    half = len(vector) // 2
    pairs = [
        complex(vector[i], vector[i + half]) * cmath.exp(1j * position * theta ** (-2 * i / len(vector)))
        for i in range(half)
    ]
    return [p.real for p in pairs] + [p.imag for p in pairs]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("theta", [THETA, None])
@torch.no_grad()
def test_patch_head(theta):
    head = PatchHead(H, E, theta)
    torch.nn.init.normal_(head.no_more_points)
    states, tokens = torch.randn(1, 2, H), torch.randn(1, 3, H)
    positions, places = torch.tensor([[4, 0]]), torch.tensor([[0, 1, 7]])
    scores = head(states, positions, head.keys(tokens, places))
    for q in range(2):
        query = linear(head.query, states[0, q].tolist())
        query = turned(query, positions[0, q].item()) if theta else query
        keys = [linear(head.key, tokens[0, p].tolist()) for p in range(3)]
        keys = [turned(k, places[0, p].item()) for p, k in enumerate(keys)] if theta else keys
        expected = [dot(query, key) for key in [*keys, head.no_more_points.tolist()]]
        assert scores[0, q].tolist() == pytest.approx(expected, abs=1e-5), (
            "no-more-points comes last and is never turned"
        )


@torch.no_grad()
def test_subpatch_head():
    head = SubpatchHead(H, F, E)
    states, slots = torch.randn(2, H), torch.randn(2, 4, F)
    scores = head(states, slots)
    for n in range(2):
        query = linear(head.query, states[n].tolist())
        expected = [dot(query, linear(head.key, slots[n, k].tolist())) / math.sqrt(E) for k in range(4)]
        assert scores[n].tolist() == pytest.approx(expected, abs=1e-5)
    assert head(states[:0], slots[:0]).shape == (0, 4)


@torch.no_grad()
def test_location_head_and_norm():
    head, norm = LocationHead(H, L), RMSNorm(H, eps=1e-3)
    norm.weight.normal_()
    state = torch.randn(H)
    assert head(state).tolist() == pytest.approx(linear(head.projection, state.tolist()), abs=1e-6)
    size = math.sqrt(dot(state.tolist(), state.tolist()) / H + 1e-3)
    expected = [x / size * gain for x, gain in zip(state.tolist(), norm.weight.tolist(), strict=True)]
    assert norm(state).tolist() == pytest.approx(expected, abs=1e-6)


@given(m=st.integers(0, 900), n=st.integers(0, 900), shift=st.integers(0, 900))
def test_rotation_is_relative(m, n, shift):
    a, b = torch.randn(2, 16, generator=torch.Generator().manual_seed(1)).double()
    products = [
        rotate(a, torch.tensor(m + s), 50.0).float() @ rotate(b, torch.tensor(n + s), 50.0).float()
        for s in (0, shift)
    ]
    assert products[0].item() == pytest.approx(products[1].item(), abs=2e-3)


def test_rotation_at_zero_and_without_theta():
    x = torch.randn(3, E)
    assert torch.equal(rotate(x, torch.tensor([5, 6, 7]), None), x)
    assert torch.allclose(rotate(x, torch.zeros(3, dtype=torch.long), THETA), x)
    assert torch.allclose(rotate(x, torch.tensor([5, 6, 7]), THETA).norm(dim=-1), x.norm(dim=-1))
    assert rotate(x.bfloat16(), torch.tensor([5, 6, 7]), THETA).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_scores_are_not_rounded(dtype):
    """Neighbouring patches would tie: the dot product itself is float32."""
    head = PatchHead(H, E, None).to(dtype)
    states, keys = torch.randn(1, 1, H).to(dtype), torch.randn(1, 40, E).to(dtype)
    scores = head(states, torch.zeros(1, 1, dtype=torch.long), keys)
    assert scores.dtype == torch.float32
    assert torch.allclose(
        scores[0, 0, :-1], keys[0].float() @ head.query(states)[0, 0].float(), rtol=1e-5, atol=1e-5
    )
    assert (
        SubpatchHead(H, F, E).to(dtype)(torch.randn(2, H).to(dtype), torch.randn(2, 3, F).to(dtype)).dtype
        == torch.float32
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert PatchHead(H, E, THETA)(states.float(), torch.zeros(1, 1), keys).dtype == torch.float32


def test_patch_scale():
    counts = torch.tensor([0, 3, 8])
    assert patch_scale("keys", counts, E).tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert patch_scale("dim", counts, 16) == 0.25
    assert patch_scale(0.7, counts, 16) == 0.7


def state_of(patches, slots, table_rows, selected):
    """A state of rows with some image tokens each; every token has its own three slots, the last one empty."""
    tokens = sum(patches)
    pooling = torch.arange(tokens * slots).view(tokens, slots)
    pooling[:, -1] = -1
    longest = max(patches)
    state = GroundingState(
        patch_keys=torch.randn(len(patches), longest, E),
        patch_key_mask=torch.arange(longest) < torch.tensor(patches)[:, None],
        rotary_positions=torch.arange(longest).expand(len(patches), -1) * 2,
        example_of_patch=torch.zeros(len(patches), longest, dtype=torch.long),
        table_rows=torch.tensor(table_rows),
        image_features=torch.randn(tokens, H),
        pooling=pooling,
        vit_features=torch.randn(tokens * slots, F),
        num_patches=torch.tensor(patches),
        num_slots=torch.tensor([slots if p else 0 for p in patches]),
        selected_patch=torch.full((len(patches),), -1),
        selected_slots=torch.full((len(patches), slots), -1),
    )
    return state.after(torch.tensor(selected))


@torch.no_grad()
def test_a_step_of_a_batch_is_the_steps_of_its_rows():
    heads: Any = GroundingHeads(H, F, E, L, THETA, 1e-6)
    state = state_of([2, 0, 3], 3, [[0, 1, 0], [0, 0, 0], [2, 3, 4]], [1, -1, 2])
    hidden = torch.randn(3, H)
    together = heads.step(hidden, state, normed_location=True)
    assert torch.allclose(together.location, heads.location(heads.norm(hidden)))
    for row, count, table, selected in ((0, 2, [0, 1], 1), (2, 3, [2, 3, 4], 2)):
        alone = replace(
            state,
            patch_keys=state.patch_keys[row : row + 1, :count],
            rotary_positions=state.rotary_positions[row : row + 1, :count],
            table_rows=torch.tensor([table]),
        ).after(torch.tensor([selected]))
        single = heads.step(hidden[row : row + 1], alone, normed_location=True)
        assert torch.allclose(together.patch[row, :count], single.patch[0, :-1], atol=1e-5)
        assert torch.allclose(together.patch[row, -1], single.patch[0, -1], atol=1e-5)
        assert torch.allclose(together.subpatch[row], single.subpatch[0], atol=1e-5)
        position = torch.tensor([[2 * selected]])
        assert torch.allclose(
            single.patch,
            heads.patch(heads.norm(hidden[None, row : row + 1]), position, alone.patch_keys)[0],
            atol=1e-5,
        )
    assert torch.allclose(heads.step(hidden, state, normed_location=False).location, heads.location(hidden))


@torch.no_grad()
def test_a_batch_without_pictures_scores_only_no_more_points():
    heads = GroundingHeads(H, F, E, 0, THETA, 1e-6)
    state = state_of([0, 0], 2, [[], []], [-1, -1])
    scores = heads.step(torch.randn(2, H), state, normed_location=True)
    assert scores.patch is not None and scores.patch.shape == (2, 1)
    assert scores.subpatch is not None and scores.subpatch.shape == (2, 2)
    assert scores.location is None


def test_what_a_state_gives_for_places_that_are_none():
    state = state_of([2, 3], 3, [[0, 1, 0], [2, 3, 4]], [0, 0])
    rows, patches = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 2, -1, -2])
    assert state.slots_of(rows, patches).tolist() == [[3, 4, -1], [12, 13, -1], [-1] * 3, [-1] * 3]
    features = state.vit_features_of(torch.tensor([[4, -1]]))
    assert torch.equal(features[0, 0], state.vit_features[4])
    assert not features[0, 1].any()
    assert torch.equal(state.image_features_of(rows, patches)[:2], state.image_features[[1, 4]])
    assert not state.image_features_of(rows, patches)[2:].any()
    assert state.positions_of(rows, patches).tolist() == [2, 4, 0, 0]
