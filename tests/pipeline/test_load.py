"""From a name to a pointer, and what is said when that fails."""

from __future__ import annotations

import pytest
import torch
from toy_pointer import toy_pointer
from toy_processor import picture

import molmopoint
from molmopoint.checkpoints.locating import locate
from molmopoint.checkpoints.placing import default_dtype
from molmopoint.errors import CheckpointError


def test_a_saved_model_points_as_before(toy_folder):
    image = picture(60, 90)
    expected = toy_pointer().point(image, "the cats", max_new_tokens=24)
    for name in (toy_folder, str(toy_folder)):
        result = molmopoint.load(name, device_map="cpu").point(image, "the cats", max_new_tokens=24)
        assert result.raw_text == expected.raw_text and result.points.xy.tolist() == expected.points.xy.tolist()
        assert result.points.score == pytest.approx(expected.points.score, abs=1e-5)


def test_precision(toy_folder):
    assert molmopoint.load(toy_folder, device_map="cpu").model.dtype == torch.float32
    assert molmopoint.load(toy_folder, dtype="bfloat16", device_map=torch.device("cpu")).model.dtype == torch.bfloat16
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


@pytest.mark.parametrize("left_out", ["model.safetensors", "tokenizer.json", "processor_config.json", "config.json", "chat_template.jinja"])
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


@pytest.mark.parametrize(("name", "text"), [("config.json", "{}"), ("config.json", '{"model_type": "llama"}'), ("tokenizer.json", "{}")])
def test_files_of_something_else(toy_folder, tmp_path, name, text):
    for file in toy_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match="expected"):
        molmopoint.load(tmp_path, device_map="cpu")


def test_the_older_name_of_dtype(toy_folder):
    assert molmopoint.load(toy_folder, device_map="cpu", torch_dtype=torch.float16).model.dtype == torch.float16
