"""Importers on tiny files of each format, written here."""

from __future__ import annotations

import base64
import io
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molmopoint.data.importers import FORMATS, format_options, import_records, reader_of
from molmopoint.data.importers.label_studio_regions import decode_brush
from molmopoint.data.importers.shapes import decode_counts
from molmopoint.data.records import read_records, write_records
from molmopoint.errors import ProcessingError
from molmopoint.training.rules import GUI_SOURCE

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def run(format, source, **options):
    """Records by label or prompt, and what was left out; without rows about absent classes unless asked for."""
    skipped = []
    if "negatives" in format_options(format):
        options = {"negatives": 0, **options}
    records = list(import_records(format, source, on_skip=skipped.append, **options))
    return {record.prompt or record.label: record for record in records}, skipped


def places(record):
    return [(point.x, point.y) for point in record.points]


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def coco(tmp_path, annotations, **category):
    document = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 100, "height": 80},
            {"id": 8, "file_name": "b.png"},
        ],
        "categories": [{"id": 1, "name": "cup", **category}, {"id": 2, "name": "plate"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 1, **entry} for i, entry in enumerate(annotations)
        ],
    }
    return save(tmp_path / "coco.json", document)


def test_coco_boxes_masks_and_runs(tmp_path):
    counts = [4 * 80 + 10, 20, 60, 20, 60, 20, 80 * 100 - 4 * 80 - 10 - 180]  # columns 4 to 6, rows 10 to 29
    path = coco(
        tmp_path,
        [
            {"bbox": [0, 10, 20, 40]},
            {"bbox": [0, 0, 90, 70], "segmentation": [SQUARE]},
            {"bbox": [4, 10, 3, 20], "segmentation": {"size": [80, 100], "counts": counts}},
            {"bbox": [1, 1, 4, 4], "category_id": 2},
        ],
    )
    records, skipped = run("coco", path, images=tmp_path / "pictures")
    assert not skipped and set(records) == {"cup", "plate"}
    assert (
        records["cup"].images == (str(tmp_path / "pictures" / "a.png"),) and records["cup"].coords == "pixel"
    )
    assert places(records["cup"])[:2] == [(10, 30), (20, 20)]
    x, y = places(records["cup"])[2]
    assert x == 5.5 and 11 <= y <= 29
    assert places(run("coco", path, target="box", images=tmp_path)[0]["plate"]) == [(3, 3)]


def test_coco_keypoints(tmp_path):
    path = coco(
        tmp_path, [{"keypoints": [5, 6, 2, 0, 0, 0, 9, 9, 1]}], keypoints=["left_eye", "nose", "tail"]
    )
    records, _ = run("coco", path, target="keypoints")
    assert set(records) == {"left eye of the cup"} and places(records["left eye of the cup"]) == [(5, 6)]


