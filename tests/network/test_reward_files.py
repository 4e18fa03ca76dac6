"""Reward models on disk: small folders, merged ones, the authors' two files, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_molmo2 import molmo2_processor, random_molmo2
from tiny_reward import FAMILIES, FILLERS, random_backbone, random_reward, reward_processor
from torch import nn
from toy_processor import picture, toy_processor
from transformers import Molmo2ForConditionalGeneration

import molmopoint
from molmopoint.errors import CheckpointError
from molmopoint.heads import ValueHead
from molmopoint.reward import SEPARATOR, Judge, RewardModel, RewardSettings, add_separator
from molmopoint.tokens import IMAGE_END

ANSWERS = ["Two cats.", "a dog\nand a bird", "No"]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with its processor; nobody writes into it."""
    folder = tmp_path_factory.mktemp(request.param)
    random_backbone(request.param).save_pretrained(folder)
    reward_processor(request.param).save_pretrained(folder)
    return folder


def made_from(base: Path, **settings: Any) -> tuple[RewardModel, Any]:
    """A reward model with adapters, all of it far from where it started."""
    model, processor = RewardModel.from_base(
        base, RewardSettings(**{"head_width": 16, **settings}), device_map="cpu"
    )
    model.add_adapters(rank=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "value." in name or name == "separator":
                parameter.normal_(std=0.3)
    return model.eval(), processor


def scores(judge: Judge) -> list[float]:
    return judge.score("What?", ANSWERS, picture(70, 120))


def test_a_small_folder_gives_the_same_scores(base: Path, tmp_path: Path):
    model, processor = made_from(base, layout="user", pooling="first_last_concat", scale=False)
    expected = scores(Judge(model, processor))
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "reward.safetensors", "reward_config.json"
    }  # fmt: skip
    document = json.loads((tmp_path / "reward_config.json").read_text())
    assert (document["scale"], document["layout"], document["base"]) == (False, "user", str(base))
    judge = molmopoint.load_reward(tmp_path, device_map="cpu")
    assert judge.model.settings == model.settings
    np.testing.assert_allclose(scores(judge), expected, atol=1e-5)
    kept, _ = RewardModel.from_pretrained(tmp_path, adapters="keep", device_map="cpu")
    np.testing.assert_allclose(scores(Judge(kept, processor)), expected, atol=1e-6)
    assert sum("lora_" in name for name, _ in kept.named_parameters()) > 0
    assert judge.score("What?", ANSWERS) != molmopoint.load_reward(
        tmp_path, device_map="cpu", layout="assistant"
    ).score("What?", ANSWERS)


def test_a_merged_folder_gives_the_same_scores_and_needs_no_base(base: Path, tmp_path: Path):
    model, processor = made_from(base)
    expected = scores(Judge(model, processor))
    model.save_pretrained(tmp_path, processor, merged=True)
    judge = molmopoint.load_reward(tmp_path, device_map="cpu")
    np.testing.assert_allclose(scores(judge), expected, atol=1e-5)
    assert judge.processor.tokenizer.convert_tokens_to_ids(SEPARATOR) == model.separator_id
    table: Any = judge.model.backbone.get_input_embeddings().weight
    torch.testing.assert_close(table[model.separator_id].detach(), model.separator.detach())
    judge.model.save_pretrained(tmp_path / "again", judge.processor, merged=True)
    np.testing.assert_allclose(
        scores(molmopoint.load_reward(tmp_path / "again", device_map="cpu")), expected, atol=1e-5
    )


def test_a_base_beside_the_folder_is_found_by_its_relative_path(base: Path, tmp_path: Path):
    model, processor = made_from(base)
    folder = tmp_path / "reward"
    model.base = os.path.relpath(base, folder)
    model.save_pretrained(folder, processor)
    np.testing.assert_allclose(
        scores(molmopoint.load_reward(folder, device_map="cpu")), scores(Judge(model, processor)), atol=1e-5
    )


def test_adapters_touch_the_text_model_alone(base: Path):
    model, _ = RewardModel.from_base(base, RewardSettings(head_width=8), device_map="cpu")
    model.add_adapters()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(
        name.startswith("value.") or (".language_model." in name and ".lora_" in name) for name in trained
    )
    assert (
        len([name for name in trained if "lora_A" in name]) == 7 * model.config.text_config.num_hidden_layers
    )


