"""Files behind the addresses of a Label Studio export."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.data.importers.label_studio_export import ExportedFiles
from molmopoint.errors import ProcessingError


def made(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def found(folder, *addresses):
    files = ExportedFiles(folder, addresses)
    return [files.file(address).relative_to(folder).as_posix() for address in addresses]


def resolving(inner, encode=base64.urlsafe_b64encode, strip=""):
    return "/tasks/12/resolve/?fileuri=" + encode(inner.encode()).decode().rstrip(strip)


@pytest.mark.parametrize(
    ("address", "there", "expected"),
    [
        ("/data/upload/3/a%20b.png", "a b.png", "a b.png"),
        ("/data/upload/4/4f3a1c2b-kerb.png", "4f3a1c2b-kerb.png", "4f3a1c2b-kerb.png"),
        ("/data/upload/4/4f3a1c2b-kerb.png", "kerb.png", "kerb.png"),
        ("/data/upload/4/4f3a1c2b-kerb.png", "upload/4/4f3a1c2b-kerb.png", "upload/4/4f3a1c2b-kerb.png"),
        ("upload/4/4f3a1c2b-kerb.png", "4/kerb.png", "4/kerb.png"),
        ("/data/local-files/?d=row\\0.png", "row/0.png", "row/0.png"),
        ("/data/local-files/?d=row%5C0.png", "row/0.png", "row/0.png"),
        ("http://localhost:8080/data/local-files/?d=set/row/0.png", "row/0.png", "row/0.png"),
        ("/data/local-files/?d=/srv/set/row/0.png", "set/row/0.png", "set/row/0.png"),
        ("s3://bucket/a%20b?c#d.png", "a%20b?c#d.png", "a%20b?c#d.png"),
        ("C:\\sets\\row\\0.png", "row/0.png", "row/0.png"),
        ("s3://bucket/yard/cam1/0001.png", "yard/cam1/0001.png", "yard/cam1/0001.png"),
        ("gs://bucket/yard/cam1/0001.png", "0001.png", "0001.png"),
        (
            "https://bucket.example/yard/0001.png?X-Signature=a/b.png&Expires=3#x",
            "yard/0001.png",
            "yard/0001.png",
        ),
        (resolving("s3://bucket/kerb.png"), "kerb.png", "kerb.png"),
        (resolving("s3://bucket/kerb.png", strip="="), "kerb.png", "kerb.png"),
        (resolving("s3://bucket/f>>?/kerb.png", encode=base64.b64encode), "kerb.png", "kerb.png"),
        ("https://studio.example" + resolving("azure-blob://box/a/kerb.png"), "a/kerb.png", "a/kerb.png"),
        ("4f3a1c2b-", "4f3a1c2b-", "4f3a1c2b-"),
        ("100%.png", "100%.png", "100%.png"),
    ],
)
def test_one_address(tmp_path, address, there, expected):
    assert found(made(tmp_path, there), address) == [expected]


def test_the_full_name_of_an_upload_comes_first(tmp_path):
    made(tmp_path, "kerb.png", "upload/4f3a1c2b-kerb.png", "4f3a1c2b-kerb.png")
    assert found(tmp_path, "/data/upload/4f3a1c2b-kerb.png") == ["upload/4f3a1c2b-kerb.png"]


def test_paths_that_differ_by_their_folder_stay_apart(tmp_path):
    addresses = [f"s3://bucket/yard/{camera}/0001.png" for camera in ("cam1", "cam2")]
    assert found(made(tmp_path, "cam1/0001.png", "cam2/0001.png"), *addresses) == [
        "cam1/0001.png",
        "cam2/0001.png",
    ]
    assert found(tmp_path / "nowhere", *addresses, "s3://bucket/b.png") == [
        "cam1/0001.png",
        "cam2/0001.png",
        "b.png",
    ]
    assert found(tmp_path / "nowhere", "C:\\sets\\row\\0.png", "/srv/sets/row/1.png") == ["0.png", "1.png"]
    buckets = ["s3://one/0001.png", "s3://two/0001.png"]
    assert found(tmp_path / "nowhere", *buckets) == ["one/0001.png", "two/0001.png"]


@pytest.mark.parametrize(
    "addresses",
    [
        ["s3://bucket/cam1/0001.png", "s3://bucket/cam2/0001.png"],
        ["/data/upload/1/aaaaaaaa-0001.png", "/data/upload/1/bbbbbbbb-0001.png"],
    ],
)
def test_two_addresses_are_never_one_file(tmp_path, addresses):
    files = ExportedFiles(made(tmp_path, "0001.png", "other.png"), [*addresses, "other.png"])
    for address in addresses:
        with pytest.raises(ProcessingError, match=r"a file of its own.*'0001\.png'"):
            files.file(address)
    assert files.file("other.png") == tmp_path / "other.png"


def test_one_address_in_two_tasks_is_one_file(tmp_path):
    assert found(made(tmp_path, "a.png"), "a.png", "a.png") == ["a.png", "a.png"]


@pytest.mark.parametrize(
    "address",
    [
        "", "/", "set/", "../a.png", "/data/local-files/?d=../../etc/passwd", "s3://bucket/../../a.png", "http://[a.png",
        "data:image/png;base64,AAAA", "/tasks/1/resolve/?fileuri=%%%", "/tasks/1/resolve/?fileuri=gICA", "a\0b.png",
        resolving("x?fileuri=" + "A" * 8), "a/\ud800.png", "a/" * 100_000 + "b.png",
    ],
)  # fmt: skip
def test_addresses_of_no_file_are_refused(tmp_path, address):
    files = ExportedFiles(made(tmp_path, "a.png"), [address, "a.png"])
    with pytest.raises(ProcessingError, match="expected"):
        files.file(address)
    assert files.file("a.png") == tmp_path / "a.png"


@settings(derandomize=True, max_examples=200)
@given(st.lists(st.text(alphabet="ab/\\.:?=%d&+ \u00e9", max_size=20) | st.text(max_size=10), max_size=4))
def test_any_addresses_stay_in_the_folder(tmp_path_factory, addresses):
    folder = made(tmp_path_factory.getbasetemp() / "any", "a", "b/a")
    files = ExportedFiles(folder, addresses)
    for address in addresses:
        try:
            path = files.file(address)
        except ProcessingError:
            continue
        assert path.resolve().is_relative_to(folder.resolve())
