"""CVAT, LabelMe and Label Studio files in which anything is of another type, size or encoding: read, left
out, or refused.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from fuzzing import SECONDS, attack, odd_json, odd_xml
from PIL import Image

from molmopoint.data.importers import Journal, import_records
from molmopoint.data.records import write_records

LENGTHS = [0, pytest.param(SECONDS, marks=pytest.mark.slow)]

IMAGES = """<annotations><version>1.1</version><meta><project><tasks><task><id>5</id><subset>Train</subset></task></tasks>
<labels><label><name>cup</name><type>any</type></label><label><name>person</name><type>skeleton</type></label>
<label><name>left_eye</name><type>points</type><parent>person</parent></label></labels></project></meta>
<image id="0" name="a.png" subset="Train" task_id="5" width="40" height="30">
<box label="cup" occluded="0" xtl="1.00" ytl="2.00" xbr="11.00" ybr="12.00" rotation="30.00" group_id="1"/>
<polygon label="cup" points="1.00,1.00;9.00,1.00;9.00,9.00" group_id="1"/>
<ellipse label="plate" cx="5.0" cy="6.0" rx="2.0" ry="3.0" rotation="20"/><points label="plate" points="1,2;3,4"/>
<mask label="plate" rle="5, 3, 2, 3, 2, 3, 7" left="4" top="5" width="5" height="5"/><tag label="indoor"/>
<cuboid label="box" xtl1="1" ytl1="1" xbl1="1" ybl1="9" xtr1="9" ytr1="1" xbr1="9" ybr1="9" xtl2="3" ytl2="3" xbl2="3" ybl2="12"
 xtr2="12" ytr2="3" xbr2="12" ybr2="12"/><polyline label="line" points="1,1;2,2"/>