def test_coco_leaves_out_what_would_be_incomplete(tmp_path):
    path = coco(
        tmp_path,
        [{"bbox": [0, 0, 4, 4]}, {"iscrowd": 1, "segmentation": {}}, {"image_id": 99, "bbox": [0, 0, 1, 1]}],
    )
    records, skipped = run("coco", path)
    assert not records and "crowd" in skipped[0] and "99" in skipped[1]
    records, skipped = run(
        "coco",
        coco(tmp_path, [{"segmentation": [[1, 1, 5, 5, 9, 9]]}, {"category_id": 2, "bbox": [0, 0, 2, 2]}]),
    )
    assert set(records) == {"plate"} and "area" in skipped[0]


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_coco_text_masks(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff(np.array([0, *edges.tolist(), flat.size])).tolist()
    counts = [0, *counts] if flat[0] else counts
    assert (decode_counts(counts, height, width) == mask).all()
    assert (decode_counts(_as_text(counts), height, width) == mask).all()


def _as_text(counts):
    """COCO's text of run lengths, written from its description."""
    text = ""
    for i, count in enumerate(counts):
        value, more = count - counts[i - 2] if i > 2 else count, True
        while more:
            bits, value = value & 0x1F, value >> 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def test_coco_text_of_a_known_mask():
    """By hand: a 3 x 3 picture whose middle column is set."""
    assert decode_counts("333", 3, 3).tolist() == [[False, True, False]] * 3
    with pytest.raises(ProcessingError, match="pixels"):
        decode_counts("333", 3, 4)


def test_label_studio(tmp_path):
    def result(kind, value, **fields):
        return {
            "type": kind,
            "original_width": 200,
            "original_height": 100,
            "value": {**value, kind: ["cup"]},
            **fields,
        }

    shapes = [
        result("rectanglelabels", {"x": 10, "y": 20, "width": 20, "height": 40, "rotation": 0}),
        result("rectanglelabels", {"x": 50, "y": 50, "width": 10, "height": 20, "rotation": 90}),
        result("keypointlabels", {"x": 5, "y": 6, "width": 1}),
        result("ellipselabels", {"x": 30, "y": 40, "radiusX": 3, "radiusY": 4}),
        result("polygonlabels", {"points": [[0, 0], [20, 0], [20, 20], [0, 20]]}),
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/upload/3/a%20b.png"},
            "annotations": [{"was_cancelled": True}, {"result": shapes}],
        },
        {
            "id": 2,
            "data": {"image": "/data/local-files/?d=set/c.png"},
            "annotations": [{"result": [shapes[2] | {"image_rotation": 90}]}],
        },
        {"id": 3, "data": {"image": "d.png"}, "annotations": []},
    ]
    records, skipped = run("label_studio", save(tmp_path / "export.json", tasks), images=tmp_path / "media")
    assert (
        records["cup"].images == (str(tmp_path / "media" / "a b.png"),) and records["cup"].coords == "percent"
    )
    # The second box turns a quarter about its corner (100, 50) px: its middle, (10, 10) px away, goes to
    # (-10, 10) px.
    assert np.allclose(places(records["cup"]), [(20, 40), (45, 60), (5, 6), (30, 40), (10, 10)])
    assert "nobody" in skipped[0] and "set/c.png" in skipped[1] and "turned" in skipped[1]


def brush_bytes(blocks, total):
    """Run lengths as Label Studio writes them: values of 8 bits, counts of 3, 4, 8 and 16 bits; blocks are
    (width, values).
    """
    widths = (3, 4, 8, 16)
    bits = f"{total:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in widths)
    for width, values in blocks:
        is_run = len(set(values)) == 1
        bits += f"{is_run:b}{widths.index(width):02b}{len(values) - 1:0{width}b}"
        bits += "".join(f"{value:08b}" for value in (values[:1] if is_run else values))
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_label_studio_brush(tmp_path):
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[2:9, 5:12] = 255
    flat = np.repeat(mask.reshape(-1), 4).tolist()
    cuts = [0, 3, 11, 160, 700, 800]
    blocks = [
        (next(w for w in (3, 4, 8, 16) if b - a <= 2**w), flat[a:b]) for a, b in itertools.pairwise(cuts)
    ]
    assert (decode_brush(brush_bytes(blocks, 800), 20, 10) == (mask > 0)).all()
    result = {"type": "brushlabels", "original_width": 20, "original_height": 10}
    result["value"] = {"format": "rle", "rle": brush_bytes(blocks, 800), "brushlabels": ["cup"]}
    tasks = [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [result]}]}]
    records, _ = run("label_studio", save(tmp_path / "export.json", tasks))
    assert np.allclose(places(records["cup"]), [(100 * 8.5 / 20, 100 * 5.5 / 10)])
    for broken in (brush_bytes(blocks, 800)[:20], brush_bytes(blocks, 804), [999]):
        with pytest.raises(ProcessingError, match="rle: expected"):
            decode_brush(broken, 20, 10)


