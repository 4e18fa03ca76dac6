"""Saving and loading: what comes back is what was saved, or an error that names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file, save_file
from tiny import Rows, batch_of, random_model, tiny_config
from transformers.integrations.peft import MIN_PEFT_VERSION

from molmopoint.errors import CheckpointError
from molmopoint.modeling import MolmoPointForConditionalGeneration

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDED = {"max_shard_size": "40KB"}


def load(folder, **kwargs):
    return MolmoPointForConditionalGeneration.from_pretrained(folder, **kwargs)


def same(a, b):
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k].to(first[k].dtype)) for k in first
    )


def described(model):
    """The saved config, without the dtypes that loading adds to its parts."""
    fields = model.config.to_diff_dict()
    return {
        k: {n: v for n, v in part.items() if n != "dtype"} if isinstance(part, dict) else part
        for k, part in fields.items()
    }


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def model():
    return random_model(0)


@pytest.fixture
def saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def sharded(model, tmp_path):
    model.save_pretrained(tmp_path, **SHARDED)
    return tmp_path


def change(folder, edit, file=WEIGHTS):
    tensors = load_file(folder / file)
    edit(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})


def test_one_file_and_shards_come_back(model, tmp_path):
    """Each save replaces the weight files of the one before; a card a person has edited stays."""
    for options, expected in ((SHARDED, INDEX), ({}, WEIGHTS), (SHARDED, INDEX)):
        model.save_pretrained(tmp_path, **options)
        files = set(contents(tmp_path))
        assert expected in files
        assert (WEIGHTS in files) != (INDEX in files)
        assert {"config.json", "README.md"} <= files
        assert not [name for name in files if name.startswith(".")], "nothing is left of the folder beside"
        again = load(tmp_path)
        assert same(model, again)
        assert described(again) == described(model)
        card = tmp_path / "README.md"
        card.write_text(card.read_text() + "edited")
    assert (tmp_path / "README.md").read_text().endswith("editededited" + "edited")


def test_files_have_released_names(saved):
    names = set(load_file(saved / WEIGHTS))
    assert {
        "model.transformer.wte.embedding",
        "model.transformer.wte.new_embedding",
        "model.point_predictor.x_norm.weight",
    } <= names
    assert not [name for name in names if "language_model" in name]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_float32_files_load_in_any_dtype(model, saved, dtype):
    loaded = load(saved, dtype=dtype).eval()
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    expected = model.state_dict()
    assert all(torch.equal(expected[name].to(dtype), tensor) for name, tensor in loaded.state_dict().items())
    inputs = batch_of(Rows(model.config, 0).prompts([["image"]]), model.config)
    with torch.no_grad():
        assert torch.isfinite(loaded.model.point_predictor.patch.key(torch.zeros(1, 32, dtype=dtype))).all()
        assert loaded(**inputs).patch_logits.dtype == torch.float32


@pytest.mark.parametrize("stored", [True, False])
def test_tied_tables_with_and_without_a_stored_output_table(tmp_path, stored):
    tied = random_model(1, text_config=tiny_config().text_config.to_dict() | {"tie_word_embeddings": True})
    tied.save_pretrained(tmp_path)
    if not stored:
        change(
            tmp_path,
            lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("lm_head")],
        )
    again = load(tmp_path)
    assert again.config.tie_word_embeddings
    assert again.lm_head.weight is again.model.language_model.embed_tokens.weight
    assert same(tied, again)


def test_untied_tables_stay_apart(model, saved):
    again = load(saved)
    assert not torch.equal(again.lm_head.weight, again.model.language_model.embed_tokens.weight)
    change(saved, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("lm_head")])
    with pytest.raises(CheckpointError, match=r"lm_head\.weight missing"):
        load(saved)


def test_errors_name_the_tensors(saved):
    whole = (saved / WEIGHTS).read_bytes()
    edits = {
        r"point_predictor\.patch\.no_more_points missing": lambda t: t.pop(
            "model.point_predictor.add_no_point_class_embed.vector"
        ),
        r"model\.something\.else unknown": lambda t: t.update({"model.something.else": torch.zeros(3)}),
        r"build_vit_embedding\.bias \(3,\) instead of \(32,\)": lambda t: t.update(
            {"model.build_vit_embedding.bias": torch.zeros(3)}
        ),
    }
    for message, edit in edits.items():
        change(saved, edit)
        with pytest.raises(CheckpointError, match=message):
            load(saved)
        (saved / WEIGHTS).write_bytes(whole)


@pytest.mark.parametrize("cut", [4, 1000, -1])
def test_a_truncated_file_is_named(saved, cut):
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"whole safetensors file, got .*model\.safetensors"):
        load(saved)


def test_a_missing_or_foreign_shard_is_named(sharded):
    index = json.loads((sharded / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    kept = (sharded / shards[1]).read_bytes()
    (sharded / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=shards[1]):
        load(sharded)
    (sharded / shards[1]).write_bytes((sharded / shards[0]).read_bytes())
    with pytest.raises(CheckpointError, match=r"index\.json says, got a file without"):
        load(sharded)
    (sharded / shards[1]).write_bytes(kept)
    index["weight_map"]["lm_head.output_embeddings"] = "../outside.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="only such files are read"):
        load(sharded)


def test_pickled_weights_are_never_read(saved):
    (saved / WEIGHTS).rename(saved / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, which is never unpickled"):
        load(saved)


@pytest.mark.parametrize("options", [{}, SHARDED])
def test_a_failed_save_leaves_the_old_files_alone(model, saved, monkeypatch, options):
    before = contents(saved)
    written = []

    def full_disk(*args, **kwargs):
        written.append(args)
        raise OSError("no space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        random_model(5).save_pretrained(saved, **options)
    assert written, "the save got as far as the weights"
    assert contents(saved) == before


def test_given_weights_are_saved_instead_of_those_in_place(model, tmp_path):
    zeros = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=zeros)
    assert not any(tensor.any() for tensor in load(tmp_path).state_dict().values())


def test_adapters(model, saved, tmp_path):
    peft = pytest.importorskip("peft")
    if Version(peft.__version__) < Version(MIN_PEFT_VERSION):
        pytest.skip(f"this transformers takes adapters of peft {MIN_PEFT_VERSION} or newer only")
    adapted = load(saved)
    adapted.add_adapter(
        peft.LoraConfig(target_modules=["q_proj", "v_proj", "patch.query"], init_lora_weights=False)
    )
    folder = tmp_path / "adapters"
    adapted.save_pretrained(folder)
    assert WEIGHTS not in contents(folder)
    ids = torch.randint(3, 90, (1, 9))
    with torch.no_grad():
        expected = adapted.eval()(input_ids=ids).logits
        assert not torch.allclose(expected, model(input_ids=ids).logits)
        assert torch.allclose(load(folder).eval()(input_ids=ids).logits, expected, atol=1e-5)
        onto = load(saved).eval()
        onto.load_adapter(str(folder))
        assert torch.allclose(onto(input_ids=ids).logits, expected, atol=1e-5)
