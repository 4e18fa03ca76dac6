"""Files around models of other authors that do not fit them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_actor import tiny_actor
from tiny_hosts import tiny_host

import molmopoint
from molmopoint.checkpoints.compiling import check_tools
from molmopoint.errors import CheckpointError


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> dict[str, Path]:
    """A model that writes coordinates, and one with a pointer head."""
    place = tmp_path_factory.mktemp("hosts")
    model, processor = tiny_host("qwen3_vl")
    model.save_pretrained(place / "words")
    processor.save_pretrained(place / "words")
    return {"words": place / "words", "map": tiny_actor("qwen2_5_vl", place / "map")}


@pytest.mark.parametrize("kind", ["words", "map"])
@pytest.mark.parametrize(
    ("name", "value"), [("patch_size", 28), ("merge_size", 1), ("temporal_patch_size", True)]
)
def test_image_processors_of_another_model(hosts, tmp_path, kind, name, value):
    source = tmp_path / "model"
    shutil.copytree(hosts[kind], source)
    file = source / "processor_config.json"
    fields = json.loads(file.read_text())
    fields["image_processor"][name] = value
    file.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=f"image processor with a {name} of .*; load both"):
        molmopoint.load(source, device="cpu")


@pytest.mark.parametrize("named", ["'", "no-such-compiler -O2", "\t'x"])
def test_compilers_that_cannot_be(monkeypatch, named):
    import torch

    monkeypatch.setenv("CXX", named)
    with pytest.raises(
        CheckpointError, match=r"a C\+\+ compiler for compile=True, got no program .*; install one"
    ):
        check_tools(torch.device("cpu"))
