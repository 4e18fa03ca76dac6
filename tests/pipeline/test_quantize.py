"""Models whose text model is stored in 8 or 4 bits: which parts, what they answer, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_processor import picture
from typer.testing import CliRunner

import molmopoint
from molmopoint.checkpoints.quantising import FORMS, KEPT, matrices
from molmopoint.cli.app import app
from molmopoint.data.synthetic import sample_scene
from molmopoint.errors import CheckpointError

NEEDS = {
    form: pytest.mark.skipif(
        importlib.util.find_spec(settings.package) is None, reason=f"needs {settings.package}"
    )
    for form, settings in FORMS.items()
}
BOTH = [pytest.param(form, marks=NEEDS[form]) for form in FORMS]

KEPT_HERE = {*KEPT} - {
    "multi_modal_projector",
    "visual",
    "multi_patch_pointer_head",
    "in_proj_a",
    "in_proj_b",
}
"""Of the parts that stay as they are, those of the embedded model; the others are of other families."""

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def questions(count: int) -> list[tuple[Any, str]]:
    scenes = (sample_scene(np.random.default_rng(seed)) for seed in range(count))
    return [(scene.image, query.prompt) for scene in scenes for query in scene.queries[:2]][:count]


@pytest.fixture(scope="module")
def in_full() -> list[str]:
    pointer = molmopoint.load("nano", device="cpu")
    return [pointer.point(image, prompt).raw_text for image, prompt in questions(12)]


@pytest.mark.parametrize("form", BOTH)
def test_nano_answers_as_in_full(form: str, in_full: list[str]):
    """Measured over 36: 35 equal in each form."""
    pointer = molmopoint.load("nano", device="cpu", quantize=form)
    asked = questions(12)
    answers = [pointer.point(image, prompt).raw_text for image, prompt in asked]
    same = sum(answer == expected for answer, expected in zip(answers, in_full, strict=True))
    assert same >= 11
    images, prompts = zip(*asked, strict=True)
    batch = list(pointer.point_batch(images, prompts, batch_size=5))
    differing = [one for one, answer in zip(batch, answers, strict=True) if one.raw_text != answer]
    assert not differing


@pytest.mark.parametrize("form", BOTH)
def test_the_matrices_of_the_text_model_alone_are_stored_so(form: str):
    plain = molmopoint.load("nano", device="cpu", dtype="bfloat16").model
    model = molmopoint.load("nano", device="cpu", quantize=form).model
    assert model.dtype == torch.bfloat16 and model.stored_as == form
    stored = {name for name, _ in matrices(plain)}
    blocks = plain.config.text_config.num_hidden_layers
    assert len(stored) == 7 * blocks and {name.split(".")[-1] for name in stored} == PROJECTIONS
    assert all(name.startswith("model.language_model.layers.") for name in stored)
    assert {part for name, _ in plain.named_modules() for part in name.split(".")} >= KEPT_HERE
    for name, module in model.named_modules():
        if name in stored:
            weight = module.weight
            assert type(weight) is not torch.nn.Parameter or type(weight.data) is not torch.Tensor
            assert not weight.requires_grad
    # What has another name has the very numbers of the checkpoint.
    kept = dict(plain.named_parameters())
    changed = dict(model.named_parameters())
    for name, parameter in kept.items():
        if name.removesuffix(".weight") not in stored:
            assert type(changed[name]) is torch.nn.Parameter and torch.equal(changed[name], parameter)


@NEEDS["nf4"]
def test_what_is_left_of_weights_is_not_saved(tmp_path: Path):
    model = molmopoint.load("nano", device="cpu", quantize="nf4").model
    with pytest.raises(CheckpointError, match=r"stored as nf4; load it without quantize"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("form", ["int8"])
def test_molmo2_as_well(form: str, molmo2_folder: Path):
    pytest.importorskip(FORMS[form].package)
    plain = molmopoint.load(molmo2_folder, device="cpu", dtype="float32")
    pointer = molmopoint.load(molmo2_folder, device="cpu", dtype="float32", quantize=form)
    assert len(list(matrices(plain.model))) == 7 * plain.model.config.text_config.num_hidden_layers
    assert pointer.point(picture(60, 90), "the cats", max_new_tokens=8).raw_text
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    with torch.inference_mode():
        near = pointer.model(**inputs).logits
        full = plain.model(**inputs).logits
    assert torch.nn.functional.cosine_similarity(near.flatten(), full.flatten(), dim=0) > 0.99
    assert not torch.equal(near, full)


REFUSED = [
    ({"quantize": "int3"}, r"expected quantize as one of int8, int4, nf4, got 'int3'; did you mean int"),
    ({"quantize": "fewer"}, r"got 'fewer'; int8 loses least"),
    ({"quantize": 8}, r"expected quantize as one of int8, int4, nf4, got 8"),
    ({"quantize": "nf4", "quantization_config": {"load_in_4bit": True}}, "got both"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_is_told_at_once(arguments: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        molmopoint.load("/not/even/a/folder", **arguments)


def test_a_missing_package_is_told_before_anything_is_read():
    code = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in ("torchao", "bitsandbytes") else found(name, *more)
import molmopoint
for form in ("int8", "int4", "nf4"):
    try:
        molmopoint.load("nano", quantize=form)
    except molmopoint.errors.CheckpointError as error:
        assert 'pip install "molmopoint[quantize]"' in str(error), error
    else:
        sys.exit("no error")
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def without_weights(toy_folder: Path, tmp_path: Path) -> Path:
    """A folder in which reading weights fails."""
    folder = tmp_path / "model"
    shutil.copytree(toy_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.mark.parametrize("form", BOTH)
def test_widths_are_told_before_weights_are_read(form: str, without_weights: Path):
    if form == "int8":
        expected = "expected model.safetensors"  # rows have any length, so it goes on to the weights
    else:
        expected = rf"multiples of {FORMS[form].multiple} for quantize='{form}', got .*=.*; use int8"
    with pytest.raises(CheckpointError, match=expected):
        molmopoint.load(without_weights, device="cpu", quantize=form)


@NEEDS["nf4"]
def test_weights_in_fewer_bits_already_are_told_before_they_are_read(without_weights: Path):
    config = json.loads((without_weights / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (without_weights / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"fewer bits already \(bitsandbytes\)"):
        molmopoint.load(without_weights, device="cpu", quantize="nf4")


@pytest.mark.parametrize("family", ["toy_folder", "molmo2_folder"])
def test_torchao_while_loading_is_refused_and_the_reason_told(family: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(family)
    with pytest.raises(CheckpointError, match=r"keeps only the first part .* call molmopoint\.load"):
        molmopoint.load(folder, device="cpu", quantization_config={"quant_method": "torchao"})


@NEEDS["nf4"]
def test_the_commands_have_the_option():
    runner = CliRunner(env={"COLUMNS": "200"})
    shapes = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
    words = ["point", str(shapes), "the red circles", "--quantize", "nf4", "--json"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["results"][0]["points"]) > 0
    for command in ("point", "ask", "track", "eval", "serve"):
        assert "--quantize" in runner.invoke(app, [command, "--help"]).output
    assert runner.invoke(app, [*words[:3], "--quantize", "int3"]).exit_code == 2