def test_the_separator_of_a_molmopoint_takes_a_filler_and_changes_nothing_else():
    processor = reward_processor("molmopoint")
    before = processor.tokenizer.get_vocab()
    separator = add_separator(processor.tokenizer)
    after = processor.tokenizer.get_vocab()
    assert separator == before[FILLERS[0]] == add_separator(processor.tokenizer)
    assert after == {SEPARATOR if name == FILLERS[0] else name: number for name, number in before.items()}
    assert processor.tokenizer.encode(f"a{SEPARATOR}b{IMAGE_END}")[1] == separator


def test_a_molmopoint_without_a_filler_is_refused():
    tokenizer = toy_processor().tokenizer
    with pytest.raises(
        CheckpointError, match="where ids of places begin; use the tokenizer of a released model"
    ):
        RewardModel(random_backbone("molmopoint"), RewardSettings(), add_separator(tokenizer))


def test_the_table_of_a_molmo2_grows_by_the_mean_and_its_output_stays():
    tokenizer = molmo2_processor().tokenizer
    text: Any = random_molmo2().config.text_config
    backbone: Any = random_molmo2(text_config={**text.to_dict(), "additional_vocab_size": 11})
    rows, head = (
        backbone.get_input_embeddings().weight.detach().clone(),
        backbone.lm_head.weight.detach().clone(),
    )
    model = RewardModel(backbone, RewardSettings(), add_separator(tokenizer))
    table: Any = backbone.get_input_embeddings().weight
    assert (
        model.separator_id == len(rows) == len(table) - 1
        and model.config.text_config.additional_vocab_size == 12
    )
    torch.testing.assert_close(table[-1], rows[: model.config.text_config.vocab_size].mean(0))
    assert torch.equal(table[:-1], rows) and torch.equal(backbone.lm_head.weight, head)


# The authors' two files


def authors_folder(folder: Path, kind: str = "mlp", **config: Any) -> nn.Module:
    """A merged Molmo2 as the authors write it: table cut to the tokens there are, and a head in a pickle."""
    backbone = random_molmo2()
    processor = reward_processor("molmo2")
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [SEPARATOR]})
    backbone.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.language_model.embed_tokens.weight"] = tensors["model.language_model.embed_tokens.weight"][
        : len(processor.tokenizer)
    ]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    processor.save_pretrained(folder)
    head = (
        nn.Linear(32, 1) if kind == "linear" else nn.Sequential(nn.Linear(32, 8), nn.SELU(), nn.Linear(8, 1))
    )
    torch.save(head.state_dict(), folder / "value_head.pt")
    fields = {"value_head_type": kind, "value_head_hidden_dim": 8 if kind == "mlp" else None, "value_head_activation": "selu",
              "value_head_input_dim": 32, "resp_repr_mode": "last"}  # fmt: skip
    (folder / "reward_model_config.json").write_text(json.dumps(fields | config))
    return head


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_the_authors_files_are_read(kind: str, tmp_path: Path):
    head = authors_folder(tmp_path, kind)
    judge = molmopoint.load_reward(tmp_path, device_map="cpu")
    assert judge.model.settings.layout == "assistant" and judge.model.settings.scale
    native = Molmo2ForConditionalGeneration(random_molmo2().config).eval()
    native.load_state_dict(random_molmo2().state_dict())
    separator = f"\n\n{SEPARATOR}\n\n"
    text = f"<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n{separator.join(ANSWERS)}<|im_end|>\n"
    ids = torch.tensor([judge.processor.tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        states = native.model(input_ids=ids).last_hidden_state[0]
        ends = [*((ids[0] == judge.model.separator_id).nonzero()[:, 0] - 1).tolist(), ids.shape[1] - 1]
        expected = head(states[ends])[:, 0] / 32**0.5
    np.testing.assert_allclose(judge.score("What?", ANSWERS), expected.numpy(), atol=1e-5)


def unmerged_folder(folder: Path) -> Any:
    """The authors' adapters of fused layers beside a head, on a base in the folder above; the model with
    these adapters merged.
    """
    base = folder.parent / "base"
    backbone: Any = random_molmo2()
    backbone.save_pretrained(base)
    reward_processor("molmo2").save_pretrained(base)
    folder.mkdir()
    head = ValueHead(32, 8, "silu", 32**-0.5)
    torch.save(
        {name.removeprefix("layers."): tensor for name, tensor in head.state_dict().items()},
        folder / "value_head.pt",
    )
    fields = {
        "value_head_type": "mlp",
        "value_head_hidden_dim": 8,
        "value_head_activation": "silu",
        "value_head_input_dim": 32,
    }
    (folder / "reward_model_config.json").write_text(json.dumps({**fields, "resp_repr_mode": "last"}))
    tensors: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(1)
    for number, layer in enumerate(backbone.model.language_model.layers):
        fused = {
            "self_attn.att_proj": [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj],
            "self_attn.attn_out": [layer.self_attn.o_proj],
            "mlp.ff_proj": [layer.mlp.up_proj, layer.mlp.gate_proj],
            "mlp.ff_out": [layer.mlp.down_proj],
        }
        for name, parts in fused.items():
            down = torch.randn(4, parts[0].in_features, generator=generator)
            up = torch.randn(sum(part.out_features for part in parts), 4, generator=generator) / 4
            place = f"base_model.model.model.transformer.blocks.{number}.{name}"
            tensors |= {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up}
            whole = torch.cat([part.weight for part in parts]).detach() + up @ down * (2 / 4)
            for part, rows in zip(parts, whole.split([part.out_features for part in parts]), strict=True):
                part.weight.data.copy_(rows)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 2,
        "target_modules": ["att_proj", "attn_out", "ff_proj", "ff_out"],
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "base"}))
    model = RewardModel(
        backbone,
        RewardSettings(head_width=8),
        add_separator(reward_processor("molmo2").tokenizer),
        separator="base",
    )
    model.value.load_state_dict(head.state_dict())
    return model.eval()


