"""Options and inputs of wrong types and sizes: an error of the library that says what fits, or a right answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import molmopoint
from molmopoint.backends.options import AnswerOptions
from molmopoint.errors import CheckpointError, GroundingError, MolmoPointError, ProcessingError
from molmopoint.pipeline import Pointer, PointingResult
from molmopoint.tracks import Tracks

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
PROMPT = "the red circles"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device="cpu")


@pytest.fixture(scope="module")
def result(pointer: Pointer) -> PointingResult:
    return pointer.point(SHAPES, PROMPT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": -1}, "top_k to be a whole number"),
        ({"top_k": 1.5}, "top_k to be a whole number"),
        ({"no_repeat_ngram_size": "x"}, "no_repeat_ngram_size to be a whole number"),
        ({"repetition_penalty": 0}, "repetition_penalty to be a number above 0"),
        ({"typical_p": "x"}, "typical_p to be a number in 0..1"),
        ({"max_time": "x"}, "max_time to be a number"),
        ({"do_sample": "yes"}, "do_sample to be True or False"),
        ({"min_score": float("nan")}, "min_score to be a number in 0..1"),
        ({"max_points": True}, "max_points to be a whole number"),
        ({"history": 3}, "history as a list of earlier turns, got int"),
    ],
)
def test_options_that_cannot_be(pointer: Pointer, options: dict[str, Any], message: str):
    with pytest.raises(ProcessingError, match=message):
        pointer.point(SHAPES, PROMPT, **options)


def test_numbers_of_numpy_are_numbers(pointer: Pointer, result: PointingResult):
    options = {"max_points": np.int64(1), "min_score": np.float32(0.25), "max_new_tokens": np.int32(64)}
    found = pointer.point(SHAPES, PROMPT, **options)
    assert len(found) == 1 and found.points.xy[0].tolist() == result.points.xy[0].tolist()
    json.dumps(vars(AnswerOptions(**options)) | {"sampling": {}})


@pytest.mark.parametrize("number", [10**9, sys.maxsize, 10**30])
def test_no_limit_costs_no_memory(pointer: Pointer, result: PointingResult, number: int):
    """What is set aside for an answer once grew with its limit: 8 GB for 10**9 tokens."""
    found = pointer.point(SHAPES, PROMPT, max_new_tokens=number, max_points=number)
    np.testing.assert_array_equal(found.points.xy, result.points.xy)
    assert not found.truncated


@pytest.mark.parametrize("temperature", [1e-7, 1e-40, 1e-300])
def test_next_to_no_temperature_is_none(pointer: Pointer, result: PointingResult, temperature: float):
    found = pointer.point(SHAPES, PROMPT, temperature=temperature, max_new_tokens=64)
    assert found.raw_text == result.raw_text


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(3, 8, 8, device="meta"), "without values"),
        (torch.zeros(3, 8, 8).to_sparse(), "layout torch.sparse_coo"),
    ],
)
def test_tensors_without_pixels(pointer: Pointer, picture: torch.Tensor, message: str):
    with pytest.raises(ProcessingError, match=message):
        pointer.point(picture, PROMPT)


def test_an_empty_file_is_told_as_one(pointer: Pointer, tmp_path: Path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ProcessingError, match="an empty file"):
        pointer.point(tmp_path / "a.png", PROMPT)


def test_gray_multiplied_by_its_alpha(pointer: Pointer):
    gray = Image.new("LA", (20, 20), (100, 128))
    assert pointer.point(gray.convert("La"), PROMPT).image_sizes == ((20, 20),)


def test_a_clip_as_bytes_is_told_as_such(pointer: Pointer):
    with pytest.raises(ProcessingError, match="got bytes; write it to a file first"):
        pointer.point_video(b"\0\0\0\x1cftyp", PROMPT)


@pytest.mark.parametrize("max_crops", [0, "x", 2.5])
def test_crops_of_an_encoded_picture(pointer: Pointer, max_crops: Any):
    with pytest.raises(ProcessingError, match="max_crops to be a whole number of 1 or more"):
        pointer.encode(SHAPES, max_crops=max_crops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": "x"}, "a radius above 0"),
        ({"title": 3}, "the title as text"),
        ({"path": 3}, "the path of a file, got int"),
        ({"path": "a\0.png"}, "no disk can hold"),
    ],
)
def test_drawing_that_cannot_be(result: PointingResult, options: dict[str, Any], message: str):
    with pytest.raises(ProcessingError, match=message):
        result.draw(**options)


def test_points_by_number(result: Any):
    assert (
        result[0] == result.points[0] and result[-1] == list(result)[-1] and result[np.int64(0)] == result[0]
    )
    for number in (len(result), -len(result) - 1, "x", None, True, slice(0, 1)):
        with pytest.raises(GroundingError, match="the number of one of"):
            result[number]


def test_results_refuse_what_they_cannot_use(result: Any):
    for index in ("x", None, 1.0, True, 99):
        with pytest.raises(GroundingError, match="the index of one of"):
            result.heatmap(index)
    for largest in ("x", 0, -5):
        with pytest.raises(GroundingError, match="largest as a whole number"):
            result.heatmap(0, largest)
    assert result.heatmap(np.int64(0), 16).shape
    for score in ("x", float("nan"), 2, True):
        with pytest.raises(ProcessingError, match="min_score to be a number"):
            result.at_least(score)
    with pytest.raises(ProcessingError, match="the path of a file, got NoneType"):
        result.save(None)
    with pytest.raises(ProcessingError, match="names of the pictures as texts, got int"):
        result.to_coco(3)
    assert result.to_coco(Path("shapes.png")) == result.to_coco("shapes.png")


def test_a_picture_that_its_format_cannot_hold(pointer: Pointer, tmp_path: Path):
    found = pointer.point(Image.new("RGB", (1, 20_000)), PROMPT)
    with pytest.raises(ProcessingError, match="fits the format ICO"):
        found.save(tmp_path / "a.ico")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.int8}, "a dtype out of"),
        ({"attn_implementation": 3}, "attn_implementation as a name"),
        ({"device_map": {"": "nowhere"}}, "a device such as 'cpu'"),
    ],
)
def test_loading_that_cannot_be(options: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        molmopoint.load("nano", **options)


@pytest.mark.parametrize("device", ["mps", "xpu:0", "hpu"])
def test_a_device_that_this_torch_cannot_use_is_named(device: str):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(CheckpointError, match=f"got '{device}', which this torch cannot use"):
        molmopoint.load("nano", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_map_names_devices_that_are_here():
    with pytest.raises(CheckpointError, match="without a GPU"):
        molmopoint.load("nano", device_map={"": "cuda"})


@pytest.mark.parametrize("fps", [1e9, 1e300])
def test_filling_in_has_a_limit(fps: float):
    ends = np.array([1.0, 2.0])
    tracks = Tracks(object_id=np.array([1, 1]), time=np.array([0.0, 60.0]), x=ends, y=ends)
    with pytest.raises(MolmoPointError, match="at most 1,000,000 moments"):
        tracks.interpolated(fps)
    assert len(tracks.interpolated(30.0).time) == 1801
