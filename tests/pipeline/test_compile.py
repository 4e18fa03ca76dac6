"""`compile=True`: what is refused before weights are read, and that `nano` answers the same."""

from __future__ import annotations

import sysconfig
from typing import Any

import numpy as np
import pytest
from tiny_molmo2 import molmo2_pointing_processor, random_molmo2
from torch._dynamo.utils import counters
from typer.testing import CliRunner

import molmopoint
from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.checkpoints import compiling
from molmopoint.cli.app import app
from molmopoint.data.synthetic import sample_scene
from molmopoint.errors import CheckpointError


@pytest.fixture
def unread(monkeypatch):
    """Fails where weights would be read."""

    def read(*_: Any) -> None:
        pytest.fail("weights were read")

    monkeypatch.setattr(MolmoPointBackend, "read_model", read)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"compile": "yes"}, "expected compile to be True or False, got 'yes'"),
        ({"compile": 1}, "expected compile to be True or False, got 1"),
        ({"compile": True, "attn_implementation": "eager"}, "attn_implementation='sdpa' with compile=True"),
        (
            {"compile": True, "quantize": "int8"},
            "expected quantize='nf4' or none with compile=True, got 'int8'",
        ),
        ({"compile": True, "device_map": "auto"}, "expected one device with compile=True"),
    ],
)
def test_what_cannot_be_compiled_is_told_before_weights_are_read(unread, options, told):
    with pytest.raises(CheckpointError, match=told):
        molmopoint.load("nano", **options)


def test_a_missing_compiler_is_told(unread, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    told = r"got no program 'no-such-compiler'; install one .*, or leave compile out"
    with pytest.raises(CheckpointError, match=told):
        molmopoint.load("nano", device="cpu", compile=True)


def test_a_path_without_compilers_is_told(unread, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CheckpointError, match="expected a C"):
        molmopoint.load("nano", device="cpu", compile=True)


def test_missing_headers_of_python_are_told(unread, monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "_compiler", lambda: "sh")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(CheckpointError, match="expected the headers of Python"):
        molmopoint.load("nano", device="cpu", compile=True)


def test_a_family_of_transformers_is_refused_by_name(tmp_path):
    random_molmo2().save_pretrained(tmp_path)
    molmo2_pointing_processor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="expected a MolmoPoint for compile=True, got a Molmo2"):
        molmopoint.load(tmp_path, device="cpu", compile=True)


def test_the_command_line_tells_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    file = tmp_path / "scene.png"
    sample_scene(np.random.default_rng(0)).image.save(file)
    result = CliRunner().invoke(app, ["point", str(file), "the circles", "--compile", "--device", "cpu"])
    assert result.exit_code == 3
    assert "no-such-compiler" in result.output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nano_answers_the_same():
    plain = molmopoint.load("nano", device="cpu")
    compiled = molmopoint.load("nano", device="cpu", compile=True)
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(9)]
    pictures = [scene.image for scene in scenes]
    prompts = [scene.queries[0].prompt for scene in scenes]
    made = counters["stats"]["unique_graphs"]
    texts = []
    for pointer in (plain, compiled):
        alone = [pointer.point(*pair).raw_text for pair in zip(pictures, prompts, strict=True)]
        batch = [str(answer) for answer in pointer.point_batch(pictures, prompts, batch_size=8)]
        pieces = "".join(str(piece) for piece in pointer.stream(pictures[0], prompts[0]))
        single = pointer.point(pictures[1], prompts[1], single=True, min_score=0.01).raw_text
        words = pointer.ask(pictures[2], "What do you see?", max_new_tokens=12)
        texts.append([alone, batch, single, pieces, str(words)])
    assert texts[0] == texts[1]
    assert counters["stats"]["unique_graphs"] == made