@pytest.mark.parametrize("keep", ["merge", "keep"])
def test_the_authors_unmerged_folder_is_read_exactly(keep: Any, tmp_path: Path):
    merged = unmerged_folder(tmp_path / "adapter")
    processor = reward_processor("molmo2")
    expected = Judge(merged, processor).score("What?", ANSWERS, picture(70, 120))
    model, read = RewardModel.from_pretrained(tmp_path / "adapter", adapters=keep, device_map="cpu")
    np.testing.assert_allclose(
        Judge(model, read).score("What?", ANSWERS, picture(70, 120)), expected, atol=1e-5
    )
    assert model.settings.opening == "visual"
    if keep == "keep":
        model.save_pretrained(tmp_path / "ours")
        judge = molmopoint.load_reward(tmp_path / "ours", device_map="cpu")
        np.testing.assert_allclose(judge.score("What?", ANSWERS, picture(70, 120)), expected, atol=1e-5)


def test_the_base_of_an_unmerged_folder_can_be_given(tmp_path: Path):
    merged = unmerged_folder(tmp_path / "adapter")
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(
        CheckpointError, match=r"expected the model below the adapters in .* at 'base'; pass base="
    ):
        molmopoint.load_reward(tmp_path / "adapter", device_map="cpu")
    judge = molmopoint.load_reward(tmp_path / "adapter", base=tmp_path / "elsewhere", device_map="cpu")
    expected = Judge(merged, reward_processor("molmo2")).score("What?", ANSWERS)
    np.testing.assert_allclose(judge.score("What?", ANSWERS), expected, atol=1e-5)
    authors_folder(tmp_path / "whole")
    with pytest.raises(CheckpointError, match="which holds a whole model, got"):
        molmopoint.load_reward(tmp_path / "whole", base=tmp_path / "elsewhere", device_map="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "expected plain adapters in .*, got use_dora=True"),
        ({"lora_bias": True}, "expected plain adapters in .*, got lora_bias=True"),
        (
            {"megatron_config": {"x": 1}, "megatron_core": "own"},
            "expected plain adapters in .*, got megatron_config=",
        ),
        ({"r": 0}, "expected a number above 0 as r in"),
        ({"lora_alpha": "much"}, "expected a number above 0 as lora_alpha in"),
        ({"base_model_name_or_path": "x" * 500}, "expected the model below the adapters in"),
        ({"base_model_name_or_path": None}, "expected the name of a model as base_model_name_or_path"),
        (None, "expected the settings of adapters in"),
        ("rows", "expected adapters of this model in .*ff_out"),
        ("layer", "expected adapters of this model in .*blocks.9"),
        ("name", "expected adapters of this model in .*other_proj"),
    ],
)
def test_broken_unmerged_folders_are_refused(change: Any, message: str, tmp_path: Path):
    folder = tmp_path / "adapter"
    unmerged_folder(folder)
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if change is None:
        config.write_text("[1")
    elif isinstance(change, dict):
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    else:
        tensors = load_file(weights)
        if change == "rows":
            place = "base_model.model.model.transformer.blocks.0.mlp.ff_out.lora_B.weight"
            tensors[place] = tensors[place][:-1].contiguous()
        else:
            old, new = {"layer": ("blocks.1", "blocks.9"), "name": ("att_proj", "other_proj")}[change]
            tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
        save_file(tensors, weights)
    for keep in ("merge", "keep"):
        with pytest.raises(CheckpointError, match=message):
            RewardModel.from_pretrained(folder, adapters=keep, device_map="cpu")


