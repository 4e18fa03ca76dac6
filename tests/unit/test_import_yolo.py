"""YOLO and Darknet: encodings, names that YAML would change, pictures of newer kinds, paths, empty files and
broken lines.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from imports import imported, picture, write

from molmopoint.errors import ProcessingError

BOX = "0 0.5 0.5 0.2 0.2\n"


def yolo(root: Path, labels, names="names: [cup, plate]", train="train/images"):
    """A data set of 100 x 80 pictures with these label files."""
    for name, text in labels.items():
        picture(root / "train" / "images" / f"{name}.png")
        write(root / "train" / "labels" / f"{name}.txt", text)
    return write(root / "data.yaml", f"train: {train}\n{names}\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
def test_label_files_in_other_encodings(tmp_path, encoding):
    result = imported(
        "yolo", yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\r\n1 0.1 0.1 0.1 0.1".encode(encoding)})
    )
    assert result.of("a.png") == {"cup": [(0.5, 0.5)], "plate": [(0.1, 0.1)]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [no, 1]", {"no", "1"}),
        ("names: [yes, off]", {"yes", "off"}),
        ("names:\n  0: null\n  1: 1e3", {"null", "1e3"}),
        ("names: ['08', 2024-01-01]", {"08", "2024-01-01"}),
        ("names: [0x1F, 1_000]", {"0x1F", "1_000"}),
        ("names: ['tasse à café', 皿]", {"tasse à café", "皿"}),
    ],
)
def test_names_are_words(tmp_path, names, expected):
    """YAML would make truth values, numbers, dates and nothing of them."""
    result = imported("yolo", yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n"}, names))
    assert set(result.of("a.png")) == expected


def test_pictures_of_newer_kinds(tmp_path):
    for name, form in (
        ("a.avif", "AVIF"),
        ("b.jfif", "JPEG"),
        ("c.jp2", "JPEG2000"),
        ("d.mpo", "MPO"),
        ("e.JPG", "JPEG"),
        ("f.webp", "WEBP"),
    ):
        picture(tmp_path / "images" / name, format=form)
        write(tmp_path / "labels" / f"{name[0]}.txt", BOX)
    write(tmp_path / "images" / "g.heic", "")
    write(tmp_path / "images" / "notes.txt", "")
    result = imported("yolo", write(tmp_path / "data.yaml", "train: images\nnames: [cup]\n"))
    assert result.files == ["a.avif", "b.jfif", "c.jp2", "d.mpo", "e.JPG", "f.webp"]
    assert "g.heic: left out, its format is not read" in result.said


def test_empty_label_files_are_negatives(tmp_path):
    result = imported(
        "yolo", yolo(tmp_path, {f"{i:02}": BOX if i < 10 else "" for i in range(20)}), negatives=0.2
    )
    assert len(result.records) == 12 and len(result.absent) == 2
    assert all(label == "plate" or int(name[:2]) >= 10 for name, label in result.absent)
    assert "pictures without objects: 10" in result.said and "pictures: 20" in result.said


def test_boxes_over_the_border_and_turned_boxes(tmp_path):
    lines = "0 0.95 0.5 0.3 0.2\n1 0.4 0.2 0.6 0.4 0.4 0.6 0.2 0.4\n0 -0.0005 0.5 0 0\n"
    result = imported("yolo", yolo(tmp_path, {"a": lines}))
    assert result.of("a.png") == {"cup": [(0.9, 0.5)], "plate": [(0.4, 0.4)]}
    assert "objects outside of their picture: 1" in result.said


BROKEN = [
    "0 0.5 0.5",
    "0 0.5 0.5 x 0.2",
    "0 nan 0.5 0.2 0.2",
    "0 50 40 20 16",
    "0 0.5 0.5 0.2 0.2 0.9",
    "0 1e999 0 0 0",
    "0",
]


@pytest.mark.parametrize("line", BROKEN)
def test_one_broken_line_ends_nothing(tmp_path, line):
    result = imported(
        "yolo", yolo(tmp_path, {"a": f"{BOX}{line}\n1 0.2 0.2 0.1 0.1\n", "b": BOX}), negatives=0.9
    )
    assert result.of("a.png") == {"plate": [(0.2, 0.2)]} and result.of("b.png") == {"cup": [(0.5, 0.5)]}
    assert "a.txt, line 2" in result.said and ("a.png", "cup") not in result.absent


@pytest.mark.parametrize(
    "line", ["7 0.5 0.5 0.2 0.2", "x 0.5 0.5 0.2 0.2", "0.5 0.5 0.5 0.2 0.2", "-1 0 0 0 0", "cup 1 1 1 1"]
)
def test_a_line_without_a_class_leaves_nothing_absent(tmp_path, line):
    result = imported("yolo", yolo(tmp_path, {"a": f"{BOX}{line}\n"}), negatives=0.9)
    assert (
        result.of("a.png") == {"cup": [(0.5, 0.5)]} and not result.absent and "a.txt, line 2" in result.said
    )


@pytest.mark.parametrize("data", [b"\xca\xc4\xff\xfe\x00", b"\xff\xfe\x00", b"\x00" * 20])
def test_a_label_file_that_is_no_text_ends_nothing(tmp_path, data):
    result = imported("yolo", yolo(tmp_path, {"bad": data, "good": BOX}), negatives=0.9)
    assert result.of("good.png") and all(name == "good.png" for name, _ in result.absent)
    assert "bad.png: left out" in result.said and "pictures whose labels cannot be read: 1" in result.said


@pytest.mark.parametrize(
    "train",
    ["/", "//", "..", "../..", "/etc", "/usr/share", "../../elsewhere", "a/../../..", "[/]", "../set/.."],
)
def test_paths_that_lead_elsewhere(tmp_path, train):
    """Refused before anything is walked."""
    source = yolo(tmp_path / "set", {"a": BOX}, train=train)
    write(tmp_path.parent / "elsewhere" / "b.txt", BOX)
    begun = time.monotonic()
    with pytest.raises(ProcessingError, match="--images"):
        imported("yolo", source)
    assert time.monotonic() - begun < 2


def test_paths_of_other_layouts(tmp_path):
    """Beside data.yaml, an absolute path beside it, a folder of all data sets that is not there, and
    elsewhere if the user says so.
    """
    yolo(tmp_path / "coco8", {"a": BOX})
    names = "names: [cup]\n"
    for text in (
        "path: ../coco8\ntrain: train/images\n",
        f"path: {tmp_path}/coco8\ntrain: train/images\n",
        "train: ../coco8/train/images\n",
    ):
        assert imported("yolo", write(tmp_path / "settings" / "data.yaml", text + names)).files == ["a.png"]
    for text in (
        "path: datasets/coco8\ntrain: train/images\n",
        "path: /content/coco8\ntrain: train/images\n",
    ):
        assert imported("yolo", write(tmp_path / "coco8" / "data.yaml", text + names)).files == ["a.png"]
    far = write(
        tmp_path / "far" / "away" / "data.yaml", f"path: {tmp_path}/coco8\ntrain: train/images\n{names}"
    )
    with pytest.raises(ProcessingError, match=r"leads to .*coco8/train/images.*--images"):
        imported("yolo", far)
    assert imported("yolo", far, images=tmp_path / "coco8").files == ["a.png"]


@pytest.mark.parametrize("target", ["/", ".."])
def test_links_out_of_an_archive(tmp_path, target):
    """One that leads to the root of the disk, or above the data set, is not walked."""
    yolo(tmp_path / "set", {"a": BOX})
    (tmp_path / "set" / "images").symlink_to(target)
    with pytest.raises(ProcessingError, match="a link to"):
        imported("yolo", write(tmp_path / "set" / "data.yaml", "train: images\nnames: [cup]\n"))


def test_paths_from_the_folder_itself(tmp_path, monkeypatch):
    """The source may be given relative to where the command runs."""
    yolo(tmp_path / "set", {"a": BOX}, train="[../set/train/images, list.txt]")
    write(tmp_path / "set" / "list.txt", ".\n..\n/\n./train/images/a.png\n")
    for folder, source in (("set", "data.yaml"), ("set/train", "../data.yaml"), (".", "set")):
        monkeypatch.chdir(tmp_path / folder)
        result = imported("yolo", source)
        assert len(result.of("a.png")["cup"]) == 2, source


def test_lists_of_pictures_stay_inside_too(tmp_path):
    yolo(tmp_path / "set", {"a": BOX, "b": BOX})
    outside = picture(tmp_path.parent / f"{tmp_path.name}-outside" / "images" / "c.png")
    write(outside.parent.parent / "labels" / "c.txt", BOX)
    inside = tmp_path / "set" / "train" / "images"
    write(
        tmp_path / "set" / "list.txt",
        f"./train/images/a.png\n{inside}/b.png\n{outside}\n../../{outside.parent.parent.name}/images/c.png\n",
    )
    result = imported("yolo", write(tmp_path / "set" / "data.yaml", "train: list.txt\nnames: [cup]\n"))
    assert result.files == ["a.png", "b.png"] and "pictures that lie elsewhere: 2" in result.said


def test_pictures_on_another_disk(tmp_path):
    """Links that the user laid are followed."""
    yolo(tmp_path / "disk", {"a": BOX})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "disk" / "train")
    result = imported("yolo", write(tmp_path / "set" / "data.yaml", "train: train/images\nnames: [cup]\n"))
    assert result.files == ["a.png"]


@pytest.mark.parametrize(
    "text",
    ["names: [cup]", "train: images\nnames: 3", "train: images\nnames: [[a]]", "train: images\nnames: {a: b}", "- a", "a: [",
     "train: [[]]\nnames: [a]",
     "train: images\nnames: [a]\nkpt_shape: [17, 4]", "train: gone\nnames: [a]", "train: images", "train: images\nnames: ['']", "[" * 1500,
     "a: &a [x, x]\nb: &b [*a, *a]\ntrain: images\nnames: [*b, *b]"],
)  # fmt: skip
def test_settings_that_are_none(tmp_path, text):
    (tmp_path / "images").mkdir()
    with pytest.raises(ProcessingError):
        imported("yolo", write(tmp_path / "data.yaml", text))


def test_hidden_keypoints(tmp_path):
    settings = "train: images\nkpt_shape: [2, 3]\nnames: [dog]\nkpt_names: {0: [nose, left_ear]}\n"
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1\n")
    source = write(tmp_path / "data.yaml", settings)
    assert imported("yolo", source, target="keypoints").of("a.png") == {"nose of the dog": [(0.4, 0.4)]}
    labelled = imported("yolo", source, target="keypoints", keypoints="labelled")
    assert labelled.of("a.png") == {"nose of the dog": [(0.4, 0.4)], "left ear of the dog": [(0.6, 0.6)]}


def darknet(root, prefix="data/"):
    """As CVAT exports "YOLO 1.1": paths as if below Darknet's folder data."""
    write(
        root / "obj.data",
        f"classes = 2\ntrain = {prefix}train.txt\nnames = {prefix}obj.names\nbackup = backup/\n",
    )
    write(root / "obj.names", "cup\nlarge plate\n")
    write(
        root / "train.txt",
        f"{prefix}obj_train_data/a.png\n{prefix}obj_train_data/sub/b.jpg\n{prefix}obj_train_data/c.png\n",
    )
    picture(root / "obj_train_data" / "a.png")
    write(root / "obj_train_data" / "a.txt", "0 0.5 0.25 0.1 0.1\n1 0.2 0.2 0.1 0.1\n")
    write(root / "obj_train_data" / "sub" / "b.txt", "")
    return root / "obj.data"


@pytest.mark.parametrize("prefix", ["data/", "", "./"])
def test_darknet(tmp_path, prefix):
    source = darknet(tmp_path, prefix)
    result = imported("darknet", source, negatives=0.4)
    assert result.of("a.png") == {"cup": [(0.5, 0.25)], "large plate": [(0.2, 0.2)]}
    assert [name for name, _ in result.absent] == [
        "b.jpg"
    ] and "c.png: left out, there is no label file" in result.said
    assert imported("darknet", tmp_path).files == ["a.png"]


def test_darknet_that_leads_elsewhere(tmp_path):
    source = darknet(tmp_path / "set")
    write(tmp_path / "set" / "train.txt", "/etc/passwd\n../../../x.png\ndata/obj_train_data/a.png\n")
    result = imported("darknet", source)
    assert result.files == ["a.png"] and "pictures that lie elsewhere: 2" in result.said
    for line in ("names = /etc/hostname", "names = data/gone.names", "train = /etc/hostname", "valid = x"):
        write(source, f"classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n{line}\n")
        with pytest.raises(ProcessingError):
            imported("darknet", source, split=line.split()[0].replace("names", "train"))
