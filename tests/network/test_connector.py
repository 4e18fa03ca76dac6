"""From ViT features to image tokens: empty slots, chunks, optional parts, and the tables."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import PATCHES_PER_CROP, PIXELS_PER_PATCH, pooling_table, random_model, tiny_config
from transformers.models.molmo2.modeling_molmo2 import Molmo2VisionModel

from molmopoint import connector
from molmopoint.connector import Connector, PoolingAttention, VisualFeatures, join_tables, tapped_features


def adapter(**fields):
    return tiny_config().adapter_config.to_dict() | fields


def random_connector(seed=0, **fields):
    torch.manual_seed(seed)
    config = tiny_config(adapter_config=adapter(**fields))
    made = Connector(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made, torch.randn(60, config.vit_feature_dim)


TABLE = torch.tensor([[3, 7, -1, -1], [-1, 5, -1, 9], [1, 2, 3, 4]])


@torch.no_grad()
def test_pooling_is_one_query_attention_over_the_filled_slots():
    made, features = random_connector()
    attention: PoolingAttention = made.image_pooling_2d
    slots = torch.where((TABLE >= 0)[..., None], features[TABLE.clamp(min=0)], 0.0)
    pooled = attention(slots, TABLE >= 0)
    for t in range(len(TABLE)):
        own = features[TABLE[t][TABLE[t] >= 0]]
        query, keys, values = attention.q_proj(own.mean(0)), attention.k_proj(own), attention.v_proj(own)
        for head in range(attention.num_heads):
            part = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
            weights = (keys[:, part] @ query[part] / math.sqrt(attention.head_dim)).softmax(0)
            assert torch.allclose(pooled[t, part], weights @ values[:, part], atol=1e-5)


@torch.no_grad()
def test_empty_slots_do_not_matter():
    made, features = random_connector()
    expected = made(features, TABLE)
    assert torch.allclose(
        made(features, torch.nn.functional.pad(TABLE, (0, 5), value=-1)), expected, atol=1e-6
    )
    packed = torch.tensor([[7, 3, -1, -1], [5, 9, -1, -1], [1, 2, 3, 4]])
    assert torch.allclose(made(features, packed), expected, atol=1e-5), (
        "nor does the order, without positions"
    )
    features[0] += 100.0  # where empty slots would be looked up
    assert torch.equal(made(features, TABLE), expected)
    assert torch.isfinite(made(features, torch.full((1, 4), -1))).all()


@torch.no_grad()
def test_without_the_mask_empty_slots_take_part():
    masked, features = random_connector()
    plain, _ = random_connector(pooling_attention_mask=False)
    plain.load_state_dict(masked.state_dict())
    a, b = masked(features, TABLE), plain(features, TABLE)
    assert torch.allclose(a[2], b[2], atol=1e-6)
    assert not torch.allclose(a[0], b[0], atol=1e-3)


@torch.no_grad()
def test_positional_bias_and_output_projection():
    made, features = random_connector(positional_embeddings=4)
    table = torch.tensor([[3, 7, -1, -1], [7, 3, -1, -1]])
    assert not torch.allclose(*made(features, table), atol=1e-3), "the order counts now"
    shifted = features[[3, 7]] + made.positional_embeddings.bias[:2]
    made.positional_embeddings.bias.zero_()
    assert torch.allclose(
        made(shifted, torch.tensor([[0, 1]])), made(shifted, torch.tensor([[0, 1, -1, -1]])), atol=1e-6
    )

    longer, _ = random_connector(attention_pooling_out_layer=True)
    attention = longer.image_pooling_2d
    assert {"o_proj.weight", "o_proj.bias"} <= set(attention.state_dict())
    attention.o_proj.weight.copy_(torch.eye(len(attention.o_proj.weight)))
    attention.o_proj.bias.zero_()
    without, _ = random_connector()
    without.load_state_dict({k: v for k, v in longer.state_dict().items() if "o_proj" not in k})
    assert torch.allclose(longer(features, TABLE), without(features, TABLE), atol=1e-6)


@torch.no_grad()
def test_a_few_at_a_time_is_all_at_once(monkeypatch):
    model = random_model(0)
    pixels = torch.rand(5, PATCHES_PER_CROP, PIXELS_PER_PATCH)
    pooling = torch.cat([pooling_table(i * PATCHES_PER_CROP) for i in range(5)])
    whole = model.get_visual_features(pixel_values=pixels, image_token_pooling=pooling)
    monkeypatch.setattr(connector, "CROPS_PER_PASS", 2)
    monkeypatch.setattr(connector, "TOKENS_PER_PASS", 7)
    parts = model.get_visual_features(pixel_values=pixels, image_token_pooling=pooling)
    assert torch.allclose(whole.vit_features, parts.vit_features, atol=1e-5)
    assert torch.allclose(whole.image_features, parts.image_features, rtol=1e-4, atol=1e-2)


@torch.no_grad()
def test_tapped_layers_are_those_of_the_native_tower():
    model = random_model(0)
    tower = model.model.vision_tower
    pixels = torch.rand(2, PATCHES_PER_CROP, PIXELS_PER_PATCH)
    states: Any = Molmo2VisionModel.forward(tower, pixels, output_hidden_states=True).hidden_states
    expected = torch.cat([states[layer + 1] for layer in (2, 1)], -1).flatten(0, 1)
    assert torch.allclose(tapped_features(tower, pixels, [2, 1]), expected, atol=1e-5)
    assert model.config.adapter_config.vision_feature_layer == [2, 1]


def test_equal_crops_are_seen_once():
    torch.manual_seed(0)
    model = random_model(0)
    tower = model.model.vision_tower
    crops = torch.rand(3, PATCHES_PER_CROP, PIXELS_PER_PATCH)
    almost = crops[0].flip(0)  # the same sum, but another crop
    pixels = torch.stack([crops[0], crops[1], crops[0], almost, crops[2], crops[1]])
    expected = tower(pixels, [2, 1])
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in tower.parameters() if parameter.grad is not None]
    tower.zero_grad()
    seen: list[int] = []
    tower.register_forward_pre_hook(lambda _tower, arguments: seen.append(len(arguments[0])))
    features = tapped_features(tower, pixels, [2, 1])
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    features.square().sum().backward()
    again = [parameter.grad for parameter in tower.parameters() if parameter.grad is not None]
    assert seen == [4]
    for ours, theirs in zip(again, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_one_table_for_pictures_and_clips():
    images, videos = torch.tensor([[0, 1], [2, -1]]), torch.tensor([[0, 1, -1]])
    joined = join_tables(images, videos, first_frame_patch=50)
    assert joined.tolist() == [[0, 1, -1], [2, -1, -1], [50, 51, -1]]
    assert torch.equal(join_tables(images, None, 50), images)
    assert torch.equal(join_tables(None, videos, 0), videos)
    with pytest.raises(ValueError, match="got neither"):
        join_tables(None, None, 0)


def features_of(num_images, num_frames):
    numbers = torch.arange(num_images + num_frames)[:, None]
    slots = (2 if num_images else 0, 2 if num_frames else 0)
    return VisualFeatures(torch.randn(9, 4), numbers.float(), numbers, num_images, slots)


def test_repeated_rows_keep_their_own_pictures():
    """Rows 0 and 2 have pictures, row 1 a clip; the table has clips after pictures."""
    features = features_of(3, 2)
    repeated = features.repeat_rows(torch.tensor([0, 0, 2, 1, 1]), 2)
    assert repeated.image_features.flatten().tolist() == [0, 1, 0, 1, 2, 2, 3, 4, 3, 4]
    assert repeated.num_image_rows == 6
    assert repeated.vit_features is features.vit_features


def test_features_move_and_change_dtype_without_touching_the_table():
    moved = features_of(1, 0).to("cpu", torch.bfloat16)
    assert moved.vit_features.dtype == moved.image_features.dtype == torch.bfloat16
    assert moved.pooling.dtype == torch.int64