@pytest.mark.parametrize("spare", [11, 16])
def test_the_separator_may_keep_the_row_of_the_base(spare: int, tmp_path: Path):
    tokenizer = molmo2_processor().tokenizer
    text: Any = random_molmo2().config.text_config
    backbone: Any = random_molmo2(text_config={**text.to_dict(), "additional_vocab_size": spare})
    table = backbone.get_input_embeddings().weight.detach().clone()
    model = RewardModel(backbone, RewardSettings(), add_separator(tokenizer), separator="base")
    own = table[model.separator_id] if model.separator_id < len(table) else torch.zeros_like(table[0])
    assert torch.equal(model.separator, own) and (spare == 16 or not own.any())


def test_folders_of_the_first_version_are_read_as_they_were(base: Path, tmp_path: Path):
    """They have no setting for the first token, which all rows had, nor for where an answer begins, which was
    at its words.
    """
    model, processor = made_from(base, opening="always", begin="words", pooling="first_last_add")
    expected = [Judge(model, processor).score("What?", ANSWERS), scores(Judge(model, processor))]
    model.save_pretrained(tmp_path)
    file = tmp_path / "reward_config.json"
    document = json.loads(file.read_text())
    assert (
        document["format_version"] == 2
        and document.pop("opening") == "always"
        and document.pop("begin") == "words"
    )
    file.write_text(json.dumps({**document, "format_version": 1}))
    judge = molmopoint.load_reward(tmp_path, device_map="cpu")
    assert judge.model.settings == model.settings
    np.testing.assert_allclose([judge.score("What?", ANSWERS), scores(judge)], expected, atol=1e-5)
    file.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="expected opening, begin in"):
        molmopoint.load_reward(tmp_path, device_map="cpu")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path):
    authors_folder(tmp_path)
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    (tmp_path / "value_head.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="expected the tensors of a value head"):
        molmopoint.load_reward(tmp_path, device_map="cpu")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"value_head_type": "moe"}, "expected value_head_type linear or mlp, got 'moe'"),
        ({"value_head_activation": "swish"}, "expected activation silu or selu"),
        ({"resp_repr_mode": "median"}, "expected pooling last or first"),
        ({"value_head_hidden_dim": 9}, r"expected value.layers.0.bias of shape \(9,\) in .*, got \(8,\)"),
        ({"resp_repr_mode": "first_last_concat"}, r"expected value.layers.0.weight of shape \(8, 64\)"),
        ({"value_head_type": "linear"}, "expected value.layers.0"),
    ],
)
def test_authors_files_that_do_not_fit_are_refused(config: dict[str, Any], message: str, tmp_path: Path):
    authors_folder(tmp_path, **config)
    with pytest.raises(CheckpointError, match=message):
        molmopoint.load_reward(tmp_path, device_map="cpu")


# What is no reward model


