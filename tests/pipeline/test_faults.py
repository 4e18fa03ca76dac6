"""Numbers that are not finite are an error that names their stage; autocast around a call changes no rule;
turns a model does not know.
"""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from toy_pointer import STEPS, toy_pointer
from toy_processor import frames, picture

import molmopoint
from molmopoint.checkpoints import resolve
from molmopoint.data.synthetic import sample_scene
from molmopoint.errors import InputWarning, NumericalError

PICTURES = [picture(60, 90), picture(120, 60)]
STAGES = {
    "vision tower": "vision_tower.patch_embedding",
    "connector": "connector.image_projector",
    "text model": "language_model.layers.0.mlp",
    "choice of a patch": "point_predictor.patch.query",
    "choice of a subpatch": "point_predictor.subpatch.query",
    "choice of a location": "point_predictor.location.projection",
}
"""Stages of the network, and a part of the names of their weights."""


@pytest.fixture
def pointer():
    return toy_pointer()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "options", [{}, {"single": True}, {"temperature": 0.7, "top_p": 0.9}], ids=["greedy", "single", "sampled"]
)
def test_the_stage_is_named(pointer, stage, value, options):
    parameter = next(each for name, each in pointer.model.named_parameters() if STAGES[stage] in name)
    with torch.no_grad():
        parameter[0].fill_(value)
    runs = []
    pointer.model.register_forward_hook(lambda *_: runs.append(1))
    with pytest.raises(NumericalError, match=f"finite numbers from the {stage}.*float32; .*checkpoint"):
        pointer.point(PICTURES[0], "the cats", max_new_tokens=400, **options)
    assert len(runs) < 400, "nothing goes on once it is known"


def test_what_nobody_chose_from_does_no_harm(pointer):
    """A head that is not used may hold anything."""
    with torch.no_grad():
        pointer.model.model.point_predictor.location.projection.weight.fill_(float("nan"))
    assert pointer.point(None, "hello", max_new_tokens=8).text is not None


def test_overflow_in_half_names_the_dtype(pointer):
    with torch.no_grad():
        for name, parameter in pointer.model.named_parameters():
            if "language_model" in name:
                parameter.mul_(300)
    pointer.model.half()
    with pytest.raises(NumericalError, match=r"computed in float16; .*dtype=torch\.bfloat16"):
        pointer.point(PICTURES[0], "the cats", max_new_tokens=STEPS)


def test_one_row_leaves_the_others_alone(pointer):
    prompts = ["the cats", "the zzz", "the dogs"]
    right = [pointer.point(PICTURES[0], prompt, max_new_tokens=STEPS) for prompt in prompts]
    (token,) = {*pointer.processor.tokenizer.encode("zzz", add_special_tokens=False)}
    with torch.no_grad():
        pointer.model.get_input_embeddings().weight[token] = float("nan")
    pictures = [PICTURES[0]] * 3
    results = list(pointer.point_batch(pictures, prompts, max_new_tokens=STEPS, on_error="yield"))
    assert isinstance(results[1], NumericalError)
    for i in (0, 2):
        assert np.allclose(results[i].points.xy, right[i].points.xy) and results[i].text == right[i].text
    answers = pointer.point_batch(pictures, prompts, max_new_tokens=STEPS)
    assert next(answers).text == right[0].text
    with pytest.raises(NumericalError):
        next(answers)
    with pytest.raises(NumericalError):
        list(pointer.stream(PICTURES[0], "the zzz", max_new_tokens=STEPS))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"max_points": 2}, {"num_beams": 2}])
def test_networks_of_transformers_are_watched_too(molmo2_folder, options):
    pointer = molmopoint.load(molmo2_folder, device_map="cpu")
    assert pointer.point(PICTURES[0], "the cats", max_new_tokens=4, **options).text is not None
    with torch.no_grad():
        pointer.model.lm_head.weight[3] = float("nan")
    with pytest.raises(NumericalError, match=r"text model \(logits of words\)"):
        pointer.point(PICTURES[0], "the cats", max_new_tokens=400, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(pointer, molmo2_folder, dtype):
    clip = frames(4, 50, 70)
    molmo2 = molmopoint.load(molmo2_folder, device_map="cpu")
    nano, judge = molmopoint.load("nano"), molmopoint.load_reward("nano-reward")
    scene = sample_scene(np.random.default_rng(7))
    query = next(query for query in scene.queries if query.targets)
    right = nano.point(scene.image, query.prompt)
    with torch.autocast("cpu", dtype=dtype):
        found = nano.point(scene.image, query.prompt)
        assert (
            len(found.points) == len(right.points) > 0
            and np.abs(found.points.xy - right.points.xy).max() < 10
        )
        assert found.heatmap(0).sum() == pytest.approx(1, abs=0.05) and np.isfinite(found.points.score).all()
        assert len(nano.point(scene.image, query.prompt, single=True).points) == 1
        assert (
            len(list(nano.point_batch([scene.image] * 3, query.prompt, batch_size=2, temperature=0.5))) == 3
        )
        assert list(nano.stream(scene.image, query.prompt)) and nano.count(scene.image, "stars") >= 0
        encoded = pointer.encode(PICTURES[0])
        assert pointer.point(encoded, "the cats", max_new_tokens=STEPS).invalid == 0
        for options in ({}, {"windows": True}):
            assert (
                pointer.point_video(clip, "the cats", frame_rate=2.0, max_new_tokens=STEPS, **options).invalid
                == 0
            )
        assert pointer.track(clip, "the cats", frame_rate=2.0, max_new_tokens=STEPS).invalid == 0
        assert molmo2.point(PICTURES[0], "the cats", max_new_tokens=4).invalid == 0
        assert np.isfinite(judge.score(query.prompt, ["There are none.", "x"], images=scene.image)).all()


def test_turns_that_a_model_does_not_know(tmp_path):
    nano = molmopoint.load("nano")
    scene = sample_scene(np.random.default_rng(7))
    first = nano.point(scene.image, "the stars")
    assert nano.model.config.max_turns == 1 and not first.notes
    with pytest.warns(InputWarning, match="one turn only, got 2 with the history"):
        second = nano.point(scene.image, "the circles", history=[first])
    assert len(second.notes) == 1 and "leave history out" in second.notes[0]
    nano.model.config.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["max_turns"] == 1, (
        "what is saved goes on saying so"
    )
    folder = tmp_path / "two"
    shutil.copytree(resolve("nano"), folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "max_turns": 2}))
    two = molmopoint.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        third = two.point(scene.image, "the circles", history=[first])
    assert third.notes == ()
    with pytest.warns(InputWarning, match="2 turns, got 3"):
        two.point(scene.image, "the circles", history=[first, first])