def test_labelme(tmp_path):
    mask = np.zeros((9, 7), dtype=np.uint8)
    mask[2:7, 1:6] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    shapes = [
        {"label": "cup", "shape_type": "polygon", "points": [[10, 10], [30, 10], [30, 30], [10, 30]]},
        {"label": "cup", "shape_type": "rectangle", "points": [[40, 60], [20, 20]]},
        {"label": "cup", "shape_type": "circle", "points": [[7, 8], [9, 8]]},
        {"label": "cup", "shape_type": "point", "points": [[1.5, 2.5]]},
        {
            "label": "cup",
            "shape_type": "mask",
            "points": [[50, 40], [56, 48]],
            "mask": base64.b64encode(buffer.getvalue()).decode(),
        },
        {"label": "crack", "shape_type": "linestrip", "points": [[1, 1], [2, 2]]},
    ]
    save(
        tmp_path / "set" / "a.json", {"imagePath": "..\\pictures\\a.png", "shapes": shapes, "imageData": None}
    )
    save(tmp_path / "set" / "b.json", {"imagePath": "b.png", "shapes": []})
    records, skipped = run("labelme", tmp_path / "set")
    assert places(records["cup"]) == [(20, 20), (30, 40), (7, 8), (1.5, 2.5), (53.5, 44.5)]
    assert records["cup"].images[0].endswith("set/../pictures/a.png") and "linestrip" in skipped[0]


CVAT = """<annotations><version>1.1</version><meta/><image id="0" name="s/a.png" width="100" height="80">
<box label="cup" xtl="10" ytl="20" xbr="30" ybr="60" rotation="30"/>
<polygon label="cup" points="10,10;30,10;30,30;10,30"/><points label="cup" points="1,2;3,4"/>
<ellipse label="cup" cx="5" cy="6" rx="1" ry="1"/>
<mask label="cup" rle="5, 3, 2, 3, 2, 3, 7" left="40" top="50" width="5" height="5"/>
<polyline label="line" points="1,1;2,2"/><tag label="indoor"/></image></annotations>"""


def test_cvat(tmp_path):
    records, skipped = run("cvat", save(tmp_path / "annotations.xml", CVAT))
    assert places(records["cup"]) == [(20, 40), (20, 20), (1, 2), (3, 4), (5, 6), (41.5, 52.5)]
    assert records["cup"].images == (str(tmp_path / "images" / "s" / "a.png"),)
    assert len(skipped) == 1 and "polyline" in skipped[0]


CVAT_CLIP = """<annotations><version>1.1</version><meta><task><size>6</size><mode>interpolation</mode><start_frame>10</start_frame>
<frame_filter>step=5</frame_filter><source>pond.mp4</source></task></meta>
<track id="0" label="duck" source="manual">
<box frame="10" keyframe="1" outside="0" occluded="0" xtl="10" ytl="20" xbr="30" ybr="60" z_order="0"/>
<box frame="15" keyframe="0" outside="0" occluded="1" xtl="10" ytl="22" xbr="30" ybr="62" z_order="0"/>
<box frame="20" keyframe="1" outside="1" occluded="0" xtl="10" ytl="20" xbr="30" ybr="60" z_order="0"/></track>
<track id="3" label="duck"><points frame="15" outside="0" occluded="0" points="5,6"/></track>
<track id="4" label="rope"><polyline frame="15" outside="0" occluded="0" points="5,6;7,8"/></track></annotations>"""


def test_cvat_tracks(tmp_path):
    """Frames are those of the clip, whichever of them the task shows; occluded is partly hidden, outside is
    gone.
    """
    path = save(tmp_path / "annotations.xml", CVAT_CLIP)
    records, skipped = run("cvat", path, fps=10)
    duck = records["duck"]
    assert (duck.video, duck.style, duck.coords) == (str(tmp_path / "pond.mp4"), "track", "pixel")
    tracks = [(point.t, point.object_id, point.x, point.y) for point in duck.points or ()]
    assert tracks == [(1.0, 0, 20, 40), (1.5, 0, 20, 42), (1.5, 3, 5, 6)]
    assert set(records) == {"duck"} and any(
        "rope" in sentence and "polyline" in sentence for sentence in skipped
    )
    with pytest.raises(
        ProcessingError,
        match=r"expected the option fps, frames per second of the clip of annotations\.xml, got None",
    ):
        run("cvat", path)
    with pytest.raises(ProcessingError, match="<source>"):
        run(
            "cvat",
            save(tmp_path / "bare.xml", "<annotations><track id='0' label='cup'/></annotations>"),
            fps=10.5,
        )


