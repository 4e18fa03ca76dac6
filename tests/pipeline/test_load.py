"""From a name to a pointer, and what is said when that fails."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from toy_pointer import toy_pointer
from toy_processor import picture
from transformers import GenerationConfig
from transformers.utils import logging

import molmopoint
from molmopoint.checkpoints.locating import locate
from molmopoint.checkpoints.placing import default_dtype
from molmopoint.errors import CheckpointError, InputWarning
from molmopoint.generation.settings import tokens_alone


def test_a_saved_model_points_as_before(toy_folder):
    image = picture(60, 90)
    expected = toy_pointer().point(image, "the cats", max_new_tokens=24)
    for name in (toy_folder, str(toy_folder)):
        result = molmopoint.load(name, device_map="cpu").point(image, "the cats", max_new_tokens=24)
        assert (
            result.raw_text == expected.raw_text and result.points.xy.tolist() == expected.points.xy.tolist()
        )
        assert result.points.score == pytest.approx(expected.points.score, abs=1e-5)


def test_precision(toy_folder):
    assert molmopoint.load(toy_folder, device_map="cpu").model.dtype == torch.float32
    assert (
        molmopoint.load(toy_folder, dtype="bfloat16", device_map=torch.device("cpu")).model.dtype
        == torch.bfloat16
    )
    assert default_dtype(torch.device("cpu")) == torch.float32


def test_names_are_found(toy_folder):
    assert locate("allenai/Some-Model", "abc") == ("allenai/Some-Model", "abc")
    assert locate("molmopoint-8b")[0] == "allenai/MolmoPoint-8B"
    assert locate("MolmoPoint-8B", "abc")[1] == "abc"
    assert locate(toy_folder) == (str(toy_folder), None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "did you mean nano"),
        ("something-else", "the zoo has nano"),
        ("./not/here", "found nothing"),
        ("a/b/c", "hub id"),
        ("/", "without config.json"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(CheckpointError, match=message):
        molmopoint.load(name)


@pytest.mark.parametrize(
    "left_out",
    ["model.safetensors", "tokenizer.json", "processor_config.json", "config.json", "chat_template.jinja"],
)
def test_incomplete_folders(toy_folder, tmp_path, left_out):
    for file in toy_folder.iterdir():
        if file.name != left_out:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="expected"):
        molmopoint.load(tmp_path)


def test_an_answer_ends_without_a_generation_config(toy_folder, tmp_path):
    for file in toy_folder.iterdir():
        if file.name != "generation_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    result = molmopoint.load(tmp_path, device_map="cpu").point(picture(60, 90), "the cats", max_new_tokens=4)
    assert result.raw_text == toy_pointer().point(picture(60, 90), "the cats", max_new_tokens=4).raw_text


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_devices_that_are_not_there(toy_folder, device):
    with pytest.raises(CheckpointError, match="expected"):
        molmopoint.load(toy_folder, device_map=device)


def test_arguments_that_do_not_exist(toy_folder):
    for argument, hint in (
        ("dtpye", "did you mean dtype"),
        ("load_in_4bit", "quantization_config"),
        ("xyzzy", "help"),
    ):
        with pytest.raises(TypeError, match=hint):
            arguments: dict[str, Any] = {argument: True}
            molmopoint.load(toy_folder, **arguments)
    with pytest.raises(CheckpointError, match="device or device_map"):
        molmopoint.load(toy_folder, device="cpu", device_map="cpu")
    with pytest.raises(CheckpointError, match="did you mean bfloat16"):
        molmopoint.load(toy_folder, dtype="bfloat61")
    assert molmopoint.load(toy_folder, device="cpu", dtype="bf16").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "{}"), ("config.json", '{"model_type": "llama"}'), ("tokenizer.json", "{}")],
)
def test_files_of_something_else(toy_folder, tmp_path, name, text):
    for file in toy_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match="expected"):
        molmopoint.load(tmp_path, device_map="cpu")


def test_the_older_name_of_dtype(toy_folder):
    assert (
        molmopoint.load(toy_folder, device_map="cpu", torch_dtype=torch.float16).model.dtype == torch.float16
    )


def circles():
    drawn = Image.new("RGB", (320, 240), (236, 236, 228))
    for x, y in ((60, 70), (220, 150)):
        ImageDraw.Draw(drawn).ellipse((x - 22, y - 22, x + 22, y + 22), fill=(220, 40, 40))
    return drawn


SETTINGS = [
    {"num_beams": 4, "num_return_sequences": 2, "min_new_tokens": 30, "repetition_penalty": 1.8},
    {"stop_strings": ["c"], "use_cache": False, "suppress_tokens": list(range(300))},
    {
        "do_sample": True,
        "temperature": 5.0,
        "top_k": 7,
        "max_new_tokens": 2,
        "max_time": 0.001,
        "guidance_scale": 3.0,
        "seed": 1,
    },
    {
        "forced_eos_token_id": 4,
        "bad_words_ids": [[40]],
        "sequence_bias": [[[41], 9.0]],
        "begin_suppress_tokens": [1],
        "custom": 3,
    },
    {
        "prompt_lookup_num_tokens": 3,
        "assistant_early_exit": 1,
        "cache_implementation": "static",
        "output_scores": True,
        "min_length": 99,
    },
    {"eos_token_id": "x", "pad_token_id": 10**9, "bos_token_id": [None]},
]


IN_CONFIG = {
    "num_beams": 4,
    "min_length": 30,
    "repetition_penalty": 1.8,
    "do_sample": True,
    "temperature": 5.0,
}


@pytest.mark.parametrize(
    ("file", "settings"),
    [*(("generation_config.json", settings) for settings in SETTINGS), ("config.json", IN_CONFIG)],
)
def test_settings_of_a_checkpoint_do_not_count(tmp_path, file, settings):
    """But for its tokens; what was left out is told once, in either file that transformers takes such
    settings from.
    """
    for part in Path(molmopoint.checkpoints.resolve("nano")).iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    if file == "config.json":
        (tmp_path / "generation_config.json").unlink()
    (tmp_path / file).write_text(json.dumps({**json.loads((tmp_path / file).read_text()), **settings}))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pointer = molmopoint.load(tmp_path, device_map="cpu")
        found = [pointer.point(circles(), "the red circles") for _ in range(2)]
    assert found[0].points.xy == pytest.approx(np.array([[57.73, 69.9], [217.73, 149.9]]), abs=0.01)
    assert found[1].raw_text == found[0].raw_text and not found[0].truncated
    [said] = [str(warning.message) for warning in told if warning.category is InputWarning]
    assert all(name in said for name in settings)


def test_tokens_of_a_checkpoint_count():
    stored = GenerationConfig(eos_token_id=[5, 9, 300, -1], pad_token_id=0, bos_token_id=True)
    kept, ignored = tokens_alone(stored, 100)
    assert (kept.eos_token_id, kept.pad_token_id, kept.bos_token_id) == ([5, 9], 0, None)
    assert ignored == ("bos_token_id", "eos_token_id")
    assert tokens_alone(GenerationConfig(eos_token_id=5), 100)[1] == ()


def test_embedded_models_load_silently(capfd):
    """Progress bars of other loads stay as they were."""
    logging.enable_progress_bar()  # commands that ran in this process switch it off
    molmopoint.load("nano")
    molmopoint.load_reward("nano-reward")
    said = capfd.readouterr()
    assert not said.out and not said.err
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "sglang"}, "engine='vllm' or None"),
        ({"engine_options": {"max_model_len": 1024}}, "without"),
        ({"engine": "vllm", "device": "cpu"}, "no device"),
        ({"engine": "vllm", "quantize": "int8"}, "no device"),
    ],
)
def test_engines_that_there_are_not(toy_folder, arguments, message):
    with pytest.raises(CheckpointError, match=message):
        molmopoint.load(toy_folder, **arguments)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_an_engine_that_is_not_installed(toy_folder):
    with pytest.raises(CheckpointError, match=r"molmopoint\[vllm\]"):
        molmopoint.load(toy_folder, engine="vllm")
