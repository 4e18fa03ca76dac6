"""Segmenters from folders, and what is said where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_sam2 import points, tiny_sam2, tiny_sam2_processor
from transformers import Sam2Model, Sam2Processor

import molmopoint
from molmopoint.errors import CheckpointError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
POINTS = points((1, 0, 10, 10), (2, 0, 50, 30))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM 2 as it lies on the hub: for videos, with all weights."""
    path = tmp_path_factory.mktemp("sam2")
    tiny_sam2().save_pretrained(path)
    tiny_sam2_processor().save_pretrained(path)
    return path


def test_one_folder_serves_pictures_and_clips(folder):
    segmenter = molmopoint.load_segmenter(folder)
    found = segmenter.segment(PICTURE, POINTS)
    fresh = molmopoint.Segmenter(tiny_sam2(), tiny_sam2_processor())
    assert found.to_rle() == fresh.segment(PICTURE, POINTS).to_rle()
    clip = segmenter.follow(np.zeros((2, 40, 60, 3), np.uint8), points((1, 0.0, 5, 5)), timestamps=[0, 1])
    assert len(clip) == 2 and "Segmenter(" in repr(segmenter) and str(segmenter.device) in repr(segmenter)


def test_the_class_for_pictures_gives_the_same(folder, tmp_path):
    Sam2Model.from_pretrained(folder).save_pretrained(tmp_path)
    Sam2Processor.from_pretrained(folder).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2"
    segmenter = molmopoint.load_segmenter(str(tmp_path), dtype="float32")
    assert type(segmenter.model) is Sam2Model
    assert (
        segmenter.segment(PICTURE, POINTS).to_rle()
        == molmopoint.load_segmenter(folder).segment(PICTURE, POINTS).to_rle()
    )


def test_half_precision(folder):
    segmenter = molmopoint.load_segmenter(folder, dtype="bfloat16", device="cpu")
    assert "bfloat16" in repr(segmenter) and len(segmenter.segment(PICTURE, POINTS)) == 2
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    assert len(segmenter.follow(frames, points((1, 1.0, 5, 5)), timestamps=[0, 1, 2])) == 3


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="SAM 2"):
        molmopoint.load_segmenter(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"facebook/sam2\.1-hiera-large.*connection"):
        molmopoint.load_segmenter(local_files_only=True, cache_dir=tmp_path)


def test_a_model_of_another_kind(toy_folder, tmp_path):
    with pytest.raises(CheckpointError, match="SAM 2"):
        molmopoint.load_segmenter(toy_folder)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="'bert'"):
        molmopoint.load_segmenter(tmp_path)


def test_broken_and_missing_weights(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "mask_decoder" not in name},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CheckpointError, match=r"mask_decoder.*download"):
        molmopoint.load_segmenter(copy)
    (copy / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="SAM 2"):
        molmopoint.load_segmenter(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="SAM 2"):
        molmopoint.load_segmenter(copy)
