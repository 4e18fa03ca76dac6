"""Grafts behind the calls that every model has."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_hosts import tiny_host
from typer.testing import CliRunner

import molmopoint
from molmopoint.backends import AnswerOptions
from molmopoint.checkpoints import graft
from molmopoint.checkpoints.placing import place
from molmopoint.cli.app import app
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.points import Points
from molmopoint.reward.files import load_backbone
from molmopoint.video import Clip

KINDS = [
    "qwen2_5_vl",
    "internvl",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("qwen3_vl", "qwen3_5")),
]
PHRASE = "the red circles"


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graft that likes to point."""
    folder = tmp_path_factory.mktemp(request.param)
    host, native = tiny_host(request.param)
    model, processor = graft(host, processor=native, patch_embed_dim=32, point_tokens=700)
    with torch.no_grad():
        for parameter in model.point_predictor.parameters():
            parameter.mul_(6)
        model.lm_head.weight[model.config.patch_token_id] *= 8
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pointer(folder: Path) -> molmopoint.Pointer:
    return molmopoint.load(folder)


def picture(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_single_point_lies_in_the_picture(pointer):
    result = pointer.point(picture(0), PHRASE, single=True, max_new_tokens=6)
    (point,) = result.points
    assert 0 <= point.x <= 120 and 0 <= point.y <= 90
    assert 0 < point.score < 1 and 0 < result.absent < 1
    heat = result.heatmap(0)
    assert heat.shape == (90, 120) and heat.sum() > 0


def test_a_picture_beyond_the_pixels_of_the_host_is_looked_at_again(pointer):
    once = pointer.point(picture(0), PHRASE, single=True, max_new_tokens=6)
    same = pointer.point(picture(0), PHRASE, single=True, max_new_tokens=6, zoom=True)
    assert same.to_dict() == once.to_dict()
    large = picture(3, 1000, 1300)
    zoom = molmopoint.Zoom(looks=2, size=100)
    result = pointer.point(large, PHRASE, single=True, max_new_tokens=6, zoom=zoom)
    (point,) = result.points
    assert 0 <= point.x <= 1300 and 0 <= point.y <= 1000
    assert 1 <= result.looks <= 3


def test_the_point_lies_where_its_ids_say(pointer):
    result = pointer.point([picture(0), picture(1, 60, 200)], PHRASE, single=True, max_new_tokens=6)
    read = pointer.processor.decode_points(result.raw_text, result.metadata)
    assert read.xy.tolist() == result.points.xy.tolist()
    assert result.points.group.tolist() == read.group.tolist()


def test_batches_streams_and_encoded_pictures_agree(pointer):
    prompts = [PHRASE, "the blue square"]
    options = {"max_new_tokens": 12, "max_points": 2, "single": False}
    alone = [pointer.point(picture(i, 60 + 30 * i), text, **options) for i, text in enumerate(prompts)]
    together = list(pointer.point_batch([picture(0, 60), picture(1, 90)], prompts, **options))
    assert [result.raw_text for result in together] == [result.raw_text for result in alone]
    encoded = pointer.encode(picture(0, 60))
    assert pointer.point(encoded, PHRASE, **options).raw_text == alone[0].raw_text
    both = list(pointer.point_batch([encoded, pointer.encode(picture(1, 90))], prompts, **options))
    assert [result.raw_text for result in both] == [result.raw_text for result in alone]
    stream = pointer.stream(picture(0, 60), PHRASE, **options)
    list(stream)
    assert stream.result.raw_text == alone[0].raw_text


def test_earlier_points_are_told_in_the_places_of_the_new_row(pointer):
    places = Points(np.array([1, 2]), np.array([0, 0]), np.array([30.0, 80.0]), np.array([40.0, 20.0]))
    request = pointer.backend.requests.about_pictures(
        picture(0), "And the others?", AnswerOptions(), history=[(PHRASE, places)]
    )
    selected = request.row.selection_ids[request.row.selection_ids != -1]
    assert len(selected) == 7 and selected[-1] == molmopoint.NO_MORE_POINTS
    assert pointer.point(picture(0), "And?", history=[(PHRASE, places)], single=True, max_new_tokens=4).points


def test_max_crops_keeps_pictures_small(pointer):
    requests = pointer.backend.requests
    usual = requests.process_images(picture(0, 500, 700))
    one = requests.process_images(picture(0, 500, 700), max_crops=1)
    four = requests.process_images(picture(0, 500, 700), max_crops=4)
    assert one.metadata.num_patches <= 256 and four.metadata.num_patches > one.metadata.num_patches
    has_overview = pointer.processor.host_type == "internvl"
    assert four.metadata.indexable.all() != has_overview, "an overview cannot be chosen"
    assert usual.metadata.num_patches != one.metadata.num_patches


def test_questions_without_pictures_and_sampling_work(pointer):
    assert isinstance(pointer.ask(None, "Who are you?", max_new_tokens=3), str)
    made = pointer.processor([picture(0)], f"{pointer.processor.image_token}Where?", return_tensors="pt")
    torch.manual_seed(0)
    answers = pointer.model.generate(**made, do_sample=True, num_return_sequences=3, max_new_tokens=4)
    assert len(answers) == 3


@pytest.mark.parametrize("call", ["point_video", "track", "ask"])
def test_clips_are_refused_by_name(pointer, call: str):
    frames = [picture(0), picture(1)]
    with pytest.raises(ProcessingError, match=r"expected pictures.*got a clip"):
        if call == "ask":
            pointer.ask(None, "What?", video=Clip(frames, [0.0, 1.0]))
        else:
            getattr(pointer, call)(frames, PHRASE, timestamps=[0.0, 1.0])


def test_parts_of_different_grafts_are_refused(pointer):
    kind = pointer.processor.host_type
    other = "qwen3_vl" if kind == "qwen2_5_vl" else "qwen2_5_vl"
    host, native = tiny_host(other)
    _, processor = graft(host, processor=native, patch_embed_dim=32, point_tokens=9)
    with pytest.raises(CheckpointError, match=f"expected a processor for a {kind} host"):
        molmopoint.Pointer(pointer.model, processor)


def test_a_judge_is_not_made_of_a_graft(folder):
    with pytest.raises(CheckpointError, match="of which no reward model is made"):
        load_backbone(str(folder), place(None, None))


def test_a_graft_of_a_graft_is_refused(folder):
    with pytest.raises(CheckpointError, match="already"):
        graft(folder)


def test_the_command_makes_a_graft_that_loads(tmp_path):
    host, native = tiny_host("qwen2_5_vl")
    host.save_pretrained(tmp_path / "host")
    native.save_pretrained(tmp_path / "host")
    start = tmp_path / "start"
    done = CliRunner().invoke(
        app, ["graft", str(tmp_path / "host"), "--out", str(start), "--width", "32", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    model = molmopoint.load(start).model
    assert told["new_tokens"] == list(model.config.new_rows)
    assert torch.equal(model.model.visual.merger.mlp[0].weight, host.model.visual.merger.mlp[0].weight)
    refused = CliRunner().invoke(app, ["graft", str(start), "--out", str(tmp_path / "again")])
    assert refused.exit_code == 3 and "already" in refused.stderr


@pytest.mark.parametrize("folder", ["qwen2_5_vl"], indirect=True)
def test_a_server_and_a_benchmark_ask_a_graft(pointer, tmp_path):
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from molmopoint.serving import app as serve

    file = io.BytesIO()
    Image.fromarray(picture(0)).save(file, "PNG")
    encoded = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    asked = {"image": encoded, "prompt": PHRASE, "single": True, "max_tokens": 6}
    with TestClient(serve({"graft": pointer})) as client:
        told = client.post("/v1/point", json=asked).json()
        assert "points" in told, told
        clip = client.post("/v1/point", json={"video": "AAAA", "prompt": PHRASE})
    wanted = pointer.point(picture(0), PHRASE, single=True, max_new_tokens=6)
    assert [(point["x"], point["y"]) for point in told["points"]] == [
        tuple(xy) for xy in wanted.points.xy.tolist()
    ]
    assert 400 <= clip.status_code < 500
    settings = {"max_new_tokens": 8}
    result = molmopoint.evaluate(
        pointer, "screenspot_v2", data="fixture", limit=2, settings=settings, out=tmp_path
    )
    assert len(result.predictions) == 2
