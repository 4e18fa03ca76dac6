"""Hugging Face data sets with pictures inside: read without decoding, grouped by content, checked, formatted,
and sent to workers.
"""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image
from toy_processor import picture, toy_processor

from molmopoint.backends.molmopoint import GroundingWriter
from molmopoint.data.checking import check_records, parsed_rows
from molmopoint.data.contact_sheet import contact_sheet
from molmopoint.data.embedded import StoredBytes
from molmopoint.data.records import EmbeddedPicture, parse_record, read_records, resolve_media, write_records
from molmopoint.errors import ProcessingError
from molmopoint.processing.rows import Row
from molmopoint.training.trees import format_tree, group_records, media_of, tree_row

datasets = pytest.importorskip("datasets")


def png(seed, exif=None):
    buffer = io.BytesIO()
    picture(60, 90, seed).save(buffer, format="PNG", **({} if exif is None else {"exif": exif}))
    return buffer.getvalue()


def columns():
    """Three rows on two pictures, the third one without points."""
    point = {"x": 10.0, "y": 20.0}
    return {
        "image": [
            {"bytes": png(0), "path": "a.png"},
            {"bytes": png(0), "path": "copy.png"},
            {"bytes": png(1), "path": None},
        ],
        "label": ["cups", "dogs", "cats"],
        "points": [[point], [point, {"x": 30.0, "y": 5.0}], []],
        "coords": ["pixel", "pixel", None],
        "no_points": [None, None, True],
    }


@pytest.fixture
def data_set():
    return datasets.Dataset.from_dict(columns()).cast_column("image", datasets.Image())


@pytest.fixture(params=["memory", "folder", "splits", "parquet", "dicts", "pil"])
def source(request, data_set, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "saved"
    if request.param == "folder":
        data_set.save_to_disk(path)
    if request.param == "splits":
        datasets.DatasetDict({"train": data_set, "other": data_set}).save_to_disk(path)
    if request.param == "parquet":
        path = tmp_path / "rows.parquet"
        data_set.to_parquet(path)
    if request.param == "dicts":
        return [dict(zip(columns(), values, strict=True)) for values in zip(*columns().values(), strict=True)]
    return {"memory": data_set, "pil": list(data_set)}.get(request.param, path)


def test_rows_with_pictures_inside_work_to_the_end(source, tmp_path):
    records = list(read_records(source))
    assert [record.label for record in records] == ["cups", "dogs", "cats"]
    assert all(isinstance(record.images[0], EmbeddedPicture) for record in records)
    groups = group_records(records)
    assert [[record.label for record in group] for group in groups] == [["cups", "dogs"], ["cats"]]
    assert groups == pickle.loads(pickle.dumps(groups))
    report = check_records(parsed_rows(source), tmp_path)
    assert report.ok and report.pictures == 2 and report.points == 3
    assert contact_sheet(records, tmp_path).size[0] > 1000
    processor = toy_processor()
    pictures, clip = resolve_media(groups[0][0], tmp_path)
    assert clip is None and pictures[0].size == (90, 60)
    inputs = processor(
        text=[processor.chat.media_text(*media_of(groups[0][0]))],
        images=list(pictures),
        return_pointing_metadata=True,
        return_tensors="pt",
    )
    made = format_tree(groups[0], GroundingWriter(inputs["pointing_metadata"][0]), np.random.default_rng(0))
    row = tree_row(Row.from_processor(inputs), made, processor.chat)
    assert row.pixel_values is not None and int(row.branch_ids.max()) == 1


def test_bytes_stay_in_the_data_set(data_set):
    shuffled = data_set.shuffle(seed=3)
    for record, values in zip(read_records(shuffled), shuffled, strict=True):
        (image,) = record.images
        assert isinstance(image.source, StoredBytes) and image.digest in record.media
        assert np.array_equal(np.asarray(image.open()), np.asarray(values["image"]))
    # The table once, no pictures beside it.
    assert len(pickle.dumps(list(read_records(data_set)))) < 3 * len(png(0)) + 20_000


def test_several_pictures_in_a_row():
    rows = {
        "images": [[{"bytes": png(0), "path": None}, {"bytes": png(1), "path": None}]],
        "prompt": ["Same?"],
        "answer": ["No."],
    }
    feature = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "prompt": datasets.Value("string"),
            "answer": datasets.Value("string"),
        }
    )
    (record,) = read_records(datasets.Dataset.from_dict(rows, features=feature))
    first, second = resolve_media(record, ".")[0]
    assert np.array_equal(np.asarray(second), np.asarray(picture(60, 90, 1))) and not np.array_equal(
        np.asarray(first), np.asarray(second)
    )


def test_orientation_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, turned = (
        {"image": Image.open(io.BytesIO(png(0, e))), "label": "x", "no_points": True} for e in (None, exif)
    )
    records = list(read_records([upright, turned]))
    assert len(group_records(records)) == 2
    far = {
        "image": {"bytes": png(0, exif), "path": "t.png"},
        "label": "x",
        "points": [{"x": 80, "y": 10}],
        "coords": "pixel",
    }
    assert [fault.kind for fault in check_records(parsed_rows([far]), tmp_path).faults] == ["exif_rotated"]


def test_what_is_wrong_is_said(tmp_path, data_set):
    broken = parse_record(
        {"image": {"bytes": b"no picture", "path": "b.png"}, "label": "x", "no_points": True}, 4
    )
    with pytest.raises(ProcessingError, match=r"row 4, image: expected a picture in the bytes of b\.png"):
        resolve_media(broken, tmp_path)
    assert [fault.kind for fault in check_records([broken], tmp_path).faults] == ["unreadable_picture"]
    with pytest.raises(
        ProcessingError,
        match="row 4, image: expected the path of a file, got an embedded picture; save the picture",
    ):
        write_records(tmp_path / "out.jsonl", [broken])
    datasets.DatasetDict({"a": data_set, "b": data_set}).save_to_disk(tmp_path / "parts")
    with pytest.raises(
        ProcessingError, match=r"expected a split among a, b in .*parts, got None; name one with split"
    ):
        list(read_records(tmp_path / "parts"))
    assert len(list(read_records(tmp_path / "parts", split="b"))) == 3
    with pytest.raises(
        ProcessingError, match=r"expected a JSONL or parquet file, a saved data set or .* got .*gone\.parquet"
    ):
        list(read_records(tmp_path / "gone.parquet"))
