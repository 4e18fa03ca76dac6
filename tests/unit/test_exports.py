"""Results in the forms of other tools; packages that are not installed are told."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
import types
import warnings

import numpy as np
import pytest
from made_results import result_of
from PIL import Image

from molmopoint.backends import exports
from molmopoint.errors import ProcessingError
from molmopoint.points import Points
from molmopoint.tracks import Tracks


def with_scores(result, scores):
    labels = ["the red cup", None][: len(result.points)]
    points = dataclasses.replace(result.points, score=np.array(scores, dtype=float), labels=labels)
    return dataclasses.replace(result, points=points)


@pytest.fixture
def two():
    return with_scores(result_of([[1, 0, 4], [2, 3, 4]]), [0.75, np.nan])


def test_csv_reads_back(two):
    rows = list(csv.DictReader(io.StringIO(exports.to_csv(two))))
    assert [float(row["x"]) for row in rows] == two.points.x.round(2).tolist()
    assert [row["score"] for row in rows] == ["0.75", ""] and [row["label"] for row in rows] == [
        "the red cup",
        "",
    ]
    formula = dataclasses.replace(two, points=dataclasses.replace(two.points, labels=["=1+1", None]))
    assert "'=1+1" in exports.to_csv(formula)


def test_pandas(two):
    pytest.importorskip("pandas")
    frame = two.to_pandas()
    assert list(frame.columns) == list(exports.CSV_COLUMNS) and frame["x"].tolist() == two.points.x.tolist()
    assert frame["label"].tolist() == ["the red cup", None] and len(result_of([]).to_pandas()) == 0


def test_supervision(two):
    supervision = pytest.importorskip("supervision")
    found = two.to_supervision()
    assert isinstance(found, supervision.KeyPoints) and found.xy.shape == (2, 1, 2)
    np.testing.assert_allclose(found.xy[:, 0], two.points.xy)
    assert found.data["object_id"].tolist() == [1, 2] and len(found[0:1].xy) == 1
    assert len(result_of([]).to_supervision().xy) == 0
    assert len(result_of([[4, 0, 4]], sizes=[(40, 20), (60, 30)], as_list=True).to_supervision()) == 2


def test_label_studio_is_in_percent_of_the_picture(two):
    (task,) = two.to_label_studio("/data/local-files/?d=a.png", label="cup")
    (prediction,) = task["predictions"]
    width, height = two.image_sizes[0]
    for region, point in zip(prediction["result"], two, strict=True):
        value = region["value"]
        assert (value["x"] * width / 100, value["y"] * height / 100) == pytest.approx(point.xy)
        assert (
            region["type"] == "keypointlabels"
            and region["original_width"] == width
            and region["image_rotation"] == 0
        )
    assert [region["value"]["keypointlabels"] for region in prediction["result"]] == [
        ["the red cup"],
        ["cup"],
    ]
    assert (
        prediction["result"][0]["score"] == 0.75
        and "score" not in prediction["result"][1]
        and prediction["score"] == 0.75
    )
    assert len({region["id"] for region in prediction["result"]}) == 2
    json.dumps(task, allow_nan=False)


def test_coco_names_every_picture_and_category(two):
    document = two.to_coco("a.png", label="cup")
    assert document["images"] == [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}]
    assert [category["name"] for category in document["categories"]] == ["the red cup", "cup"]
    assert document["annotations"][0]["keypoints"] == [*two.points.xy[0].round(2).tolist(), 2]
    several = result_of([[4, 0, 4]], sizes=[(40, 20), (60, 30)], as_list=True).to_coco(["a.png", "b.png"])
    assert several["annotations"][0]["image_id"] == 2 and len(several["images"]) == 2


def test_coco_of_a_clip_reads_back_as_tracks(tmp_path):
    result = result_of([[1, 0, 4], [7, 0, 4]], timestamps=[0.0, 0.5, 1.0])
    path = tmp_path / "clip.json"
    path.write_text(json.dumps(result.to_coco(label="cup")))
    tracks = Tracks.load(path)
    np.testing.assert_allclose(np.sort(tracks.x), np.sort(result.points.x))
    with pytest.raises(ProcessingError, match="clip"):
        result.to_label_studio("clip.mp4")


@pytest.mark.parametrize("names", [[], ["a.png", "b.png"]])
def test_one_name_per_picture(two, names):
    for export in (two.to_coco, two.to_label_studio):
        with pytest.raises(ProcessingError, match="each of 1 pictures"):
            export(names)


class Made:
    """Keeps what it was made with, as the labels of FiftyOne do."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


@pytest.fixture
def fiftyone(monkeypatch):
    """The real one where it is installed; else a stand-in that refuses what the real one would refuse to be
    named.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it is made of
            import fiftyone as installed  # pyright: ignore[reportMissingImports]
    except ImportError:
        installed = types.SimpleNamespace(Keypoint=Made, Keypoints=Made)
        monkeypatch.setitem(sys.modules, "fiftyone", installed)
    return installed


def test_fiftyone_is_in_shares_of_the_picture(two, fiftyone):
    first, second = two.to_fiftyone("cup").keypoints
    np.testing.assert_allclose(first.points, two.points.xy_normalized[:1])
    assert (
        first.label == "the red cup"
        and second.label == "cup"
        and list(first.confidence) == [0.75]
        and not second.confidence
    )
    frames = result_of([[1, 0, 4], [7, 0, 4]], timestamps=[0.0, 0.5, 1.0]).to_fiftyone()
    assert sorted(frames) == [1, 3] and all(len(found.keypoints) == 1 for found in frames.values())


def test_a_missing_package_is_named(two, monkeypatch):
    for name, export in (
        ("pandas", two.to_pandas),
        ("supervision", two.to_supervision),
        ("fiftyone", two.to_fiftyone),
    ):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
        with pytest.raises(ProcessingError, match=f"pip install {name}"):
            export()


def test_saving_follows_the_ending(two, tmp_path):
    assert two.save(tmp_path / "deep" / "a.png") == [tmp_path / "deep" / "a.png"]
    with Image.open(tmp_path / "deep" / "a.png") as drawn:
        assert drawn.size == (40, 20)
    two.save(tmp_path / "a.json")
    assert len(Points.from_dict(json.loads((tmp_path / "a.json").read_text())["points"])) == 2
    two.save(tmp_path / "a.CSV")
    assert (tmp_path / "a.CSV").read_text() == exports.to_csv(two)
    several = result_of([[4, 0, 4]], sizes=[(40, 20), (60, 30)], as_list=True)
    assert [path.name for path in several.save(tmp_path / "b.png")] == ["b-1.png", "b-2.png"]
    for name in ("a", "a.xyz", "a.txt"):
        with pytest.raises(ProcessingError, match="ends in"):
            two.save(tmp_path / name)
    with pytest.raises(ProcessingError, match="leave it out"):
        two.save(tmp_path / "a.csv", heatmap=True)


def test_a_page_shows_any_number_of_pictures(two):
    assert two._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
    assert max(exports.page_of(result_of([[1, 0, 4]], sizes=[(4000, 2000)])).size) <= 1600
    assert exports.page_of(result_of([], sizes=[(40, 20), (60, 300)], as_list=True)).height > 300
    assert exports.page_of(result_of([], timestamps=[0.0, 0.5])).width > 0


def test_words_are_drawn_inside_the_picture(two):
    plain = two.draw()
    assert (
        two.draw(labels=True).tobytes() != plain.tobytes()
        and two.draw(scores=True).tobytes() != plain.tobytes()
    )
    titled = two.draw(title="a title that is far too long for a picture of forty pixels")
    assert titled.width == plain.width and titled.height > plain.height
