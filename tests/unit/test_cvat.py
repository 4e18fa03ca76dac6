"""CVAT files of the forms that its exports have: of a task with pictures, a project, a task with a clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from molmopoint.data.importers import Journal, import_records
from molmopoint.errors import ProcessingError

VERSION = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'


def label(name, kind="any", parent=""):
    parent = f"<parent>{parent}</parent>" if parent else ""
    return f"<label><name>{name}</name><color>#ff6a4d</color><type>{kind}</type><attributes></attributes>{parent}</label>"


def task(inner="", *, number=7, labels="", size=None, source=""):
    original = (
        f"<original_size><width>{size[0]}</width><height>{size[1]}</height></original_size>" if size else ""
    )
    source = f"<source>{source}</source>" if source else ""
    return (
        f"<task><id>{number}</id><name>yard</name><size>9</size><mode>annotation</mode><overlap>0</overlap><bugtracker></bugtracker>"
        f"<created>2026-11-02 08:10:12.345678+00:00</created><subset>Train</subset><start_frame>0</start_frame><stop_frame>8</stop_frame>"
        f"<frame_filter></frame_filter><segments><segment><id>3</id><start>0</start><stop>8</stop><url>https://cvat.example/api/jobs/3"
        f"</url></segment></segments><owner><username>ann</username><email>ann@example.com</email></owner><assignee></assignee>"
        f"<labels>{labels}</labels>{original}{source}{inner}</task>"
    )


def file(tmp_path, body, meta=None):
    path = tmp_path / "annotations.xml"
    meta = task() if meta is None else meta
    path.write_text(
        f"{VERSION}<meta>{meta}<dumped>2026-11-02 09:00:00+00:00</dumped></meta>{body}</annotations>\n",
        encoding="utf-8",
    )
    return path


def image(name, body="", size=(200, 100), number=0, more=""):
    return f'<image id="{number}" name="{name}" {more} width="{size[0]}" height="{size[1]}">{body}</image>'


def box(name, left, top, right, bottom, more="", inner=""):
    places = f'xtl="{left:.2f}" ytl="{top:.2f}" xbr="{right:.2f}" ybr="{bottom:.2f}"'
    return f'<box label="{name}" source="manual" occluded="0" {places} z_order="0" {more}>{inner}</box>'


def shape(kind, name, more):
    return f'<{kind} label="{name}" source="manual" occluded="0" {more} z_order="0"></{kind}>'


def picture(path, size, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **save)
    return path


def imported(path, **options):
    """Rows as (file or clip, label) -> places, or "none" where a class is absent, and what was left out."""
    skipped = []
    rows = {}
    for record in import_records("cvat", path, on_skip=skipped.append, **{"negatives": 0, **options}):
        places = [(round(point.x, 3), round(point.y, 3)) for point in record.points or ()]
        rows[record.media[0], record.label] = "none" if record.no_points else places
    return rows, skipped


def places(path, **options):
    rows, skipped = imported(path, **options)
    assert not skipped
    return {name: found for (_, name), found in rows.items()}


@pytest.mark.parametrize(
    "name", ["", " ", "../x.png", "/etc/passwd", "//outside/x.png", "\\\\outside\\x.png", "a/../../x.png"]
)
def test_names_that_lead_out_of_the_folder(tmp_path, name):
    body = image(name, box("cup", 10, 10, 30, 30)) + image("b.png", box("cup", 10, 10, 30, 30), number=1)
    rows, skipped = imported(file(tmp_path, body))
    assert list(rows) == [(str(tmp_path / "images" / "b.png"), "cup")]
    assert len(skipped) == 1 and "annotations.xml, image" in skipped[0]


def test_names_that_no_file_can_have(tmp_path):
    body = image("x" * 300 + "/frame", box("cup", 10, 10, 30, 30)) + image(
        "b.png", box("cup", 10, 10, 30, 30), number=1
    )
    assert (str(tmp_path / "images" / "b.png"), "cup") in imported(file(tmp_path, body))[0]


def test_every_shape(tmp_path):
    corners = dict(
        zip(("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2", "br2"), np.ndindex(2, 2, 2), strict=True)
    )
    cuboid = " ".join(
        f'x{name}="{100 + 40 * x + 6 * z}" y{name}="{20 + 30 * y + 4 * z}"'
        for name, (z, x, y) in corners.items()
    )
    body = image(
        "a.png",
        box("turned", 10, 20, 30, 60, 'rotation="90.00"', '<attribute name="colour">red</attribute>')
        + box("over", 180, 10, 240, 30)
        + shape("polygon", "polygon", 'points="10.00,10.00;30.00,10.00;30.00,30.00;10.00,30.00"')
        + shape("ellipse", "ellipse", 'cx="50.00" cy="40.00" rx="10.00" ry="5.00" rotation="30.00"')
        + shape("points", "points", 'points="1.00,2.00;3.00,4.00"')
        + shape("mask", "mask", 'rle="5, 3, 2, 3, 2, 3, 7" left="40" top="50" width="5" height="5"')
        + shape("cuboid", "cuboid", cuboid)
        + '<tag label="indoor" source="manual"></tag>',
    )
    found = places(file(tmp_path, body))
    (x, y), *_ = found.pop("cuboid")
    assert 105 < x < 145 and 25 < y < 55
    assert found == {
        "turned": [(20, 40)],
        "over": [(190, 20)],
        "polygon": [(20, 20)],
        "ellipse": [(50, 40)],
        "points": [(1, 2), (3, 4)],
        "mask": [(41.5, 52.5)],
    }


def test_a_turned_box_over_the_border_points_at_what_is_seen(tmp_path):
    """100 x 20 turned by a quarter about (10, 50): it stands upright, from x 0 to 20."""
    found = places(
        file(
            tmp_path,
            image("a.png", box("pole", -40, 40, 60, 60, 'rotation="90"') + box("board", 150, 40, 250, 60)),
        )
    )
    assert found == {"pole": [(10, 50)], "board": [(175, 50)]}


def test_groups(tmp_path):
    body = image(
        "a.png",
        box("cow", 0, 0, 10, 10, 'group_id="1"')
        + shape("polygon", "cow", 'points="20,20;60,20;60,60;20,60" group_id="1"')
        + shape("mask", "cow", 'rle="0, 100" left="80" top="0" width="10" height="10" group_id="1"')
        + box("cow", 100, 0, 110, 10, 'group_id="2"')
        + box("cow", 120, 0, 130, 10, 'group_id="0"')
        + box("cow", 140, 0, 150, 10)
        + box("calf", 160, 0, 170, 10, 'group_id="1"'),
    )
    rest = [(105, 5), (125, 5), (145, 5)]
    assert places(file(tmp_path, body)) == {"cow": [(40, 40), *rest], "calf": [(165, 5)]}
    assert len(places(tmp_path / "annotations.xml", ungroup=True)["cow"]) == 6


PERSON = (
    '<skeleton label="person" source="manual" z_order="0">'
    '<points label="left_eye" source="manual" outside="0" occluded="0" points="10.00,20.00"></points>'
    '<points label="right_eye" source="manual" outside="0" occluded="1" points="30.00,20.00"></points>'
    '<points label="nose" source="manual" outside="1" occluded="0" points="20.00,30.00"></points>'
    '<attribute name="age">9</attribute></skeleton>'
)
SKELETON_LABELS = label("person", "skeleton") + "".join(
    label(name, "points", "person") for name in ("left_eye", "right_eye", "nose")
)


def test_skeletons(tmp_path):
    path = file(tmp_path, image("a.png", PERSON) + image("b.png", number=1), task(labels=SKELETON_LABELS))
    assert places(path) == {"left eye of the person": [(10, 20)]}
    assert places(path, keypoints="labelled") == {
        "left eye of the person": [(10, 20)],
        "right eye of the person": [(30, 20)],
    }
    rows, _ = imported(path, negatives=0.5)
    assert {key for key, found in rows.items() if found == "none"} == {
        (str(tmp_path / "images" / "b.png"), "left eye of the person")
    }
    with pytest.raises(ProcessingError, match="visible, labelled"):
        imported(path, keypoints="all")


def test_frames_and_subsets_of_a_project(tmp_path):
    folder = tmp_path / "images"
    for name in ("Train/hall.jpg", "Val/hall.jpg", "Train/frame_000004.PNG", "row/hall.png", "a.b"):
        picture(folder / name, (200, 100), format="PNG")
    cup = box("cup", 10, 10, 30, 30)
    body = (
        image("hall.jpg", cup, more='subset="Train" task_id="5"')
        + image("hall.jpg", cup, more='subset="Val" task_id="6"', number=1)
        + image("frame_000004", cup, more='subset="Train" task_id="5"', number=2)
        + image("row\\hall.png", cup, number=3)
        + image("a.b", cup, number=4)
        + image("frame_000009", cup, number=5)
    )
    rows, skipped = imported(
        file(tmp_path, body, f"<project><id>1</id><tasks>{task(number=5)}{task(number=6)}</tasks></project>")
    )
    found = [str(file).removeprefix(f"{folder}/") for file, _ in rows]
    assert not skipped
    assert found == [
        "Train/hall.jpg",
        "Val/hall.jpg",
        "Train/frame_000004.PNG",
        "row/hall.png",
        "a.b",
        "frame_000009",
    ]
    assert imported(tmp_path)[0] == rows


def test_recorded_sizes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "images" / "small.png", (200, 100))
    picture(tmp_path / "images" / "phone.jpg", (400, 300), exif=exif)
    picture(tmp_path / "images" / "odd.png", (400, 100))
    body = (
        image("small.png", box("cup", 300, 100, 340, 140), size=(400, 200))
        + image("phone.jpg", box("cup", 240, 140, 260, 160), size=(400, 300), number=1)
        + image("odd.png", box("cup", 10, 10, 30, 30), size=(300, 300), number=2)
    )
    rows, skipped = imported(file(tmp_path, body))
    assert list(rows.values()) == [[(160, 60)], [(150, 250)]]
    assert len(skipped) == 1 and "odd.png" in skipped[0] and "300 x 300" in skipped[0]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (shape("mask", "cup", 'rle="5, 3, 2" left="0" top="0" width="5" height="5"'), "runs"),
        (
            shape("mask", "cup", 'rle="40000000000" left="0" top="0" width="200000" height="200000"'),
            "at most",
        ),
        (shape("mask", "cup", 'rle="a" left="0" top="0" width="5" height="5"'), "numbers"),
        ('<box label="cup" xtl="1" ytl="2" xbr="3"/>', "numbers"),
        (box("cup", float("nan"), 1, 2, 3), "numbers"),
        (shape("polygon", "cup", 'points="1,2;3"'), "pairs"),
        (shape("polygon", "cup", 'points="1,2;3,4;5,6"'), "area"),
        (shape("polyline", "cup", 'points="1,2;3,4"'), "no inside"),
        (shape("cuboid", "cup", 'xtl1="1"'), "numbers"),
        (shape("ellipse", "cup", 'cx="1" cy="2" rx="3" ry="x"'), "numbers"),
        (shape("hexagon", "cup", 'points="1,2;3,4"'), "no inside"),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "label"),
    ],
)
def test_a_broken_shape_ends_nothing(tmp_path, broken, said):
    body = image("a.png", broken + box("plate", 10, 10, 30, 30)) + image(
        "b.png", box("cup", 10, 10, 30, 30), number=1
    )
    rows, skipped = imported(file(tmp_path, body))
    assert [(name.rpartition("/")[2], label) for name, label in rows] == [
        ("a.png", "plate"),
        ("b.png", "cup"),
    ]
    assert len(skipped) == 1 and "a.png" in skipped[0] and said in skipped[0]


def test_negatives_come_from_the_labels_of_the_file(tmp_path):
    labels = "".join(map(label, ("cup", "plate"))) + label("rope", "polyline") + label("indoor", "tag")
    body = "".join(
        image(f"{n}.png", box("cup", 10, 10, 30, 30) if n % 2 else "", number=n) for n in range(20)
    )
    rows, _ = imported(file(tmp_path, body, task(labels=labels)), negatives=0.4)
    absent = [
        (int(file.rpartition("/")[2][:-4]), name) for (file, name), found in rows.items() if found == "none"
    ]
    assert 5 <= len(absent) <= 8
    assert {name for _, name in absent} == {"cup", "plate"} and all(
        name == "plate" or n % 2 == 0 for n, name in absent
    )


def test_classes_on_pictures_left_out_are_not_denied(tmp_path):
    """Nothing is known of forks and of eyes but that a picture left out shows them."""
    picture(tmp_path / "images" / "odd.png", (400, 100))
    labels = label("cup") + label("fork") + label("plate") + SKELETON_LABELS
    lost = image("odd.png", box("plate", 1, 1, 3, 3) + PERSON, size=(300, 300)) + image(
        "../x.png", box("fork", 1, 1, 3, 3), number=1
    )
    rows, skipped = imported(
        file(tmp_path, lost + image("a.png", box("cup", 1, 1, 3, 3), number=2), task(labels=labels)),
        negatives=0.9,
    )
    assert len(skipped) == 2 and [name for _, name in rows] == ["cup"]


def test_xml_that_is_a_weapon(tmp_path):
    path = tmp_path / "annotations.xml"
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    path.write_text(
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{entities}]><annotations><image name="&l9;"/></annotations>'
    )
    with pytest.raises(ProcessingError, match="without entities"):
        imported(path)


# ---------------------------------------------------------------- tracks


def track(name, *shapes, number: Any = 0, more=""):
    return f'<track id="{number}" label="{name}" source="manual" {more}>{"".join(shapes)}</track>'


def frame(n, x, *, outside=0, occluded=0, side=10):
    more = f'frame="{n}" keyframe="1" outside="{outside}" occluded="{occluded}"'
    return f'<box {more} xtl="{x}" ytl="20.00" xbr="{x + side}" ybr="{20 + side}" z_order="0"></box>'


def tracked(path, **options):
    skipped = []
    rows = {}
    for record in import_records("cvat", path, on_skip=skipped.append, **{"fps": 10, **options}):
        points = [
            (point.object_id, round(point.t or 0, 4), round(point.x, 3), round(point.y, 3))
            for point in record.points or ()
        ]
        rows[record.video, record.label] = points
        assert record.style == "track"
    return rows, skipped


def test_frames_are_those_of_the_clip(tmp_path):
    meta = (
        task(source="yard.mp4")
        .replace("<start_frame>0<", "<start_frame>10<")
        .replace("<frame_filter>", "<frame_filter>step=5")
    )
    body = track("lorry", frame(10, 0), frame(15, 10, occluded=1), frame(20, 20), frame(25, 20, outside=1))
    rows, skipped = tracked(file(tmp_path, body, meta))
    assert not skipped
    assert rows == {
        (str(tmp_path / "yard.mp4"), "lorry"): [(0, 1.0, 5, 25), (0, 1.5, 15, 25), (0, 2.0, 25, 25)]
    }
    assert rows == tracked(file(tmp_path, body, meta.replace("task>", "job>")))[0]


def test_the_recorded_size_of_a_clip_makes_percent(tmp_path):
    """A copy of another size has the same percent; what lies outside of the frame is not seen."""
    body = track("lorry", frame(0, 0), frame(1, 630, side=20), frame(2, 900))
    rows, _ = tracked(file(tmp_path, body, task(source="yard.mp4", size=(640, 400))))
    assert rows == {(str(tmp_path / "yard.mp4"), "lorry"): [(0, 0, 0.781, 6.25), (0, 0.1, 99.219, 7.5)]}
    record = next(iter(import_records("cvat", tmp_path / "annotations.xml", fps=10)))
    assert record.coords == "percent"


def test_several_tasks_of_a_project(tmp_path):
    tasks = task(number=5, source="a.mp4") + task(number=6, source="b.mp4") + task(number=8)
    body = (
        track("lorry", frame(3, 0), more='task_id="5" subset="Train"')
        + track("lorry", frame(3, 50), number=1, more='task_id="6" subset="Train"')
        + track("lorry", frame(3, 50), number=2, more='task_id="8" subset="Train"')
    )
    rows, skipped = tracked(
        file(tmp_path, body, f"<project><id>1</id><name>p</name><tasks>{tasks}</tasks></project>")
    )
    assert rows == {
        (str(tmp_path / "a.mp4"), "lorry"): [(0, 0.3, 5, 25)],
        (str(tmp_path / "b.mp4"), "lorry"): [(1, 0.3, 55, 25)],
    }
    assert len(skipped) == 1 and "track 2" in skipped[0] and "<source>" in skipped[0]


def test_grouped_tracks_are_one_object(tmp_path):
    body = (
        track("snake", frame(0, 0), frame(1, 0, side=20), more='group_id="4"')
        + track("snake", frame(0, 50, side=16), frame(1, 50), frame(2, 50), number=1, more='group_id="4"')
        + track("snake", frame(0, 90), number=2)
    )
    path = file(tmp_path, body, task(source="yard.mp4"))
    key = (str(tmp_path / "yard.mp4"), "snake")
    assert tracked(path)[0][key] == [(0, 0, 58, 28), (0, 0.1, 10, 30), (0, 0.2, 55, 25), (2, 0, 95, 25)]
    assert [point[0] for point in tracked(path, ungroup=True)[0][key]] == [0, 0, 1, 1, 1, 2]


def test_skeletons_in_tracks(tmp_path):
    eye = '<points label="left_eye" keyframe="1" outside="{}" occluded="{}" points="10.00,{}.00"></points>'
    body = track(
        "person",
        *(
            f'<skeleton frame="{n}" keyframe="1" z_order="0">{eye.format(outside, occluded, n)}</skeleton>'
            for n, outside, occluded in ((0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 0, 0))
        ),
    )
    path = file(tmp_path, body, task(source="yard.mp4"))
    key = (str(tmp_path / "yard.mp4"), "left eye of the person")
    assert tracked(path)[0] == {key: [(0, 0, 10, 0), (0, 0.3, 10, 3)]}
    assert [point[1] for point in tracked(path, keypoints="labelled")[0][key]] == [0, 0.1, 0.3]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (track("cup", frame("x", 0)), "frame"),
        (track("cup", frame(-1, 0)), "frame"),
        (track("cup", frame(1.5, 0)), "frame"),
        (track("cup", frame(1, 0).replace('xtl="0"', "")), "numbers"),
        (track("cup", '<points frame="1" outside="0" points="1,2;3,4"/>'), "not one place"),
        (track("cup", '<polyline frame="1" outside="0" points="1,2;3,4"/>'), "no inside"),
        (track("", frame(1, 0)), "label"),
    ],
)
def test_a_broken_track_ends_nothing(tmp_path, broken, said):
    rows, skipped = tracked(
        file(tmp_path, broken + track("lorry", frame(1, 0), number="7"), task(source="yard.mp4"))
    )
    assert rows == {(str(tmp_path / "yard.mp4"), "lorry"): [(7, 0.1, 5, 25)]}
    assert len(skipped) == 1 and said in skipped[0]


def test_numbers_of_objects_are_their_own(tmp_path):
    body = "".join(
        track("cup", frame(1, 10 * n), number=number) for n, number in enumerate((1, 1, "", "x", 10**30))
    )
    rows, _ = tracked(file(tmp_path, body, task(source="yard.mp4")))
    assert [point[0] for points in rows.values() for point in points] == [1, 0, 2, 3, 4]


@pytest.mark.parametrize("fps", [None, 0, -1, float("nan"), float("inf")])
def test_tracks_need_a_rate(tmp_path, fps):
    with pytest.raises(ProcessingError, match="option fps"):
        tracked(file(tmp_path, track("cup", frame(1, 0)), task(source="yard.mp4")), fps=fps)


def test_negatives_of_clips(tmp_path):
    """A clip without bikes is asked for them; one whose bikes could not be read is not."""
    labels = label("bike") + label("lorry")
    tasks = task(number=5, source="a.mp4") + task(number=6, source="b.mp4")
    polyline = '<polyline frame="1" outside="0" points="1,2;3,4"/>'
    body = (
        track("lorry", frame(3, 0), more='task_id="5"')
        + track("lorry", frame(3, 50), number=1, more='task_id="6"')
        + track("bike", frame(3, 50), number=2, more='task_id="6"')
        + track("bike", polyline, number=3, more='task_id="6"')
    )
    path = file(tmp_path, body, f"<project><tasks>{tasks}</tasks><labels>{labels}</labels></project>")
    absent = [
        record
        for record in import_records("cvat", path, fps=10, negatives=0.4, on_skip=len)
        if record.no_points
    ]
    assert not absent  # all that is known of bikes was left out
    path.write_text(path.read_text().replace(polyline, ""))
    absent = [
        record
        for record in import_records("cvat", path, fps=10, negatives=0.4, on_skip=len)
        if record.no_points
    ]
    assert [(record.video, record.label, record.style) for record in absent] == [
        (str(tmp_path / "a.mp4"), "bike", "track")
    ]
    path.write_text(
        path.read_text().replace(
            "</annotations>", track("", frame(1, 0), more='task_id="5"') + "</annotations>"
        )
    )
    assert not [
        record
        for record in import_records("cvat", path, fps=10, negatives=0.4, on_skip=len)
        if record.no_points
    ]


def test_two_tasks_with_one_name_of_a_clip_are_told(tmp_path):
    tasks = task(number=5, source="a.mp4") + task(number=6, source="a.mp4")
    body = track("lorry", frame(3, 0), more='task_id="5"') + track(
        "lorry", frame(9, 50), number=1, more='task_id="6"'
    )
    journal = Journal()
    path = file(tmp_path, body, f"<project><tasks>{tasks}</tasks></project>")
    (row,) = import_records("cvat", path, fps=10, journal=journal)
    assert [(point.t, point.object_id) for point in row.points or ()] == [(0.3, 0), (0.9, 1)]
    assert any("same name" in line and "a.mp4" in line for line in journal.lines())
