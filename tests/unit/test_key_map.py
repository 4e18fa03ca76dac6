"""Released and native names: one table, both directions, and what reads and checks files."""

from __future__ import annotations

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import random_model, tiny_config

from molmopoint.checkpoints import from_released, to_released
from molmopoint.errors import CheckpointError
from molmopoint.key_map import REGROUPED, RENAMED, released_converters
from molmopoint.load_checks import check_loading_info, verify_checkpoint_files

# A few names as they stand in the released 8B files, beside the table so that a slip in it is seen.
PUBLISHED = {
    "model.transformer.blocks.35.attn_norm.weight": "model.language_model.layers.35.input_layernorm.weight",
    "model.transformer.blocks.0.self_attn.attn_out.weight": "model.language_model.layers.0.self_attn.o_proj.weight",
    "model.transformer.ln_f.weight": "model.language_model.norm.weight",
    "model.vit.positional_embedding": "model.vision_tower.positional_embedding",
    "model.vit.transformer.resblocks.24.attention.wo.bias": "model.vision_tower.layers.24.self_attn.o_proj.bias",
    "model.vit.transformer.resblocks.7.attention_norm.weight": "model.vision_tower.layers.7.layer_norm1.weight",
    "model.vit.transformer.resblocks.7.ffn_norm.bias": "model.vision_tower.layers.7.layer_norm2.bias",
    "model.connector.image_pooling_2d.wq.bias": "model.connector.image_pooling_2d.q_proj.bias",
    "model.connector.image_projector.w2.weight": "model.connector.image_projector.down_proj.weight",
    "model.build_vit_embedding.bias": "model.build_vit_embedding.bias",
    "model.point_predictor.x_norm.weight": "model.point_predictor.norm.weight",
    "model.point_predictor.subpatch_loc_k.bias": "model.point_predictor.location.projection.bias",
    "model.point_predictor.add_no_point_class_embed.vector": "model.point_predictor.patch.no_more_points",
}


@pytest.mark.parametrize(("released", "native"), PUBLISHED.items())
def test_published_names(released: str, native: str):
    tensor = torch.arange(3.0)
    assert from_released({released: tensor})[native] is tensor
    assert to_released({native: tensor})[released] is tensor


def test_every_parameter_has_a_released_name(tiny_model):
    weights = dict(tiny_model.named_parameters())
    released = to_released(weights, tiny_model.config)
    assert not any(
        re.search("language_model|vision_tower|[qkvo]_proj|lm_head.weight", name) for name in released
    )
    for back in (from_released(released, tiny_model.config), from_released(released)):
        assert back.keys() == weights.keys()
        assert all(torch.equal(back[name], weight) for name, weight in weights.items())


def test_fused_order():
    rows = {"q": 6, "k": 2, "v": 2}
    layer = "model.language_model.layers.3.self_attn."
    parts = {
        f"{layer}{name}_proj.weight": torch.full((rows[name], 6), float(i)) for i, name in enumerate(rows)
    }
    fused = to_released(parts)["model.transformer.blocks.3.self_attn.att_proj.weight"]
    assert fused[:, 0].tolist() == [0.0] * 6 + [1.0] * 2 + [2.0] * 2
    mlp = "model.language_model.layers.0.mlp."
    halves = to_released(
        {f"{mlp}gate_proj.weight": torch.ones(3, 2), f"{mlp}up_proj.weight": torch.zeros(3, 2)}
    )
    assert halves["model.transformer.blocks.0.mlp.ff_proj.weight"][:, 0].tolist() == [0.0] * 3 + [1.0] * 3


@settings(max_examples=40)
@given(base=st.integers(1, 300), additional=st.integers(1, 200), with_head=st.booleans())
def test_tables_are_cut_where_the_config_says(base: int, additional: int, with_head: bool):
    config = tiny_config()
    config.text_config.vocab_size, config.text_config.additional_vocab_size = base, additional
    tables = {"model.language_model.embed_tokens.weight": torch.randn(base + additional, 2)}
    if with_head:
        tables["lm_head.weight"] = torch.randn(base + additional, 2)
    released = to_released(tables, config)
    assert len(released) == 2 * len(tables)
    assert released["model.transformer.wte.embedding"].shape == (base, 2)
    assert released["model.transformer.wte.new_embedding"].shape == (additional, 2)
    assert all(torch.equal(tensor, tables[name]) for name, tensor in from_released(released, config).items())


def test_without_a_config_128_rows_are_additional():
    released = to_released({"lm_head.weight": torch.randn(130, 2)})
    assert released["lm_head.output_embeddings"].shape == (2, 2)
    with pytest.raises(CheckpointError, match=r"got 128"):
        to_released({"lm_head.weight": torch.randn(128, 2)})
    with pytest.raises(CheckpointError, match=r"96 \+ 32 rows, got 130"):
        to_released({"lm_head.weight": torch.randn(130, 2)}, tiny_config())


def test_split_tensors_share_no_memory(tiny_model):
    released = to_released(dict(tiny_model.named_parameters()), tiny_model.config)
    addresses = [tensor.untyped_storage().data_ptr() for tensor in released.values()]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("group", REGROUPED, ids=lambda group: group.released[0])