@pytest.mark.parametrize("train", ["../train/images", "train/images", ["train/images"], "list.txt"])
def test_yolo(tmp_path, train):
    # JSON is YAML.
    save(tmp_path / "data.yaml", json.dumps({"train": train, "nc": 2, "names": ["cup", "plate"]}))
    save(tmp_path / "list.txt", "train/images/a.jpg\ntrain/images/b.jpg\ntrain/images/c.jpg\n")
    for name in "abc":
        save(tmp_path / "train" / "images" / f"{name}.jpg", "")
    save(
        tmp_path / "train" / "labels" / "a.txt",
        "0 0.5 0.25 0.1 0.1\n0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3\n\n1 0.2 0.3 0.1 0.1\n",
    )
    save(tmp_path / "train" / "labels" / "b.txt", "")
    records, skipped = run("yolo", tmp_path)
    assert set(records) == {"cup", "plate"} and records["cup"].coords == "norm1"
    assert np.allclose(places(records["cup"]), [(0.5, 0.25), (0.2, 0.2)])
    assert len(skipped) == 1 and "c.jpg" in skipped[0]


def test_yolo_names_by_number_poses_and_faults(tmp_path):
    save(tmp_path / "data.yaml", "path: .\nval: images\nkpt_shape: [2, 3]\nnames:\n  3: cup\n")
    save(tmp_path / "images" / "a.png", "")
    label = save(tmp_path / "labels" / "a.txt", "3 0.5 0.25 0.1 0.1 0.4 0.4 2 0.6 0.6 0\n")
    assert places(run("yolo", tmp_path / "data.yaml", split="val")[0]["cup"]) == [(0.5, 0.25)]
    points = run("yolo", tmp_path, split="val", target="keypoints")[0]
    assert {label: places(record) for label, record in points.items()} == {
        "keypoint 1 of the cup": [(0.4, 0.4)]
    }
    save(
        tmp_path / "data.yaml",
        "path: .\nval: images\nkpt_shape: [2, 2]\nkpt_names: {3: [left_eye, nose]}\nnames:\n  3: cup\n",
    )
    save(label, "3 0.5 0.25 0.1 0.1 0.4 0.4 0 0\n")
    assert set(run("yolo", tmp_path, split="val", target="keypoints")[0]) == {"left eye of the cup"}
    save(label, "3 0.5 0.25 0.1 0.1 0.4 0.4\n")
    records, skipped = run("yolo", tmp_path, split="val", target="keypoints")
    assert not records and "expected 2 keypoints of 2 numbers behind the box, got 2" in skipped[0]
    with pytest.raises(ProcessingError, match="split"):
        run("yolo", tmp_path)
    save(label, "0 0.5 0.25 0.1 0.1\n3 0.5 0.25 0.1 0.1 0.4 0.4 0 0\n")
    records, skipped = run("yolo", tmp_path, split="val")
    assert (
        set(records) == {"cup"}
        and len(skipped) == 1
        and "a.txt, line 1: expected a class among 3..3, got 0" in skipped[0]
    )


def test_pixmo_points(tmp_path):
    save(tmp_path / "images" / "aa.jpg", "")
    rows = [
        {
            "image_sha256": "aa",
            "image_url": "http://x",
            "label": "cups",
            "points": [{"x": 1.5, "y": 99.0}],
            "count": 1,
        },
        {"image_sha256": "aa", "label": "dogs", "points": [], "count": 0},
        {"image_sha256": "bb", "label": "cats", "points": [{"x": 1, "y": 1}]},
    ]
    records, skipped = run("pixmo_points", rows, images=tmp_path / "images")
    assert (
        places(records["cups"]) == [(1.5, 99.0)]
        and records["cups"].coords == "percent"
        and records["dogs"].no_points
    )
    assert len(skipped) == 1 and "bb" in skipped[0]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert run("pixmo_points", path, images=tmp_path / "images")[0] == records
    with pytest.raises(ProcessingError, match="folder"):
        run("pixmo_points", rows, images=tmp_path / "gone")