<skeleton label="person"><points label="left_eye" outside="0" occluded="1" points="3,4"/><attribute name="age">3</attribute></skeleton>
</image><image id="1" name="frame_000001" width="40" height="30"/></annotations>"""

TRACKS = """<annotations><meta><task><id>5</id><start_frame>2</start_frame><frame_filter>step=5</frame_filter>
<original_size><width>40</width><height>30</height></original_size><source>pond.mp4</source></task></meta>
<track id="0" label="duck" group_id="1"><box frame="0" outside="0" occluded="1" xtl="1" ytl="2" xbr="3" ybr="6"/>
<box frame="1" outside="1" xtl="1" ytl="2" xbr="3" ybr="6"/></track>
<track id="3" label="duck" group_id="1" task_id="5"><polygon frame="0" outside="0" points="5,6;9,6;9,9"/></track>
<track id="4" label="person">
<skeleton frame="7"><points label="nose" outside="0" occluded="0" points="3,4"/></skeleton></track></annotations>"""


def embedded(mode: str) -> str:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4), (255,) * len(mode)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _shape(kind: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"label": "cup", "points": points, "group_id": 1, "shape_type": kind, "flags": {}, **more}


LABELME: dict[str, Any] = {
    "version": "5.5.0",
    "imagePath": "a.png",
    "imageData": None,
    "imageWidth": 80,
    "imageHeight": 60,
    "shapes": [
        _shape("polygon", [[1, 1], [9, 1], [9, 9]]),
        _shape("rectangle", [[1, 1], [9, 9]]),
        _shape("oriented_rectangle", [[5, 1], [9, 5], [5, 9], [1, 5]]),
        _shape("circle", [[5, 5], [9, 5]]),
        _shape("point", [[3, 4]]),
        _shape("mask", [[10, 10], [14, 13]], mask=embedded("L")),
        _shape("line", [[1, 1], [9, 9]], label="crack"),
    ],
}


def _region(kind: str, value: dict[str, Any], number: int, **more: Any) -> dict[str, Any]:
    sizes = {"original_width": 80, "original_height": 60, "image_rotation": 0}
    return {
        **sizes,
        "id": f"r{number}",
        "to_name": "image",
        "type": kind,
        "value": {**value, kind: ["cup", "mug"]},
        **more,
    }


BRUSH = [0, 0, 0, 80, 56, 73, 255, 255, 143, 255, 192, 0, 128]
KEYS = [
    {"frame": n, "enabled": True, "rotation": 0, "x": 10, "y": 10, "width": 5, "height": 5, "time": n / 25}
    for n in (1, 5)
]

LABEL_STUDIO: list[Any] = [
    {
        "id": 1,
        "data": {"image": "s3://bucket/a.png"},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {
                "ground_truth": True,
                "result": [
                    _region(
                        "rectanglelabels", {"x": 1, "y": 2, "width": 10, "height": 20, "rotation": 30}, 1
                    ),
                    _region("keypointlabels", {"x": 5, "y": 6, "width": 1}, 2),
                    _region("ellipselabels", {"x": 30, "y": 40, "radiusX": 3, "radiusY": 4}, 3),
                    _region("polygonlabels", {"points": [[0, 0], [20, 0], [20, 20]]}, 4),
                    _region(
                        "brushlabels", {"format": "rle", "rle": BRUSH}, 5, original_width=5, original_height=4
                    ),
                    _region("bitmasklabels", {"imageDataURL": "data:image/png;base64," + embedded("LA")}, 6),
                    _region(
                        "vectorlabels",
                        {"vertices": [{"x": x, "y": y} for x, y in ((0, 0), (9, 0), (9, 9))], "closed": True},
                        7,
                    ),
                    {"id": "r8", "type": "choices", "value": {"choices": ["good"]}},
                    {"type": "relation", "from_id": "r1", "to_id": "r2"},
                ],
            },
        ],
    },
    {
        "id": 2,
        "data": {"views": ["a.png", "b.png"]},
        "completions": [{"result": [_region("keypointlabels", {"x": 5, "y": 6}, 1, item_index=1)]}],
    },
    {
        "id": 3,
        "data": {"video": "/data/local-files/?d=pond.mp4"},
        "annotations": [
            {
                "result": [
                    {
                        "id": "q",
                        "type": "videorectangle",
                        "value": {"framesCount": 9, "duration": 1, "sequence": KEYS, "labels": ["duck"]},
                    }
                ]
            }
        ],
    },
    {
        "image": "b.png",
        "id": 4,
        "annotation_id": 3,
        "label": [{"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["cup"], "original_width": 9}],
    },
    {
        "id": 9,
        "result": [_region("keypointlabels", {"x": 5, "y": 6}, 1)],
        "task": {"id": 5, "data": {"image": "/data/upload/1/4f3a1c2b-b.png"}},
    },
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures that the documents name."""
    for name in ("a.png", "b.png", "images/Train/a.png", "images/frame_000001.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    return tmp_path


def imported(format: str, source: Path, **options: Any) -> Journal:
    """Imports and writes the rows, as the command line does."""
    journal = Journal()
    write_records(
        source.with_suffix(".out.jsonl"), import_records(format, source, journal=journal, **options)
    )
    assert all(isinstance(line, str) for line in journal.lines())
    return journal


@pytest.mark.parametrize("text", [IMAGES, TRACKS])
@pytest.mark.parametrize("seconds", LENGTHS)
def test_cvat(folder, text, seconds):
    path = folder / "annotations.xml"
    path.write_text(text)
    assert dict(imported("cvat", path, fps=25).left_out) in ({}, {"objects without a place": 1})

    def read(data: bytes) -> None:
        path.write_bytes(data)
        imported("cvat", path, fps=25, keypoints="labelled")

    counts = attack(odd_xml(text), read, examples=80, seconds=seconds)
    assert counts["read"] > 20 and counts["refused"] > 5


@pytest.mark.parametrize("seconds", LENGTHS)
def test_labelme(folder, seconds):
    def read(data: bytes) -> None:
        (folder / "a.json").write_bytes(data)
        imported("labelme", folder / "a.json")

    counts = attack(odd_json(LABELME), read, examples=80, seconds=seconds)
    assert counts["read"] > 20 and counts["refused"] > 5


@pytest.mark.parametrize("seconds", LENGTHS)
def test_label_studio(folder, seconds):
    def read(data: bytes) -> None:
        (folder / "export.json").write_bytes(data)
        imported("label_studio", folder / "export.json")

    counts = attack(odd_json(LABEL_STUDIO, most=5), read, examples=80, seconds=seconds)
    assert counts["read"] > 20 and counts["refused"] > 5
