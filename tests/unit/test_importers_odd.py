"""Importers on files in which anything is of another type, size or encoding: read, left out, or refused by an error of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuzzing import SECONDS, attack, odd_json
from PIL import Image

from molmopoint.data.importers import Journal, import_records
from molmopoint.data.records import write_records

LENGTHS = [0, pytest.param(SECONDS, marks=pytest.mark.slow)]

COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 30, "neg_category_ids": [2], "not_exhaustive_category_ids": [2]},
        {"id": 2, "file_name": "b.png"},
    ],
    "categories": [
        {"id": 1, "name": "cup", "supercategory": "thing", "keypoints": ["rim", "ear"], "skeleton": [[1, 2]]},
        {"id": 2, "name": "plate", "supercategory": "thing"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 8], "iscrowd": 0, "keypoints": [5, 6, 2, 7, 8, 1], "area": 80},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]], "bbox": [1, 1, 8, 8]},
        {"id": 3, "image_id": 2, "category_id": 2, "segmentation": {"size": [4, 5], "counts": [3, 5, 12]}, "iscrowd": 0},
        {"id": 4, "image_id": 2, "category_id": 1, "segmentation": {"size": [3, 3], "counts": "333"}, "iscrowd": 1},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures that the documents name."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    return tmp_path


def imported(format: str, source: Path, **options: Any) -> None:
    """Imports and writes the rows, as the command line does."""
    records = import_records(format, source, journal=(journal := Journal()), **options)
    write_records(source.with_suffix(".out.jsonl"), records)
    assert all(isinstance(line, str) for line in journal.lines())


@pytest.mark.parametrize("target", ["object", "keypoints"])
@pytest.mark.parametrize("seconds", LENGTHS)
def test_coco(folder, target, seconds):
    def read(data: bytes) -> None:
        (folder / "coco.json").write_bytes(data)
        imported("coco", folder / "coco.json", target=target, crowd="object")

    counts = attack(odd_json(COCO), read, examples=120, seconds=seconds)
    assert counts["read"] > 30 and counts["refused"] > 10