def test_screenspot(tmp_path):
    items = [
        {"img_filename": "a.png", "bbox": [10, 20, 30, 60], "instruction": "close"},
        {"image": "b.png", "box_type": "polygon", "box_coordinates": SQUARE, "instruction": "open"},
        {"image": "b.png", "box_type": "refusal", "box_coordinates": [-1, -1, -1, -1], "instruction": "fly"},
    ]
    save(tmp_path / "annotations" / "one.json", items)
    corners, _ = run("screenspot", tmp_path / "annotations", box="xyxy")
    sizes, _ = run("screenspot", tmp_path / "annotations", box="xywh")
    assert places(corners["close"]) == [(20, 40)] and places(sizes["close"]) == [(25, 50)]
    assert places(corners["open"]) == [(20, 20)] and corners["fly"].no_points
    assert corners["close"].images == (str(tmp_path / "images" / "a.png"),)
    with pytest.raises(ProcessingError, match=r"'box'.*cannot be guessed"):
        run("screenspot", tmp_path / "annotations")
    path = save(
        tmp_path / "bad.json", [{"img_filename": "a.png", "bbox": [10, 20, 3, 6], "instruction": "close"}]
    )
    records, skipped = run("screenspot", path, box="xyxy")
    assert not records and "'xywh'" in skipped[0]


def test_guisyn(tmp_path):
    def element(i, **fields):
        return {"x_center": i, "y_center": 2 * i, "width": 4, "height": 4, **fields}

    elements = [element(i, name=f"name {i}", intent=[f"do {i}", f"make {i}"]) for i in range(200)]
    extra = [
        element(500, name="", intent=["only intent"]),
        element(501, name="Only Name", intent=[]),
        element(502, name=None, intent=None),
    ]
    row = {"id": "s1", "image": "s1.png", "annotation": json.dumps(elements + extra)}
    records, skipped = run("guisyn", [row], images=tmp_path)
    assert len(skipped) == 1 and "502" not in skipped[0] and "element 202" in skipped[0]
    assert records["name 7"].prompts == ("do 7", "make 7") and records[None].prompts == ("only intent",)
    assert records["Only Name"].prompts == () and places(records["Only Name"]) == [(501, 1002)]
    assert {(record.style, record.source) for record in records.values()} == {("pointing", GUI_SOURCE)}
    columns = {key: [entry.get(key) for entry in elements] for key in elements[0]}
    again, _ = run("guisyn", [{"id": "s1", "image": None, "annotation": columns}], images=tmp_path)
    assert set(again) == set(records) - {None, "Only Name"}
    assert {record.images for record in again.values()} == {(str(tmp_path / "s1.png"),)}


def test_records_survive_the_file(tmp_path):
    records, _ = run("cvat", save(tmp_path / "annotations.xml", CVAT))
    write_records(tmp_path / "data.jsonl", records.values())
    assert list(read_records(tmp_path / "data.jsonl")) == list(records.values())


def test_the_registry():
    assert all(reader_of(format).__name__ == f"read_{format}" for format in FORMATS)
    assert format_options("screenspot") == {"box": True, "images": False, "coords": False}
    with pytest.raises(ProcessingError, match="coco, cosyn_point, cvat"):
        import_records("via3", "x")
    with pytest.raises(ProcessingError, match="'splt'"):
        import_records("yolo", "x", splt="train")


@pytest.mark.parametrize(
    "format", ["coco", "cvat", "label_studio", "labelme", "screenspot", "guisyn", "pixmo_points", "yolo"]
)
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        "{}",
        "null",
        "<a/>",
        '{"images": [1], "categories": [], "annotations": []}',
        "\x00\x01",
    ],
)
def test_other_files_are_refused_or_left_out(tmp_path, format, content):
    path = save(tmp_path / ("annotations" + {"cvat": ".xml", "yolo": ".yaml"}.get(format, ".json")), content)
    options = (
        {"box": "xyxy"}
        if format == "screenspot"
        else {"images": tmp_path}
        if format in ("guisyn", "pixmo_points")
        else {}
    )
    try:
        records, skipped = run(format, path, **options)
    except ProcessingError:
        pass
    else:
        assert not records and skipped
    with pytest.raises(ProcessingError):
        run(format, tmp_path / "gone.json", **options)
