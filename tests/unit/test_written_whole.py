"""Files are there as a whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import ast
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmopoint.data.records import parse_record, write_records
from molmopoint.drawing import write_picture
from molmopoint.files import filled_whole, is_partial, remove_leftovers, write_text_whole, written_whole
from molmopoint.files.whole import _partial_name
from molmopoint.metrics.run_lengths import MaskIndex
from molmopoint.saving import save_whole
from molmopoint.tracks import Tracks

ROOT = Path(__file__).resolve().parents[2]
LINKS = ("molmopoint/eval/", "molmopoint/checkpoints/", "molmopoint/heads/")
MAY_RENAME = {
    "molmopoint/files/whole.py",
    "molmopoint/files/lock.py",  # names its process
    "molmopoint/training/run_checkpoints.py",  # several processes write into one folder, and the first of them renames it
}


class StopError(Exception):
    """Of a test."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with written_whole(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old" and beside.suffix == ".json" and beside.name.startswith(".")
    assert target.read_text() == "new" and names(tmp_path) == ["a.json"]
    with pytest.raises(StopError), written_whole(target) as beside:
        beside.write_text("half")
        raise StopError
    assert target.read_text() == "new" and names(tmp_path) == ["a.json"]


def test_nothing_written_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="partial"), written_whole(tmp_path / "a.json"):
        pass
    assert not names(tmp_path)


def test_folders(tmp_path):
    with written_whole(tmp_path / "made" / "a") as beside:
        beside.mkdir()
        (beside / "x").write_text("1")
    assert names(tmp_path / "made" / "a") == ["x"]
    with pytest.raises(OSError), written_whole(tmp_path / "made" / "a") as beside:
        beside.mkdir()
    assert names(tmp_path / "made" / "a") == ["x"] and names(tmp_path / "made") == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of Unix")
def test_permissions_are_those_of_any_file(tmp_path):
    old = os.umask(0o027)
    try:
        write_text_whole(tmp_path / "a.txt", "x")
        write_picture(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    finally:
        os.umask(old)
    assert all(stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640 for name in ("a.txt", "a.png"))
    (tmp_path / "a.txt").chmod(0o600)
    write_text_whole(tmp_path / "a.txt", "y")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="links and devices of Unix")
def test_links_and_devices(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "a.txt").symlink_to(tmp_path / "store" / "a.txt")
    write_text_whole(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").is_symlink() and (tmp_path / "store" / "a.txt").read_text() == "x"
    write_text_whole("/dev/null", "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("name", ["x" * 250 + ".json", "é" * 120 + ".csv", "日" * 80 + ".mp4"])
def test_names_as_long_as_a_disk_can_hold(tmp_path, name):
    write_text_whole(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_text_keeps_its_line_ends(tmp_path):
    write_text_whole(tmp_path / "a.txt", "a\r\nb\nc")
    assert (tmp_path / "a.txt").read_bytes() == b"a\r\nb\nc"


def test_filling_a_folder(tmp_path):
    write_text_whole(tmp_path / "old", "old")
    with pytest.raises(StopError), filled_whole(tmp_path) as beside:
        write_text_whole(beside / "old", "new")
        raise StopError
    assert names(tmp_path) == ["old"] and (tmp_path / "old").read_text() == "old"
    with filled_whole(tmp_path) as beside:
        write_text_whole(beside / "old", "new")
        write_text_whole(beside / "more", "x")
    assert names(tmp_path) == ["more", "old"] and (tmp_path / "old").read_text() == "new"


KILLED = """
import sys, time
from pathlib import Path
from molmopoint.files import filled_whole, written_whole
with written_whole(Path(sys.argv[1]) / "a.json") as file, filled_whole(sys.argv[1]) as folder:
    file.write_text("half")
    (folder / "weights").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_killed_processes_left_is_removed_and_no_more(tmp_path):
    (tmp_path / ".other.partial").write_text("of somebody else")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        assert remove_leftovers(tmp_path) == [] and len(names(tmp_path)) == 3
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "a.json").exists()
    save_whole(tmp_path, lambda folder: (Path(folder) / "weights").write_text("whole"))
    assert names(tmp_path) == [".other.partial", "weights"]


def test_leftovers_of_our_own_number_and_of_other_machines(tmp_path):
    ours, theirs = tmp_path / _partial_name("a"), tmp_path / f".a.00000000-{os.getpid()}-00000000.partial"
    ours.write_text("x")  # of an earlier process that had our id: nothing of this name is being written
    theirs.write_text("x")
    assert all(map(is_partial, (ours, theirs))) and not is_partial("a.partial")
    with written_whole(tmp_path / "b") as beside:
        beside.write_text("x")
        assert remove_leftovers(tmp_path) == [ours]
    os.utime(theirs, (0, time.time() - 2 * 86_400))
    assert remove_leftovers(tmp_path) == [theirs]
    assert names(tmp_path) == ["b"]


def write_tracks(path: Path, count: int) -> None:
    ones = np.ones(count)
    Tracks(ones.astype(int), np.arange(count) / 10, ones, 2 * ones).save(path)


def write_rows(path: Path, count: int) -> None:
    row = {"image": "a.png", "label": "cup", "points": [{"x": 1, "y": 1}], "coords": "pixel"}
    write_records(path, [parse_record(row, 1)] * count)


def write_masks(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    MaskIndex.build([rng.random((count, count)) > 0.5]).save(path)


def draw(path: Path, count: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (count, count, 3), dtype=np.uint8)
    write_picture(Image.fromarray(noise), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", write_tracks),
        ("a.json", write_tracks),
        ("a.jsonl", write_rows),
        ("a.npz", write_masks),
        ("a.png", draw),
    ],
)
def test_a_full_disk_leaves_the_old_file(tmp_path, name, write):
    resource = pytest.importorskip("resource")
    write(tmp_path / name, 2)
    before = (tmp_path / name).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError):
            write(tmp_path / name, 400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / name).read_bytes() == before and names(tmp_path) == [name]


@pytest.mark.parametrize("folder", ["molmopoint", "eval/runner", "eval/reports", "checkpoints"])
def test_nobody_else_writes_beside_and_renames(folder):
    """One function does; another would forget the full disk, the leftovers or the permissions."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name in MAY_RENAME or name.startswith(LINKS):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Call) and _renames(node)), (
                f"{name}:{node.lineno}: use molmopoint.files.written_whole"
            )


def _renames(call: ast.Call) -> bool:
    """Whether this is a call that writes beside or renames; `replace` of texts has two arguments, that of
    data classes names.
    """
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr == "replace":
        return len(call.args) == 1 and not call.keywords
    return call.func.attr in ("mkstemp", "NamedTemporaryFile", "move", "getpid")
