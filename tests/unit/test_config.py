"""MolmoPointConfig: released files in, released files out, and nothing impossible in between."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_config

from molmopoint import MolmoPointConfig, tokens
from molmopoint.config import ID_FIELDS, MolmoPointAdapterConfig


def released_dict(**overrides: Any) -> dict[str, Any]:
    """What a released `config.json` says, at toy width: legacy names, no fields of ours, a forgotten id, two
    layers too many.
    """
    return {
        "model_type": "molmo_point",
        "architectures": ["MolmoPointForConditionalGeneration"],
        "dtype": "float32",
        "image_start_token_id": 320,
        "image_end_token_id": 321,
        "image_patch_id": 322,
        "image_high_res_id": 322,
        "image_col_id": 323,
        "low_res_image_start_token_id": None,
        "image_non_indexable_patch_id": 326,
        "frame_start_token_id": 327,
        "frame_end_token_id": 328,
        "patch_token_id": 331,
        "subpatch_token_id": 332,
        "location_token_id": 333,
        "patch_embed_dim": 16,
        "patch_location": "3x3",
        "token_prediction_rotary": "one_d",
        "token_prediction_rotary_theta": 50000.0,
        "tie_word_embeddings": False,
        "adapter_config": {
            "model_type": "molmo_point", "vit_layers": [-3, -9], "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 4,
            "head_dim": 4, "intermediate_size": 40, "text_hidden_size": 32, "pooling_attention_mask": True,
            "positional_embeddings": None, "attention_pooling_out_layer": False, "float32_attention": True,
            "attn_implementation": "sdpa", "residual_dropout": 0.0, "image_feature_dropout": 0,
        },
        "text_config": {
            "model_type": "molmo2_text", "vocab_size": 320, "additional_vocab_size": 128, "hidden_size": 32, "intermediate_size": 40,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "qkv_bias": False,
            "use_qk_norm": True, "qk_norm_type": "qwen3", "layer_norm_eps": 1e-5, "rope_theta": 5e6, "rope_scaling": None,
            "rope_scaling_layers": None, "max_position_embeddings": 4096, "embedding_dropout": 0.0, "residual_dropout": 0.0,
        },
        "vit_config": {
            "model_type": "molmo2", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 27, "num_attention_heads": 4,
            "num_key_value_heads": 4, "head_dim": 4, "image_default_input_size": [56, 56], "image_patch_size": 14, "image_num_pos": 16,
            "float32_attention": True, "residual_dropout": 0.0,
        },
    } | overrides  # fmt: skip


def test_released_file_is_read():
    config = MolmoPointConfig.from_dict(released_dict())
    assert config.vision_config.num_hidden_layers == 25
    assert config.adapter_config.vision_feature_layer == [24, 18]
    assert config.vision_config.image_size == [56, 56]
    assert config.text_config.rms_norm_eps == 1e-5
    assert config.text_config.rope_parameters == {"rope_theta": 5e6, "rope_type": "default"}
    assert config.low_res_image_start_token_id == 324
    assert (config.location_input, config.share_low_res_embedding, config.patch_logit_scale) == (
        "normed",
        True,
        "keys",
    )
    assert (config.location_grid, config.num_locations, config.extended_start, config.vit_feature_dim) == (
        3,
        9,
        448,
        32,
    )
    assert config.vision_token_ids == (322, 323, 320, 324, 327, 321, 328, 326)
    assert isinstance(config.adapter_config, MolmoPointAdapterConfig)
    assert config.adapter_config.pooling_attention_mask


def test_new_models_scale_by_width():
    assert MolmoPointConfig().patch_logit_scale == "dim"
    assert tiny_config().patch_logit_scale == "dim"
    assert MolmoPointConfig.from_dict(released_dict(patch_logit_scale="dim")).patch_logit_scale == "dim"


def test_defaults_are_those_of_the_8b_model():
    config = MolmoPointConfig()
    assert config.extended_start == 152064
    assert config.vit_feature_dim == 2304
    assert (config.adapter_config.text_hidden_size, config.adapter_config.intermediate_size) == (4096, 12288)
    assert {field: getattr(config, field) for field in ID_FIELDS} == {
        field: 151936 + tokens.RELEASED_TOKENS.index(token) for field, token in ID_FIELDS.items()
    }


@pytest.mark.parametrize(
    "make", [MolmoPointConfig, tiny_config, lambda: MolmoPointConfig.from_dict(released_dict())]
)
def test_saved_and_read_again_is_equal(tmp_path, make):
    config = make()
    config.save_pretrained(tmp_path)
    assert MolmoPointConfig.from_pretrained(tmp_path) == config
    assert MolmoPointConfig(**config.to_dict()) == config
    assert copy.deepcopy(config) == config
    again = MolmoPointConfig.from_pretrained(tmp_path)
    again.location_input = "hidden"
    assert again != config


def test_saved_file_has_the_released_form(tmp_path):
    released = released_dict()
    MolmoPointConfig.from_dict(copy.deepcopy(released)).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for name in ("adapter_config", "text_config", "vit_config"):
        for key in released[name].keys() - {"attn_implementation", "vit_layers", "num_hidden_layers"}:
            assert saved[name][key] == released[name][key], key
    assert saved["vit_config"]["num_hidden_layers"] == 25
    assert saved["adapter_config"]["vit_layers"] == [24, 18]
    assert saved["image_high_res_id"] == 322
    assert "vision_config" not in saved
    assert saved["patch_logit_scale"] == "keys"


def test_auto_config(tmp_path):
    from transformers import AutoConfig

    import molmopoint

    molmopoint.register()
    molmopoint.register()
    config = tiny_config()
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path) == config


def test_text_config_decides_tying():
    fields = released_dict()
    fields["text_config"]["tie_word_embeddings"] = True
    config = MolmoPointConfig.from_dict(fields)
    assert config.tie_word_embeddings
    assert config.to_dict()["tie_word_embeddings"] is False
    with pytest.raises(ValueError, match=r"True .* False"):
        MolmoPointConfig.from_dict(released_dict(tie_word_embeddings=True))


def test_what_the_user_passes_is_not_changed():
    fields = released_dict()
    before = copy.deepcopy(fields)
    MolmoPointConfig(**fields)
    assert fields == before
    parts = {
        name: getattr(tiny_config(), name) for name in ("text_config", "vision_config", "adapter_config")
    }
    config = MolmoPointConfig(**parts, patch_embed_dim=16)
    assert config == tiny_config()
    assert all(getattr(config, name) is not part for name, part in parts.items())


def test_scaled_rope_survives(tmp_path):
    fields = released_dict()
    fields["text_config"] |= {
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_scaling_layers": [1, 3],
    }
    config = MolmoPointConfig.from_dict(fields)
    assert config.text_config.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e6}
    config.save_pretrained(tmp_path)
    again = MolmoPointConfig.from_pretrained(tmp_path)
    assert again == config
    assert again.text_config.rope_scaling_layers == [1, 3]


def test_unset_rotary_base_is_that_of_the_decoder():
    assert (
        MolmoPointConfig.from_dict(
            released_dict(token_prediction_rotary_theta=None)
        ).token_prediction_rotary_theta
        == 5e6
    )


def test_location_grids():
    assert MolmoPointConfig(patch_location=None).num_locations == 0
    assert MolmoPointConfig(patch_location="12x12").num_locations == 144


IMPOSSIBLE = [
    ({"patch_embedding_kind": "linear"}, "'image_feature0', got 'linear'"),
    ({"embed_location": True}, "False, got True"),
    ({"embed_selected_vit_patch": "linear_with_pos"}, "'linear', got 'linear_with_pos'"),
    ({"embed_selected_vit_patch": None}, "'linear', got None"),
    ({"token_prediction_rotary": True}, "got True"),  # default of the released config class
    ({"token_prediction_rotary": "twh"}, "got 'twh'"),
    ({"patch_location": "3x4"}, "got '3x4'"),
    ({"patch_location": "0x0"}, "got '0x0'"),
    ({"no_more_points_class": False}, "got False"),
    ({"layer_norm_x": False}, "got False"),
    ({"norm_logits": False}, "got False"),
    ({"mask_patches": "never"}, "got 'never'"),
    ({"mask_patches": None}, "got None"),
    ({"mask_subpatches": "always"}, "got 'always'"),
    ({"mask_repeats": "always"}, "got 'always'"),
    ({"location_input": "raw"}, "got 'raw'"),
    ({"share_low_res_embedding": "yes"}, "got 'yes'"),
    ({"patch_logit_scale": "sqrt"}, "got 'sqrt'"),
    ({"patch_logit_scale": -1.0}, "got -1.0"),
    ({"patch_logit_scale": True}, "got True"),
    ({"patch_embed_dim": 15}, "got 15"),
    ({"patch_token_id": 448}, r"0\.\.447 .* got 448"),
    ({"patch_token_id": 332}, "different id"),
    ({"image_high_res_id": 5}, "image_patch_id 322, got 5"),
    ({"vision_config": {}}, "got both"),
]


@pytest.mark.parametrize(("fields", "message"), IMPOSSIBLE)
def test_impossible_fields(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        MolmoPointConfig.from_dict(released_dict(**fields))


@pytest.mark.parametrize(
    ("box", "fields", "message"),
    [
        ("adapter_config", {"vit_layers": [-28]}, r"27 layers .* \[-28\]"),
        ("adapter_config", {"vit_layers": []}, "27 layers"),
        ("adapter_config", {"text_hidden_size": 31}, "31 and 32"),
        ("adapter_config", {"num_key_value_heads": 2}, "2 and 4"),
        ("adapter_config", {"head_dim": 5}, "16 and 20"),
        ("vit_config", {"image_num_pos": 15}, "15 and 16"),
        ("text_config", {"num_key_value_heads": 3}, "4 and 3"),
        ("text_config", {"hidden_size": "wide"}, "hidden_size"),
        ("text_config", {"use_qk_norm": False}, "True, got False"),
        ("text_config", {"qk_norm_type": "mean"}, "qk_norm_type"),
    ],
)
def test_boxes_that_do_not_fit(box: str, fields: dict[str, Any], message: str):
    released = released_dict()
    released[box] |= fields
    with pytest.raises(ValueError, match=message):
        MolmoPointConfig.from_dict(released)


def test_saving_checks_what_was_changed(tmp_path):
    config = tiny_config()
    config.location_input = "raw"
    with pytest.raises(ValueError, match="got 'raw'"):
        config.save_pretrained(tmp_path)


@settings(max_examples=40)
@given(st.data())
def test_any_tapped_layers_survive(data: st.DataObject):
    depth = data.draw(st.integers(1, 30))
    layers = data.draw(st.lists(st.integers(-depth, depth - 1), min_size=1, max_size=4))
    released = released_dict()
    released["vit_config"]["num_hidden_layers"] = depth
    released["adapter_config"]["vit_layers"] = layers
    config = MolmoPointConfig.from_dict(released)
    assert config.adapter_config.vision_feature_layer == [layer % depth for layer in layers]
    assert config.vision_config.num_hidden_layers == max(config.adapter_config.vision_feature_layer) + 1
    assert MolmoPointConfig(**config.to_dict()) == config


@pytest.mark.parametrize("text", ["{}", '{"model_type": "llama"}', "[]"])
def test_files_of_other_models_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="expected a config file"):
        MolmoPointConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("turns", [0, -1, True, 1.5, "2"])
def test_turns_are_counted_from_one(turns):
    assert MolmoPointConfig(max_turns=2).max_turns == 2
    with pytest.raises(ValueError, match="max_turns"):
        MolmoPointConfig(max_turns=turns)


def test_grounding_settings_are_those_of_the_moment_and_cannot_be_changed():
    config = tiny_config()
    before = config.grounding
    for name in (
        "image_patch_id",
        "frame_start_token_id",
        "patch_token_id",
        "extended_start",
        "num_locations",
        "patch_embed_dim",
    ):
        assert getattr(before, name) == getattr(config, name)
    assert before.masks_patches and before.norms_location
    config.mask_patches, config.location_input, config.patch_logit_scale = "inference", "hidden", 0.5
    after = config.grounding
    assert not after.masks_patches and not after.norms_location and after.patch_logit_scale == 0.5
    assert before.masks_patches and before.norms_location
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.patch_token_id = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_sides_of_a_crop_are_height_and_width():
    config = tiny_config()
    assert list(config.crop_size) == config.vision_config.image_size
