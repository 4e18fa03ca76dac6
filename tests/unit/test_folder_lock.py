"""One process at a time in a folder; a killed one keeps nobody out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from molmopoint.errors import EvaluationError, MolmoPointError, TrainingError
from molmopoint.files import lock as locking
from molmopoint.files.lock import alone_in, check_free, is_lock
from molmopoint.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import os, sys, time
from molmopoint.files.lock import alone_in
with alone_in(sys.argv[1], "an evaluation"):
    if len(sys.argv) > 2 and not os.fork():
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    print("locked", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *more], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_the_second_is_refused_at_once_and_told_who_is_there(tmp_path):
    first = holder(tmp_path)
    begun = time.monotonic()
    try:
        with (
            pytest.raises(EvaluationError) as raised,
            alone_in(tmp_path, "an evaluation", error=EvaluationError),
        ):
            pass
    finally:
        end(first)
    assert time.monotonic() - begun < 2
    for word in (
        str(tmp_path),
        f"process {first.pid}",
        "an evaluation",
        str(time.localtime().tm_year),
        "choose another folder",
    ):
        assert word in str(raised.value)
    with alone_in(
        tmp_path, "an evaluation"
    ):  # a killed one keeps nobody out, and its number may have another process by now
        pass


@pytest.mark.parametrize(
    "words", [["eval", "synthetic"], ["finetune", "data.jsonl"], ["finetune-reward", "data.jsonl"]]
)
def test_commands_refuse_before_they_load_anything(tmp_path, words):
    folder = tmp_path / "synthetic" if words[0] == "eval" else tmp_path
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['molmopoint', *sys.argv[1:]]; from molmopoint.cli import main; main()"
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")  # that the file is there is looked at first
    given = [str(data) if word == data.name else word for word in words]
    command = [sys.executable, "-c", code, *given, "--out", str(tmp_path)]
    with alone_in(folder, "a run"):
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and f"a run by process {os.getpid()}" in done.stderr


def test_in_one_process_too(tmp_path):
    with alone_in(tmp_path, "a run"):
        with (
            pytest.raises(MolmoPointError, match=f"a run by process {os.getpid()} "),
            alone_in(tmp_path, "a run"),
        ):
            pass
        with alone_in(tmp_path, "a run", part="-1"), alone_in(tmp_path / "other", "a run"):
            pass
    refused = []

    def try_it() -> None:
        try:
            with alone_in(tmp_path, "a run"):
                time.sleep(0.3)
        except MolmoPointError as error:
            refused.append(error)

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"process_id": "x"}',
        '{"process_id": 1e400, "host": 3}',
        '{"process_id": 99999999999999999999}',
    ],
)
def test_what_the_file_says_decides_nothing(tmp_path, content):
    (tmp_path / ".lock.json").write_text(content)
    with alone_in(tmp_path, "a run"):
        assert json.loads((tmp_path / ".lock.json").read_text())["process_id"] == os.getpid()
    assert all(is_lock(path) for path in tmp_path.iterdir())


def test_a_reused_number_keeps_nobody_out(tmp_path):
    """The number in the file is that of a running process, which is another one: the lock itself is free."""
    first = holder(tmp_path)
    end(first)
    about = json.loads((tmp_path / ".lock.json").read_text())
    (tmp_path / ".lock.json").write_text(json.dumps({**about, "process_id": os.getppid()}))
    with alone_in(tmp_path, "a run"):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that is copied")
def test_helpers_of_a_killed_process_get_time_to_end(tmp_path):
    first = holder(tmp_path, "1.5")
    end(first)
    begun = time.monotonic()
    with alone_in(tmp_path, "a run"):
        assert time.monotonic() - begun < 5


def test_file_systems_without_locks(tmp_path, monkeypatch):
    """Then only the file says who is there: a process of this machine counts as long as it runs."""

    def no_locks(*_: object, **__: object) -> None:
        raise OSError(locking.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking.FileLock, "acquire", no_locks)
    with alone_in(tmp_path, "a run"):
        with pytest.raises(MolmoPointError, match=f"process {os.getpid()}"), alone_in(tmp_path, "a run"):
            pass
        about = json.loads((tmp_path / ".lock.json").read_text())
    (tmp_path / ".lock.json").write_text(json.dumps({**about, "process_id": 2**22 + 1}))
    with alone_in(tmp_path, "a run"):
        pass


def test_a_folder_in_which_nothing_happened_is_removed(tmp_path):
    with pytest.raises(ValueError, match="no data"), alone_in(tmp_path / "run", "a run"):
        raise ValueError("no data")
    assert not (tmp_path / "run").exists()
    (tmp_path / "there").mkdir()
    with alone_in(tmp_path / "there", "a run"), alone_in(tmp_path / "filled", "a run"):
        (tmp_path / "filled" / "x").write_text("x")
    assert (tmp_path / "there").is_dir() and (tmp_path / "filled" / "x").is_file()


IDENTITY = {"recipe": {"steps": 1}, "model": "nano", "data": {"train": "0"}}


def test_only_the_main_process_of_a_run_locks(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.alone(main=True):
        with folder.alone(main=False), folder.alone(main=False):
            pass
        with pytest.raises(TrainingError, match="a training run"), folder.alone(main=True):
            pass


@pytest.mark.parametrize(
    "content", [b"", b'{"recipe": {"steps": 1, "mode', b"[]", b"\xff\xfe", b"{" * 50_000]
)
def test_a_half_written_start_is_begun_again(tmp_path, content):
    folder = RunFolder(tmp_path)
    (tmp_path / "run.json").write_bytes(content)
    (tmp_path / ".run.json.123.tmp").write_text("of an earlier version")
    folder.check(IDENTITY)
    with folder.alone(main=True):
        folder.check(IDENTITY)
        folder.claim(IDENTITY)
    assert folder.read("run.json") == IDENTITY
    folder.check(IDENTITY)
    with pytest.raises(TrainingError, match="another: model"):
        folder.check({**IDENTITY, "model": "other"})


def test_a_half_written_start_beside_training_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "checkpoint-000001").mkdir()
    with pytest.raises(TrainingError, match=r"run\.json.* cut off"):
        RunFolder(tmp_path).check(IDENTITY)
    (tmp_path / "run.json").unlink()
    with pytest.raises(TrainingError, match="other files"):
        RunFolder(tmp_path).check(IDENTITY)


def test_leftovers_of_killed_runs_are_removed(tmp_path):
    for place in (tmp_path, tmp_path / "model", tmp_path / "adapter"):
        (place / ".saving-abc").mkdir(parents=True)
        (place / ".saving-abc" / "model.safetensors").write_text("x")
        (place / ".model.00000000-1-00000000.partial").mkdir()
        os.utime(place / ".model.00000000-1-00000000.partial", (0, 0))
    with RunFolder(tmp_path).alone(main=True):
        left = {path.name for path in tmp_path.rglob("*")}
    assert left == {"model", "adapter", ".lock", ".lock.json"}


def test_a_full_disk_is_a_training_error(tmp_path, monkeypatch):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match=r"run\.json"):
        RunFolder(tmp_path / "run").claim(IDENTITY)


def test_a_link_in_place_of_the_owner_is_not_followed(tmp_path):
    """A folder may be somebody else's, and its link lead to a file of ours."""
    kept, folder = tmp_path / "kept.txt", tmp_path / "run"
    kept.write_text("precious")
    folder.mkdir()
    (folder / ".lock.json").symlink_to(kept)
    with alone_in(folder, "an evaluation"):
        assert json.loads((folder / ".lock.json").read_text())["process_id"] == os.getpid()
    assert kept.read_text() == "precious"


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "a\0b"])
def test_what_cannot_be_a_folder(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(TrainingError, match="expected a folder that can be written to"),
        alone_in(tmp_path / name, "", error=TrainingError),
    ):
        pass
    check_free(tmp_path / name)


def test_a_lock_that_is_no_file(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(MolmoPointError, match="expected a folder that can be written to"),
        alone_in(tmp_path, "an evaluation"),
    ):
        pass


def test_an_owner_that_cannot_be_read(tmp_path):
    with alone_in(tmp_path, "an evaluation"):
        (tmp_path / ".lock.json").write_text("[" * 100_000)
        with pytest.raises(MolmoPointError, match="has just begun"), alone_in(tmp_path, "another one"):
            pass
