"""Names that no disk holds, at every door: an error of the library, as for a file that is not there."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_parts import plain_tokenizer, tiny_llm, tiny_vit

import molmopoint
from molmopoint.checkpoints import assemble
from molmopoint.errors import CheckpointError, MolmoPointError
from molmopoint.tracks import Tracks
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.start import load_start
from molmopoint.video import open_video

NAMES = {"long": "é" * 200 + ".mp4", "deep": "d/" * 3000 + "a", "null": "a\0b.mp4", "half": "a\ud800.mp4"}
DOORS = {
    "load": molmopoint.load,
    "load_reward": molmopoint.load_reward,
    "base": lambda name: molmopoint.load_reward("nano-reward", base=name),
    "load_segmenter": molmopoint.load_segmenter,
    "start": lambda name: load_start(name, load_recipe("lora")),
    "text": lambda name: assemble(tiny_vit(), name),
    "vision": lambda name: assemble(name, tiny_llm(), tokenizer=plain_tokenizer()),
    "recipe": load_recipe,
    "video": open_video,
    "tracks": Tracks.load,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("door", DOORS)
def test_files_and_models(door, name):
    with pytest.raises(MolmoPointError):
        DOORS[door](NAMES[name])


@pytest.mark.parametrize("name", NAMES)
def test_media_of_models(pointer, name):
    for ask in (pointer.point, pointer.point_video, pointer.track):
        with pytest.raises(MolmoPointError):
            ask(NAMES[name], "the cup")


@pytest.fixture(scope="module")
def pointer():
    return molmopoint.load("nano", device_map="cpu")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"model_type": ' + "[" * 100_000, "[]", "5", "{"])
@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "generation_config.json", "model.safetensors.index.json"]
)
def test_files_of_a_model_that_are_none(toy_folder, tmp_path, file, content):
    """Deep nesting ends in an error of its own in the reader of JSON."""
    model = shutil.copytree(toy_folder, tmp_path / "model")
    (model / file).write_text(content)
    try:
        molmopoint.load(model, device_map="cpu")
    except CheckpointError:
        return
    assert file == "generation_config.json", "a model was made of it"


def test_folders_without_parts(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "no_such_vit"}))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"expected a ViT of timm at .*no_such_vit"):
        assemble(tmp_path, tiny_llm(), tokenizer=plain_tokenizer())
    with pytest.raises(CheckpointError, match="expected a tokenizer at"):
        assemble(tiny_vit(), tmp_path)