def test_other_folders_are_refused(toy_folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="got a model without a value head"):
        molmopoint.load_reward(toy_folder)
    with pytest.raises(CheckpointError, match=r"without config\.json"):
        molmopoint.load_reward(tmp_path)
    with pytest.raises(CheckpointError, match="expected a name of the zoo"):
        molmopoint.load_reward("nanoo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "expected format_version 2 in .*, got 3"),
        ({"format_version": None}, "expected format_version 2 in .*, got None"),
        ({"begin": 3}, "expected begin separator or words, got 3"),
        ({"opening": "never"}, "expected opening visual or always, got 'never'"),
        ({"layout": ["user"]}, "expected layout assistant or user"),
        ({"separator_id": "x"}, "expected a number as separator_id"),
        ({"base": 5}, "expected a name or None as base"),
        ({"layout": "system"}, "expected layout assistant or user, got 'system'"),
        ({"scale": None}, "expected scale True or False"),
        ({"head_width": 0}, "expected a head_width of 1 or more"),
        ({"separator_id": 3}, r"expected the separator as token 3, as .* says, got \d+"),
        ({"base": "nowhere/at/all"}, "expected a name of the zoo, a hub id"),
    ],
)
def test_broken_settings_are_refused(change: dict[str, Any], message: str, tmp_path: Path):
    model, processor = random_reward()
    model.base = str(tmp_path / "base")
    model.backbone.save_pretrained(model.base)
    processor.save_pretrained(model.base)
    model.save_pretrained(tmp_path)
    file = tmp_path / "reward_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        molmopoint.load_reward(tmp_path, device_map="cpu")


def test_truncated_heads_and_foreign_adapters_are_refused(base: Path, tmp_path: Path):
    model, _ = made_from(base)
    model.save_pretrained(tmp_path)
    adapters = load_file(tmp_path / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.0", "layers.7"): tensor for name, tensor in adapters.items()},
        tmp_path / "adapter_model.safetensors",
    )
    for keep in ("merge", "keep"):
        with pytest.raises(CheckpointError, match="expected adapters of this model"):
            RewardModel.from_pretrained(tmp_path, adapters=keep, device_map="cpu")
    head = (tmp_path / "reward.safetensors").read_bytes()
    (tmp_path / "reward.safetensors").write_bytes(head[:-10])
    with pytest.raises(CheckpointError, match="expected the value head in"):
        molmopoint.load_reward(tmp_path, device_map="cpu")


def test_a_model_without_a_named_base_is_saved_merged_only(tmp_path: Path):
    model, _ = random_reward()
    with pytest.raises(CheckpointError, match="set `base`, or pass merged=True"):
        model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="expected a MolmoPoint or a Molmo2 as backbone"):
        RewardModel(nn.Linear(2, 2), RewardSettings(), 3)  # type: ignore[arg-type]


# The head


def test_the_head_is_exact_in_half_precision_models():
    torch.manual_seed(0)
    head = ValueHead(16, 8, scale=0.25)
    vectors = torch.randn(5, 16)
    expected = head(vectors)
    assert expected.dtype == torch.float32 and head.state_dict().keys() == {
        f"layers.{i}.{k}" for i in (0, 2) for k in ("weight", "bias")
    }
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(vectors), expected)
    assert head.to(torch.bfloat16)(vectors.bfloat16()).dtype == torch.float32
    assert expected.abs().max() < 0.01
    assert sum(p.numel() for p in ValueHead(2560).parameters()) == 2_623_489


def test_tables_under_released_names_may_have_fewer_rows_than_the_config_says(tmp_path: Path):
    authors_folder(tmp_path)
    expected = molmopoint.load_reward(tmp_path, device_map="cpu").score("What?", ANSWERS)
    tensors = load_file(tmp_path / "model.safetensors")
    table = tensors.pop("model.language_model.embed_tokens.weight")
    vocabulary = random_molmo2().config.text_config.vocab_size  # type: ignore[union-attr]
    tensors["model.transformer.wte.embedding"] = table[:vocabulary].contiguous()
    tensors["model.transformer.wte.new_embedding"] = table[vocabulary:].contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    np.testing.assert_allclose(
        molmopoint.load_reward(tmp_path, device_map="cpu").score("What?", ANSWERS), expected, atol=1e-6
    )