def test_missing_parts_are_named(group):
    for names, convert in ((group.released, from_released), (group.native, to_released)):
        names = [name.replace("#", "1") for name in names]
        for missing in names if len(names) > 1 else ():
            with pytest.raises(CheckpointError, match=rf"got no {re.escape(missing)}"):
                convert({name: torch.ones(2, 2) for name in names if name != missing})


def test_unknown_names_and_wrong_sizes():
    with pytest.raises(CheckpointError, match=r"got 1 others: model\.transformer\.wpe\.weight"):
        from_released({"model.transformer.wpe.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match="other naming"):
        to_released({"model.transformer.ln_f.weight": torch.ones(1)})
    fused = {"model.transformer.blocks.0.self_attn.att_proj.weight": torch.ones(7, 4)}
    with pytest.raises(CheckpointError, match=r"attn_out\.weight beside"):
        from_released(fused)
    with pytest.raises(CheckpointError, match=r"32 \+ 2 \* 16 rows, got 7"):
        from_released(fused, tiny_config())


def test_a_layer_number_is_kept_whole():
    names = {
        f"model.vit.transformer.resblocks.{n}.attention.wq.weight": torch.tensor(float(n))
        for n in (1, 11, 101)
    }
    assert {int(name.split(".")[3]): tensor.item() for name, tensor in from_released(names).items()} == {
        1: 1.0,
        11: 11.0,
        101: 101.0,
    }


def test_rules_for_reading_agree_with_the_table():
    from transformers.core_model_loading import WeightConverter, rename_source_key

    rules = released_converters()
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    renamings = [rule for rule in rules if not isinstance(rule, WeightConverter)]
    expected = {f"{released}.weight": f"{native}.weight" for released, native in RENAMED.items()} | PUBLISHED
    expected |= {name: group.native[0] for group in REGROUPED for name in group.released}
    for released, native in expected.items():
        renamed, _ = rename_source_key(released.replace("#", "17"), renamings, converters)
        assert renamed == native.replace("#", "17")
        again, matched = rename_source_key(renamed, renamings, converters)
        assert again == renamed and matched is None, "names that are native already pass unchanged"


@pytest.fixture
def shards(tmp_path):
    """Two shards and their index."""
    files = {"model-00001-of-00002.safetensors": ["a", "b"], "model-00002-of-00002.safetensors": ["c"]}
    for file, names in files.items():
        save_file({name: torch.ones(64) for name in names}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_whole_files_pass(shards, tmp_path_factory):
    verify_checkpoint_files(shards)
    single = tmp_path_factory.mktemp("single")
    save_file({"a": torch.ones(2)}, single / "model.safetensors")
    verify_checkpoint_files(str(single))


def test_broken_files_are_named(shards):
    first, second = sorted(shards.glob("*.safetensors"))
    whole = second.read_bytes()
    for damaged in (whole[:-8], whole[:4], b"", b"\xff" * 64):
        second.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"{second.name}, which is truncated or corrupt"):
            verify_checkpoint_files(shards)
    save_file({"other": torch.ones(1)}, second)
    with pytest.raises(CheckpointError, match=rf"expected c in .*{second.name}"):
        verify_checkpoint_files(shards)
    second.unlink()
    with pytest.raises(CheckpointError, match=rf"all but {second.name}"):
        verify_checkpoint_files(shards)
    assert first.is_file()


def test_broken_index(shards):
    index = shards / "model.safetensors.index.json"
    for text in ("{", "{}", '{"weight_map": []}'):
        index.write_text(text)
        with pytest.raises(CheckpointError, match="weight_map"):
            verify_checkpoint_files(shards)
    index.write_text('{"weight_map": {"a": "../elsewhere.safetensors", "b": "pytorch_model.bin"}}')
    with pytest.raises(CheckpointError, match=r"\.\./elsewhere\.safetensors, pytorch_model\.bin"):
        verify_checkpoint_files(shards)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, which is never unpickled"):
        verify_checkpoint_files(tmp_path)
    with pytest.raises(CheckpointError, match="got neither"):
        verify_checkpoint_files(tmp_path / "nowhere")


def test_loading_info():
    check_loading_info(
        {"missing_keys": set(), "unexpected_keys": [], "mismatched_keys": set(), "error_msgs": []}
    )
    info = {"missing_keys": {"b", "a"}, "unexpected_keys": {"c"}, "mismatched_keys": {("d", (1, 2), (1, 3))}}
    with pytest.raises(CheckpointError, match=r"a, b missing; c unknown; d \(1, 2\) instead of \(1, 3\)"):
        check_loading_info(info, "folder")
    with pytest.raises(CheckpointError, match=r"and 3 more missing"):
        check_loading_info({"missing_keys": [str(i) for i in range(8)]})


def test_saved_files_have_released_names(tmp_path):
    model = random_model(seed=3)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    wanted = to_released(dict(model.named_parameters()), model.config)
    assert stored.keys() == wanted.keys()
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    check_loading_info(info)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
