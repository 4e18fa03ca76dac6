"""Label Studio exports as the server writes them: JSON, JSON-MIN, single annotations of a storage, clips."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from molmopoint.data.importers import Journal, import_records, label_studio
from molmopoint.errors import ProcessingError


def region(kind, value, labels=(), name="r1", size=(200, 100), **more):
    field = {kind: list(labels)} if labels else {}
    sizes = {"original_width": size[0], "original_height": size[1], "image_rotation": 0} if size else {}
    return {
        **sizes,
        "value": {**value, **field},
        "id": name,
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
        **more,
    }


def box(x, y, width=10, height=20, rotation=0):
    """In percent; on 200 x 100 the default is a square of 20 pixels."""
    return {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}


def car(x, y=20, name="r1", **more):
    return region("rectanglelabels", box(x, y), ["car"], name, **more)


def annotation(*results, number=1, **more):
    common = {
        "id": number,
        "completed_by": 1,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-02T08:00:00Z",
    }
    return {
        **common,
        "draft_created_at": None,
        "lead_time": 3.5,
        "result": list(results),
        "result_count": len(results),
        **more,
    }


def task(address, *results, number=1, **more):
    data = {"image": address} if isinstance(address, str) else address
    return {
        "id": number, "annotations": [annotation(*results)], "file_upload": None, "drafts": [], "predictions": [], "data": data,
        "meta": {}, "created_at": "2026-11-02T08:00:00Z", "inner_id": number, "total_annotations": 1, "project": 4, **more,
    }  # fmt: skip


def saved(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def picture(path, size=(200, 100), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **save)
    return path


def imported(tmp_path, value, **options):
    """Rows as (file, label) -> pixels of a picture of 200 x 100, or "none" where a class is absent, and what
    was said.
    """
    journal = Journal()
    source = saved(tmp_path / "export.json", value) if not hasattr(value, "read_text") else value
    rows = {}
    for record in import_records("label_studio", source, journal=journal, **{"negatives": 0, **options}):
        scale = np.array([2, 1]) if record.coords == "percent" else 1
        found = [
            tuple(np.round(np.array([point.x, point.y]) * scale, 3).tolist()) for point in record.points or ()
        ]
        rows[record.media[0].removeprefix(f"{tmp_path}/"), record.label] = (
            "none" if record.no_points else found
        )
    return rows, journal


def places(tmp_path, *results, **options):
    rows, journal = imported(tmp_path, [task("a.png", *results)], **options)
    assert not journal.left_out
    return {label: found for (_, label), found in rows.items()}


def bitmask(size, left, top, right, bottom, mode="RGBA"):
    mask = Image.new(mode, size, 0)
    mask.paste((*[0] * (len(mask.getbands()) - 1), 255), (left, top, right, bottom))
    buffer = io.BytesIO()
    mask.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("there", [True, False])
def test_every_shape(tmp_path, there):
    if there:
        picture(tmp_path / "a.png")
    corners = [
        {"id": str(i), "x": x, "y": y, "isBezier": False}
        for i, (x, y) in enumerate([(0, 0), (20, 0), (20, 40), (0, 40)])
    ]
    found = places(
        tmp_path,
        region("rectanglelabels", box(10, 20), ["box"], "1"),
        region("rectanglelabels", box(90, 20, 30, 20), ["box"], "2"),
        region("rectanglelabels", box(50, 50, 10, 20, 90), ["box"], "3"),
        region(
            "ellipselabels", {"x": 30, "y": 40, "radiusX": 3, "radiusY": 4, "rotation": 0}, ["ellipse"], "4"
        ),
        region(
            "polygonlabels",
            {"points": [[0, 0], [20, 0], [20, 40], [0, 40]], "closed": True},
            ["polygon"],
            "5",
        ),
        region("vectorlabels", {"vertices": corners, "closed": True}, ["vector"], "6"),
        region("keypointlabels", {"x": 5, "y": 6, "width": 0.5}, ["point"], "7"),
        region("bitmasklabels", {"imageDataURL": bitmask((200, 100), 40, 20, 61, 41)}, ["bitmask"], "8"),
        region("bitmasklabels", {"imageDataURL": bitmask((100, 50), 40, 20, 61, 41, "LA")}, ["bitmask"], "9"),
        {
            "id": "10",
            "type": "choices",
            "value": {"choices": ["good"]},
            "from_name": "quality",
            "to_name": "image",
        },
        {"type": "relation", "from_id": "1", "to_id": "2", "direction": "right"},
    )
    assert found == {
        "box": [(30, 30), (190, 30), (90, 60)],
        "ellipse": [(60, 40)],
        "polygon": [(20, 20)],
        "vector": [(20, 20)],
        "point": [(10, 6)],
        "bitmask": [(50.5, 30.5), (101, 61)],
    }


@pytest.mark.parametrize("there", [True, False])
def test_a_turned_ellipse_over_the_border(tmp_path, there):
    """80 x 10 pixels about (0, 50), turned by 45 degrees clockwise: what is seen of it goes down to the
    right.
    """
    if there:
        picture(tmp_path / "a.png")
    value = {"x": 0, "y": 50, "radiusX": 40, "radiusY": 10, "rotation": 45}
    ((x, y),) = places(tmp_path, region("ellipselabels", value, ["leaf"]))["leaf"]
    assert 5 < x < 50 and abs(y - 50 - x) < 12


def test_every_label_counts(tmp_path):
    assert places(tmp_path, region("rectanglelabels", box(10, 20), ["van", "car"]), car(60, name="r2")) == {
        "van": [(30, 30)],
        "car": [(30, 30), (130, 30)],
    }


def test_a_shape_and_its_labels_in_two_results(tmp_path):
    """`<Rectangle>` and `<Labels>`; results of one region need not follow each other, and a label may come
    without the shape.
    """
    shapes = [region("rectangle", box(x, 20), name=name) for name, x in (("a", 10), ("b", 50), ("c", 70))]
    labels = [
        region("labels", box(50, 20), ["car"], "b"),
        region("labels", {}, ["van"], "a"),
        region("labels", box(50, 20), ["red"], "b"),
    ]
    point = [
        region("keypoint", {"x": 5, "y": 6, "width": 0.5}, name="d"),
        region("labels", {"x": 5, "y": 6, "width": 0.5}, ["dot"], "d"),
    ]
    rows, journal = imported(tmp_path, [task("a.png", *shapes, *labels, *point)])
    assert {label: found for (_, label), found in rows.items()} == {
        "van": [(30, 30)],
        "car": [(110, 30)],
        "red": [(110, 30)],
        "dot": [(10, 6)],
    }
    assert dict(journal.left_out) == {"objects without a label": 1} and "region c" in "".join(journal.lines())


def test_recorded_sizes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.png")
    picture(tmp_path / "phone.jpg", (200, 100), exif=exif)
    rows, journal = imported(
        tmp_path,
        [
            task("a.png", car(60, size=(800, 400))),
            task(
                "phone.jpg",
                region("keypointlabels", {"x": 75, "y": 10, "width": 1}, ["seen"], size=(100, 200)),
                number=2,
            ),
            task(
                "phone.jpg",
                region("keypointlabels", {"x": 75, "y": 10, "width": 1}, ["stored"], size=(200, 100)),
                number=3,
            ),
            task(
                "phone.jpg",
                region("keypointlabels", {"x": 75, "y": 10, "width": 1}, ["other"], size=(300, 300)),
                number=4,
            ),
            task(
                "phone.jpg",
                region("keypointlabels", {"x": 75, "y": 10, "width": 1}, ["unknown"], size=None),
                number=5,
            ),
        ],
    )
    assert rows == {
        ("a.png", "car"): [(130, 30)],
        ("phone.jpg", "seen"): [(75, 20)],
        ("phone.jpg", "stored"): [(90, 150)],
        ("phone.jpg", "unknown"): [(150, 10)],  # percent, doubled by `imported`
    }
    assert journal.left_out.total() == 1 and "300 x 300" in "".join(journal.lines())


@pytest.mark.parametrize("where", ["annotations", "completions"])
def test_which_annotation_counts(tmp_path, where):
    def several(number, *annotations):
        return {"id": number, "data": {"image": f"{number}.png"}, where: list(annotations)}

    cancelled = annotation(
        car(90), **({"was_cancelled": True} if where == "annotations" else {"skipped": True})
    )
    tasks = [
        several(1, cancelled, annotation(car(10)), annotation(car(50))),
        several(2, annotation(car(10)), annotation(car(50), ground_truth=True)),
        several(3, cancelled),
        several(4),
        several(5, annotation()),
        {"id": 6, "data": {"image": "6.png"}, "predictions": [{"result": [car(10)], "score": 0.9}]},
        several(7, 1234),
    ]
    rows, journal = imported(tmp_path, tasks, negatives=0.3)
    assert rows == {("1.png", "car"): [(30, 30)], ("2.png", "car"): [(110, 30)], ("5.png", "car"): "none"}
    assert dict(journal.left_out) == {"tasks that nobody annotated": 4}
    assert journal.notes["annotations that do not count, as their task has another one"] == 2


def test_json_min(tmp_path):
    def entry(number, **fields):
        about = {
            "annotator": 1,
            "annotation_id": 30 + number,
            "created_at": "2026",
            "updated_at": "2026",
            "lead_time": 3.5,
        }
        return {"image": f"/data/upload/4/{number}.png", "id": number, **fields, **about}

    size = {"original_width": 200, "original_height": 100}
    paired = {**box(70, 20), **size}
    export = [
        entry(
            1,
            label=[{**box(10, 20), "rectanglelabels": ["car", "van"], **size}],
            quality="good",
            text=["a", "b"],
        ),
        entry(1, label=[{**box(90, 20), "rectanglelabels": ["car"], **size}]),
        entry(
            2,
            label=[
                {
                    "points": [[0, 0], [20, 0], [20, 40], [0, 40]],
                    "closed": True,
                    "polygonlabels": ["dog"],
                    **size,
                }
            ],
        ),
        entry(3, rect=[paired, {**box(30, 20), **size}], kinds=[{**paired, "labels": ["car"]}]),
        entry(4),
    ]
    rows, journal = imported(tmp_path, export)
    assert rows == {
        ("1.png", "car"): [(30, 30)],
        ("1.png", "van"): [(30, 30)],
        ("2.png", "dog"): [(20, 20)],
        ("3.png", "car"): [(150, 30)],
    }
    assert dict(journal.left_out) == {"objects without a label": 1}
    assert journal.notes["annotations that do not count, as their task has another one"] == 1
    assert journal.notes["pictures without objects"] == 1


def test_a_folder_that_a_storage_filled(tmp_path):
    """One file per annotation, with the task inside; and one with a task."""
    folder = tmp_path / "target"
    folder.mkdir()
    for number in (1, 2):
        inner = {"id": number, "data": {"image": f"s3://bucket/{number}.png"}, "project": 4}
        saved(folder / f"{number}.json", {**annotation(car(10 * number)), "task": inner})
    saved(folder / "3.json", task("s3://bucket/3.png", car(50)))
    (folder / "4.json").write_text("{")
    picture(tmp_path / "media" / "1.png")
    rows, journal = imported(tmp_path, folder, images=tmp_path / "media")
    assert rows == {
        ("media/1.png", "car"): [(30, 30)],
        ("media/2.png", "car"): [(50, 30)],
        ("media/3.png", "car"): [(110, 30)],
    }
    assert dict(journal.left_out) == {"files that cannot be read": 1}


def test_tasks_of_several_pictures(tmp_path):
    views = [f"/data/upload/1/{name}.png" for name in ("left", "middle", "right")]
    results = [car(10, item_index=2), car(30, name="r2", item_index=0), car(50, name="r3", item_index=2), car(0, name="r4"),
               car(0, name="r5", item_index=7), car(0, name="r6", item_index="x")]  # fmt: skip
    expected = {("left.png", "car"): [(70, 30)], ("right.png", "car"): [(30, 30), (110, 30)]}
    rows, journal = imported(tmp_path, [task({"views": views, "title": "a"}, *results)], negatives=0.4)
    assert rows == expected and journal.left_out["broken objects"] == 3
    rows, journal = imported(tmp_path, [task({"views": views, "title": "a"}, *results[:3])], negatives=0.4)
    assert rows == {**expected, ("middle.png", "car"): "none"} and not journal.left_out
    one = [
        task({"views": views[:1]}, car(10)),
        task({"pages": [{"url": views[1], "title": "b"}]}, car(10), number=2),
    ]
    assert set(imported(tmp_path, one)[0]) == {("left.png", "car"), ("middle.png", "car")}


def test_fields_of_the_picture(tmp_path):
    front, back = "/data/upload/1/front.jpg?x=1", "/data/upload/1/back.jpg"
    assert set(imported(tmp_path, [task({"photo": front, "note": "nothing", "n": 3}, car(10))])[0]) == {
        ("front.jpg", "car")
    }
    both = [
        task({"front": front, "back": back}, car(10, to_name="front"), car(50, name="r2", to_name="back"))
    ]
    rows, journal = imported(tmp_path, both, field="back")
    assert rows == {("back.jpg", "car"): [(110, 30)]} and journal.left_out.total() == 1
    unclear = [
        task({"front": front, "back": back}, car(10, to_name="img1"), car(50, name="r2", to_name="img2"))
    ]
    rows, journal = imported(tmp_path, [*unclear, task("a.png", car(10), number=2)], field="back")
    assert not rows and journal.left_out.total() == 3  # two regions, and a task without that field
    rows, journal = imported(tmp_path, [*both, task("a.png", car(10), number=2)])
    assert set(rows) == {("a.png", "car")} and "front, back" in "".join(journal.lines())


def test_what_may_be_there_is_not_absent(tmp_path):
    """A region of which nobody knows on which picture it is, one without a label, and a stretch of a clip."""
    front, back = "/data/upload/1/front.jpg", "/data/upload/1/back.jpg"
    tasks = [
        task(
            {"front": "1.png", "back": "2.png"}, car(10, to_name="img1"), car(50, name="r2", to_name="img2")
        ),
        task({"front": ["3.png", "4.png"]}, car(10), number=2),
        task({"front": "5.png"}, region("rectangle", box(1, 2)), number=3),
        task({"front": "6.png"}, "odd", number=4),
        task(
            {"front": "7.mp4"},
            region("timelinelabels", {"ranges": [{"start": 1, "end": 5}]}, ["car"]),
            number=5,
        ),
        task({"front": front, "back": back}, car(50, to_name="back"), number=6),
        task({"front": "8.png"}, car(10), number=7),
    ]
    rows, _ = imported(tmp_path, tasks, negatives=0.9, field="front")
    assert rows == {("8.png", "car"): [(30, 30)], ("front.jpg", "car"): "none"}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (region("rectanglelabels", {**box(1, 2), "x": None}, ["cup"]), "'x'"),
        (region("rectanglelabels", {"x": 1, "y": 2, "width": 3}, ["cup"]), "'height'"),
        (region("rectanglelabels", box("a", 2), ["cup"]), "numbers"),
        (region("rectanglelabels", box(1, 2, rotation=30), ["cup"], size=None), "size in pixels"),
        (region("rectanglelabels", box(1, 2), ["cup"], image_rotation=90), "turned in the editor"),
        (region("rectanglelabels", box(1, 2), ["cup"], size=(0, 5)), "width and height"),
        (region("rectanglelabels", box(1, 2), [None]), "text"),
        (region("polygonlabels", {"points": [[1, 2], [3]]}, ["cup"]), "numbers"),
        (region("polygonlabels", {"points": [[1, 2], [3, 4]]}, ["cup"]), "area"),
        (region("brushlabels", {"format": "rle", "rle": [0, 0, 0, 9]}, ["cup"]), "rle"),
        (
            region("brushlabels", {"format": "rle", "rle": [255] * 40}, ["cup"], size=(200_000, 200_000)),
            "at most",
        ),
        (region("brushlabels", {"format": "rle", "rle": [0]}, ["cup"], size=None), "original_width"),
        (region("bitmasklabels", {"imageDataURL": "data:image/png;base64,AAAA"}, ["cup"]), "expected a mask"),
        (
            region("bitmasklabels", {"imageDataURL": bitmask((20, 10), 2, 2, 9, 9, "L")}, ["cup"]),
            "transparent",
        ),
        (region("bitmasklabels", {"imageDataURL": 5}, ["cup"]), "expected a mask"),
        (region("vectorlabels", {"vertices": [{"x": 1, "y": 2}], "closed": False}, ["cup"]), "open line"),
        (region("timelinelabels", {"ranges": [{"start": 1, "end": 5}]}, ["cup"]), "timelinelabels"),
        (region("labels", {"start": 1, "end": 5, "text": "x"}, ["cup"]), "labels"),
        ({"type": "rectanglelabels", "value": [1]}, "object"),
        ("cup", "result"),
    ],
)
def test_a_broken_region_ends_nothing(tmp_path, broken, said):
    plate = region("rectanglelabels", box(10, 20), ["plate"], "r9")
    tasks = [
        task("one.png", broken, plate),
        task("two.png", region("rectanglelabels", box(10, 20), ["cup"]), number=2),
    ]
    rows, journal = imported(tmp_path, tasks)
    assert rows == {("one.png", "plate"): [(30, 30)], ("two.png", "cup"): [(30, 30)]}
    assert journal.left_out.total() == 1
    told = "\n".join(line for lines in journal.examples.values() for line in lines)
    assert said in told and "one.png" in told and "task 1, region" in told


@pytest.mark.parametrize("broken", [None, 5, "x", [], {}, {"data": 5, "annotations": []}, {"data": {}, "annotations": [annotation()]},
                                    {"data": {"image": 5}, "annotations": [annotation()]}, {"data": {"image": "a.png"}, "annotations": 5},
                                    {"data": {"image": ["a.png", 5]}, "annotations": [annotation()]}])  # fmt: skip
def test_a_broken_task_ends_nothing(tmp_path, broken):
    rows, journal = imported(tmp_path, [broken, task("two.png", car(10))])
    assert list(rows) == [("two.png", "car")] and journal.left_out.total() == 1


@pytest.mark.parametrize("value", [5, None, "x", {"tasks": []}, [5], [{"image": "a.png"}]])
def test_other_files_are_refused(tmp_path, value):
    with pytest.raises(ProcessingError, match="export as JSON"):
        imported(tmp_path, value)


# ---------------------------------------------------------------- clips


def key(frame, x, *, enabled=True, y=10, width=20, height=20, rotation=0):
    return {
        "frame": frame,
        "enabled": enabled,
        "rotation": rotation,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "time": frame / 25,
    }


def moving(*keys, labels=("ball",), name="q", count: Any = 100, duration=4.0, **more):
    value = {"framesCount": count, "duration": duration, "sequence": list(keys), "labels": list(labels)}
    return {
        "value": value,
        "id": name,
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "origin": "manual",
        **more,
    }


def tracked(tmp_path, *results, data=None, **options):
    journal = Journal()
    source = saved(tmp_path / "export.json", [task(data or {"video": "/data/upload/1/match.mp4"}, *results)])
    rows = {}
    for record in import_records("label_studio", source, journal=journal, **options):
        assert (record.video, record.style, record.coords) == (
            str(tmp_path / "match.mp4"),
            "track",
            "percent",
        )
        points = [
            (point.object_id, round(point.t or 0, 4), round(point.x, 3), round(point.y, 3))
            for point in record.points or ()
        ]
        rows[record.label] = points
    return rows, journal


def test_boxes_move_between_key_frames(tmp_path):
    """Frame 1 is the first, at 0 s. From 3 to 5 the box is away; behind the last key frame it stays to the
    end.
    """
    keys = [key(1, 0), key(3, 40, enabled=False), key(6, 50), key(7, 60)]
    rows, journal = tracked(tmp_path, moving(*reversed(keys), count=9, duration=0.36))
    assert not journal.left_out
    assert rows == {
        "ball": [
            (0, 0, 10, 20), (0, 0.04, 30, 20), (0, 0.08, 50, 20),
            (0, 0.2, 60, 20), (0, 0.24, 70, 20), (0, 0.28, 70, 20), (0, 0.32, 70, 20),
        ]
    }  # fmt: skip


def test_boxes_over_the_border_and_turned(tmp_path):
    rows, _ = tracked(
        tmp_path, moving(key(1, 90, enabled=False), key(2, 120, enabled=False), count=2, duration=1)
    )
    assert rows == {"ball": [(0, 0, 95, 20)]}
    turned = moving(key(1, 50, y=50, rotation=90), count=1, duration=1)
    rows, journal = tracked(tmp_path, turned)
    assert not rows and "original_width" in "".join(journal.lines())
    # 20 x 20 percent of 200 x 100 are 40 x 20 pixels; turned about (100, 50) the middle is at (90, 70).
    assert tracked(tmp_path, {**turned, "original_width": 200, "original_height": 100})[0] == {
        "ball": [(0, 0, 45, 70)]
    }


def test_the_rate_of_a_clip(tmp_path):
    keys = [key(51, 0, enabled=False)]
    assert tracked(tmp_path, moving(*keys))[0]["ball"][0][1] == 2.0
    assert tracked(tmp_path, moving(*keys), fps=50)[0]["ball"][0][1] == 1.0
    # From the time of the key frame.
    assert tracked(tmp_path, moving(*keys, duration=0))[0]["ball"][0][1] == 2.0
    rows, journal = tracked(tmp_path, moving({**keys[0], "time": None}, duration=0))
    assert not rows and "option fps" in "".join(journal.lines())


def test_labels_and_numbers_of_objects(tmp_path):
    apart = [
        moving(key(1, 0, enabled=False), labels=(), name="a"),
        region("labels", {}, ["player", "goalkeeper"], "a"),
    ]
    rows, journal = tracked(
        tmp_path,
        *apart,
        moving(key(1, 40, enabled=False), name="b", labels=["player"]),
        moving(key(1, 0), name="c", labels=()),
    )
    assert rows == {"player": [(0, 0, 10, 20), (1, 0, 50, 20)], "goalkeeper": [(0, 0, 10, 20)]}
    assert dict(journal.left_out) == {"objects without a label": 1}


@pytest.mark.parametrize(
    "broken",
    [
        moving(labels=["cup"]),
        moving(key(1, None), labels=["cup"]),
        moving(key(1.5, 0), labels=["cup"]),
        moving(5, labels=["cup"]),
        moving(key(1, 0), key(10**9, 0), labels=["cup"]),
        moving(key(1, 0), labels=["cup"], count=10**12),
        moving(key(1, 0), labels=["cup"], count="many"),
        moving(key(1, float("nan")), labels=["cup"]),
        {**moving(labels=["cup"]), "value": {"sequence": 5, "labels": ["cup"]}},
        region("timelinelabels", {"ranges": [{"start": 1, "end": 5}]}, ["cup"], "t"),
    ],
)
def test_a_broken_box_ends_nothing(tmp_path, broken):
    rows, journal = tracked(
        tmp_path, moving(key(1, 0, enabled=False), name="fine"), {**broken, "id": "broken"}
    )
    assert rows == {"ball": [(0, 0, 10, 20)]}
    assert journal.left_out.total() == 1 and "region broken" in "".join(journal.lines())


def test_clips_without_boxes_are_no_pictures(tmp_path):
    clips = [
        task({"video": "1.mp4"}, {"id": "c", "type": "choices", "value": {"choices": ["good"]}}),
        task({"video": "2.mp4"}, number=2),
    ]
    rows, journal = imported(tmp_path, [*clips, task("a.png", car(10), number=3)], negatives=0.7)
    assert rows == {("a.png", "car"): [(30, 30)], ("1.mp4", "car"): "none", ("2.mp4", "car"): "none"}
    assert journal.notes["clips without objects"] == 2
    for record in import_records("label_studio", tmp_path / "export.json", negatives=0.7):
        assert (record.video is None) == (record.label == "car" and not record.no_points)


def test_clips_in_json_min(tmp_path):
    value = moving(key(1, 0), key(3, 40, enabled=False), count=9, duration=0.36)["value"]
    rows, _ = imported(
        tmp_path,
        [{"video": "/data/upload/1/match.mp4", "id": 1, "box": [value], "annotator": 1, "annotation_id": 2}],
    )
    assert list(rows) == [("match.mp4", "ball")] and len(rows["match.mp4", "ball"]) == 3


def test_negatives_of_clips(tmp_path):
    boxes = [
        moving(key(1, 0, enabled=False), labels=["ball", "player"]),
        moving(key(1, 0, enabled=False), labels=["ball"]),
    ]
    tasks = [task({"video": f"{number}.mp4"}, region, number=number) for number, region in enumerate(boxes)]
    rows, journal = imported(tmp_path, tasks, negatives=0.3)
    assert [key for key, found in rows.items() if found == "none"] == [("1.mp4", "player")]
    assert journal.notes["clips"] == 2 and journal.notes["clips without objects"] == 0


def test_many_frames_in_many_boxes_are_refused(tmp_path, monkeypatch):
    """Each box alone would fit."""
    monkeypatch.setattr(label_studio, "_MAX_POINTS", 500)
    boxes = [moving(key(1, 0), name=f"r{n}", count=200, duration=8, labels=[f"ball {n}"]) for n in range(4)]
    rows, journal = tracked(tmp_path, *boxes, negatives=0)
    assert sorted(rows) == ["ball 0", "ball 1"] and journal.left_out.total() == 2
    assert "cut the clip" in "".join(journal.lines())
